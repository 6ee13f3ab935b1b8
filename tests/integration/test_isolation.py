"""What a job sees: itself, and next to nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.host import Host, eventually, job_host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    os.environ["JOBLET_TEST_SECRET"] = "the-daemon-knows"
    try:
        with job_host() as host:
            yield host
    finally:
        del os.environ["JOBLET_TEST_SECRET"]


def output_of(host: Host, name: str, script: str, extra: str = "") -> str:
    """Run a shell script as a job and return what it wrote to stdout; it must succeed."""
    lines = "".join(f"            {line}\n" for line in ("set +e", *script.strip().splitlines()))
    host.apply(
        f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  script: |\n{lines}{extra}",
        filename=name,
    )
    run = host.finished(name)
    output = host.log(name).decode()
    assert run.phase == "COMPLETED", (run, output, host.log(name, stream="stderr"))
    return output


def test_a_job_sees_only_its_own_processes(host: Host) -> None:
    pids = output_of(host, "processes", "ls -d /proc/[0-9]* | wc -l; ls -d /proc/1 2>/dev/null; true")
    # The shell, ls, wc, and at most one subshell; not even its init.
    assert len(pids.split()) == 1 and int(pids) <= 4


def test_a_job_has_its_own_mounts_and_no_path_of_the_host(host: Host) -> None:
    mounts = output_of(host, "mounts", "cat /proc/self/mountinfo")
    targets = [line.split()[4] for line in mounts.splitlines()]
    assert {"/", "/proc", "/work"} <= set(targets)
    assert str(host.root / "state/joblet.db") not in mounts
    assert not [target for target in targets if target.startswith(("/sys/fs/cgroup", "/run/joblet", "/home", "/root"))]


def test_a_job_has_its_own_name(host: Host) -> None:
    assert output_of(host, "named", "cat /proc/sys/kernel/hostname") == "named\n"


def test_nothing_of_the_daemons_environment_leaks(host: Host) -> None:
    environment = output_of(host, "environment", "env")
    assert "JOBLET_TEST_SECRET" not in environment
    assert {line.split("=")[0] for line in environment.splitlines()} <= {
        *(
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "PWD",
            "OLDPWD",
            "SHLVL",
            "_",
            "HOSTNAME",
            "TMPDIR",
            "TERM",
        ),
        *("JOBLET_JOB", "JOBLET_RUN", "JOBLET_ATTEMPT"),
    }


def test_a_job_has_no_privileges(host: Host) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in output_of(host, "status", "cat /proc/self/status").splitlines()
        if ":\t" in line
    )
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0000000000000000"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_a_jobs_root_is_nobody_on_the_host(host: Host) -> None:
    mapping = output_of(host, "mapping", "cat /proc/self/uid_map /proc/self/gid_map; id -u")
    inside, outside, count = mapping.splitlines()[0].split()
    assert (inside, count) == ("0", "65536")
    assert int(outside) >= 65536
    assert mapping.splitlines()[-1] == "0"


def test_two_jobs_have_different_ids_on_the_host(host: Host) -> None:
    for name in ("left", "right"):
        host.apply(f"""
            apiVersion: joblet/v1
            kind: Job
            metadata: {{name: {name}}}
            spec:
              script: |
                cat /proc/self/uid_map; sleep 60
              stop: {{grace: 0s}}
        """)
    for name in ("left", "right"):
        host.running(name)
    left = eventually(lambda: host.log("left", follow=False))
    right = eventually(lambda: host.log("right", follow=False))
    assert left != right


def test_the_network_is_an_empty_one(host: Host) -> None:
    devices = output_of(host, "network", "cat /proc/net/dev")
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]


def test_the_hosts_state_and_keys_are_out_of_reach(host: Host) -> None:
    script = f"""
for path in {host.root} /sys/fs/cgroup /root /home /etc/shadow /run/dbus /proc/kcore /dev/vda; do
  [ -d $path ] && [ -n "$(ls -A $path 2>/dev/null)" ] && echo reached $path
  [ -f $path ] && head -c1 $path >/dev/null 2>&1 && echo reached $path
done
ls -d /sys/fs/cgroup/* {host.root} 2>/dev/null
touch /usr/x /etc/x /bin/x /x 2>/dev/null && echo wrote
exit 0
"""
    assert output_of(host, "reach", script) == ""


def test_init_cannot_be_read_or_killed(host: Host) -> None:
    script = """
cat /proc/1/environ 2>/dev/null
ls -l /proc/1/fd /proc/1/root/ 2>/dev/null
kill -9 1 2>/dev/null && sleep 0.2
kill -STOP 1 2>/dev/null
echo alive
"""
    assert output_of(host, "init", script) == "alive\n"


def test_only_the_three_standard_descriptors_are_open(host: Host) -> None:
    output = output_of(host, "descriptors", "ls /proc/$$/fd")
    # The shell itself opens its script as descriptor 10 or 255.
    assert set(output.split()) - {"10", "255"} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("name", "command", "code", "text"),
    [
        ("nosuch", "[no-such-command]", 127, "No such file or directory"),
        ("noexec", "[/etc/passwd]", 126, "Permission denied"),
    ],
)
def test_a_command_that_cannot_be_executed_is_a_start_error(
    host: Host, name: str, command: str, code: int, text: str
) -> None:
    host.apply(f"""
        apiVersion: joblet/v1
        kind: Job
        metadata: {{name: {name}}}
        spec: {{command: {command}}}
    """)
    run = host.finished(name)
    assert (run.phase, run.reason, run.exit_code) == ("FAILED", "StartError", code)
    assert text in run.message
    assert b"Traceback" not in host.log(name, stream="")


def test_a_missing_working_directory_is_a_start_error(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: nowhere}
        spec: {command: ["true"], workdir: /no/such/place}
    """)
    run = host.finished("nowhere")
    assert (run.phase, run.reason, run.exit_code) == ("FAILED", "StartError", 126)
    assert "/no/such/place" in run.message and "No such file or directory" in run.message

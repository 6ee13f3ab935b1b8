"""The sandbox as the launcher builds it: what a command is, sees and may do; what it cannot start."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from joblet.cgroup import CgroupLimits
from joblet.sandbox.mounts import SYS_DIRECTORIES
from tests.integration.host import eventually
from tests.integration.sandbox_attempts import ID_BASE, Sandboxes, sandboxes
from tests.integration.test_local_executor import backing_files


@pytest.fixture(scope="module")
def box() -> Iterator[Sandboxes]:
    with sandboxes() as made:
        yield made


def status_of(box: Sandboxes, **changes: object) -> dict[str, str]:
    lines = box.shell("cat /proc/self/status", **changes).splitlines()  # type: ignore[arg-type]
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


# --- what the launcher is ---------------------------------------------------------------------------------------------


def test_the_launcher_has_one_thread(box: Sandboxes) -> None:
    assert box.process is not None
    assert len(os.listdir(f"/proc/{box.process.pid}/task")) == 1


def test_the_init_and_the_launcher_show_nothing_of_the_daemon(box: Sandboxes) -> None:
    names = ("mem", "environ", "fd", "maps", "cmdline", "exe", "root", "cwd", "ns/mnt", "status", "mountinfo")
    assert (
        box.shell(f"cd /proc; for name in {' '.join(names)}; do ls -d 1/$name; cat 1/$name; done 2>/dev/null; true")
        == ""
    )
    assert box.process is not None
    assert "python" not in Path(f"/proc/{box.process.pid}/cmdline").read_text()


# --- what a command sees ----------------------------------------------------------------------------------------------


def test_a_command_sees_itself_alone(box: Sandboxes) -> None:
    output = box.shell("ps -eo pid,comm --no-headers")
    assert {line.split()[1] for line in output.splitlines()} == {"sh", "ps"}
    assert "1" not in [line.split()[0] for line in output.splitlines()]


def test_a_command_sees_its_own_host_name_and_network_and_cgroup(box: Sandboxes) -> None:
    assert box.shell("hostname", hostname="other-name") == "other-name\n"
    devices = [line.split(":")[0].strip() for line in box.shell("cat /proc/net/dev").splitlines()[2:]]
    assert devices == ["lo"]
    assert all(line.endswith(":/") for line in box.shell("cat /proc/self/cgroup").splitlines())


def test_the_loopback_device_is_up(box: Sandboxes) -> None:
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    record = box.run(["/usr/bin/env", "python3", "-c", script]).record()
    assert record["outcome"] == {"type": "exited", "code": 0}


def test_with_the_hosts_network_the_command_is_in_the_hosts_namespace(box: Sandboxes) -> None:
    assert box.shell("readlink /proc/self/ns/net", network="host").strip() == os.readlink("/proc/self/ns/net")


def test_all_other_namespaces_are_the_commands_own(box: Sandboxes) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    output = box.shell(f"cd /proc/self/ns; for kind in {' '.join(kinds)}; do readlink $kind; done")
    for kind, theirs in zip(kinds, output.splitlines(), strict=True):
        assert theirs != os.readlink(f"/proc/self/ns/{kind}")


def test_no_mount_of_the_host_is_visible(box: Sandboxes) -> None:
    targets = {line.split()[4] for line in box.shell("cat /proc/self/mountinfo").splitlines()}
    assert {"/", "/usr", "/proc", "/work", "/tmp", "/dev/pts", "/dev/shm"} <= targets
    assert not [path for path in targets if path.startswith(("/run/", "/home", "/root", "/var"))]


def test_the_system_is_read_only_and_the_places_to_write_are_not(box: Sandboxes) -> None:
    script = """
    for place in / /usr /etc /dev /proc/sys/kernel /proc/sys/vm; do
        if (echo > $place/joblet-probe) 2>/dev/null; then echo wrote $place; fi
    done
    (echo 1 > /proc/sys/vm/drop_caches) 2>/dev/null && echo dropped caches
    for place in /work /tmp /dev/shm; do echo > $place/probe; done
    """
    assert box.shell(script) == ""


def test_of_sys_there_is_what_programs_need_and_read_only(box: Sandboxes) -> None:
    of_the_host = {path.split("/")[0] for path in SYS_DIRECTORIES if Path("/sys", path).exists()}
    assert set(box.shell("ls /sys").split()) == {*of_the_host, "fs"} >= {"devices"}
    assert box.shell("find /sys/fs -mindepth 1") == "/sys/fs/cgroup\n"  # for those who are shown theirs
    assert box.shell("cat /sys/devices/system/cpu/online") == Path("/sys/devices/system/cpu/online").read_text()
    found = box.shell("find /sys -mindepth 1 -maxdepth 3")
    assert not [word for word in ("block", "firmware", "class", "debug", "module") if word in found]
    mounts = [line.split() for line in box.shell("grep ' /sys' /proc/self/mountinfo").splitlines()]
    assert mounts and all(mount[5].startswith("ro,nosuid,nodev") for mount in mounts)


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/proc/acpi"])
def test_what_tells_about_the_host_is_masked(box: Sandboxes, path: str) -> None:
    assert box.shell(f"if [ -d {path} ]; then ls -A {path}; elif [ -e {path} ]; then cat {path}; fi") == ""


def test_the_hosts_files_are_out_of_reach(box: Sandboxes) -> None:
    script = f"ls -d {box.root} /sys/fs/cgroup/* /etc/shadow /root/.[a-z]* /home/* /proc/1/root/* 2>/dev/null; true"
    assert box.shell(script) == ""


def test_the_environment_is_the_specs_alone(box: Sandboxes) -> None:
    output = box.run(["/usr/bin/env"], env={"PATH": "/usr/bin", "ONE": "1"}).output()
    assert output.split() == [b"PATH=/usr/bin", b"ONE=1"]


def test_only_the_standard_descriptors_are_open_and_stdin_is_empty(box: Sandboxes) -> None:
    assert box.run(["/bin/ls", "/proc/self/fd"]).output().split() == [b"0", b"1", b"2", b"3"]  # 3 is ls's own
    assert box.shell("cat; readlink /proc/self/fd/0").endswith("null\n")


def test_terminals_are_bounded_since_all_jobs_share_those_of_the_kernel(box: Sandboxes) -> None:
    code = "import os\nfds = []\ntry:\n  while True: fds.append(os.open('/dev/ptmx', os.O_RDWR))\nexcept OSError: print(len(fds))"
    assert box.run(["/usr/bin/python3", "-c", code]).output() == b"64\n"


def test_no_descriptor_of_the_set_up_is_left_when_the_working_directory_is_entered(box: Sandboxes) -> None:
    for fd in range(3, 40):
        outcome = box.run(["/bin/pwd"], workdir=f"/proc/self/fd/{fd}").record()["outcome"]
        assert outcome["type"] == "not_started" and outcome["code"] == 126, (fd, outcome)


def test_what_is_counted_for_a_user_is_not_counted_for_root(box: Sandboxes) -> None:
    """Inotify instances: counted for each user namespace's maker up to the first one."""
    bound = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    script = "import ctypes, time\nlibc = ctypes.CDLL(None)\n"
    script += f"print(sum(libc.inotify_init() >= 0 for _ in range({bound})), flush=True)\ntime.sleep(600)"
    jobs = [box.start(["/usr/bin/python3", "-c", script]) for _ in range(2)]
    for job in jobs:
        eventually(job.output, what="the count")
        assert int(job.output()) == bound  # each has all of its own
    fd = ctypes.CDLL(None, use_errno=True).inotify_init()
    assert fd >= 0, os.strerror(ctypes.get_errno())
    os.close(fd)
    for job in jobs:
        job.signal(signal.SIGUSR1)
        job.wait()


def test_a_tty_of_its_own_can_be_had(box: Sandboxes) -> None:
    assert box.shell("python3 -c 'import os; print(len(os.openpty()))'") == "2\n"


# --- what a command may do --------------------------------------------------------------------------------------------


def test_a_command_has_no_capability_and_cannot_gain_one(box: Sandboxes) -> None:
    status = status_of(box)
    assert {status[f"Cap{kind}"].strip("0") for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {""}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_capability_that_was_asked_for_survives_the_exec(box: Sandboxes, uid: int) -> None:
    status = status_of(box, uid=uid, gid=uid, capabilities=["NET_BIND_SERVICE"])
    assert {int(status[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd")} == {1 << 10}


def test_users_are_mapped_into_the_range_of_the_attempt(box: Sandboxes) -> None:
    assert box.shell("id -u; id -g; id -G; touch made; stat -c '%u %g' made", uid=5, gid=6) == "5\n6\n6\n5 6\n"
    files = [{"path": "made", "mode": 0o600, "content": ""}]
    attempt = box.start(["/bin/sleep", "600"], uid=5, gid=6, files=files)
    made = Path(f"/proc/{attempt.pid}/root/work/made").stat()
    assert (made.st_uid, made.st_gid) == (ID_BASE + 5, ID_BASE + 6)
    children = Path(f"/proc/{attempt.pid}/task/{attempt.pid}/children")
    child = eventually(
        lambda: "".join(found) if len(found := children.read_text().split()) == 1 else "", what="one child"
    )
    assert f"Uid:\t{ID_BASE + 5}\t" in Path(f"/proc/{child}/status").read_text()
    attempt.signal(signal.SIGTERM)
    attempt.wait()


def test_signals_have_their_default_dispositions(box: Sandboxes) -> None:
    status = status_of(box)
    assert {status[name].strip("0") for name in ("SigBlk", "SigIgn")} == {""}


def test_what_the_daemon_was_started_to_ignore_its_jobs_do_not() -> None:
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)
    }
    try:
        with sandboxes() as box:
            assert status_of(box)["SigIgn"].strip("0") == ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_how_the_kernel_treats_the_daemon_when_memory_runs_out_is_not_passed_on() -> None:
    mine = Path("/proc/self/oom_score_adj")
    before = mine.read_text()
    mine.write_text("300")  # to lower it takes more than root in a container has
    try:
        with sandboxes() as box:
            assert box.process is not None
            assert Path(f"/proc/{box.process.pid}/oom_score_adj").read_text() == "300\n"
            assert [box.shell("cat /proc/self/oom_score_adj") for _ in range(2)] == ["0\n", "0\n"]
    finally:
        mine.write_text(before)


def test_limits_that_may_not_be_raised_stay(box: Sandboxes) -> None:
    assert box.shell("ulimit -n") == "512\n"


def test_init_cannot_be_killed_or_stopped_from_inside(box: Sandboxes) -> None:
    assert box.shell("kill -9 1; kill -STOP 1; sleep 0.1; echo alive") == "alive\n"


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_are_there_with_mode_and_owner(box: Sandboxes) -> None:
    files = [{"path": "a/b.txt", "mode": 0o640, "content": "käse\n"}]
    output = box.shell("cat a/b.txt; stat -c '%a %u %g' a/b.txt a", files=files, uid=7, gid=8)
    assert output == "käse\n640 7 8\n755 7 8\n"


def test_a_script_runs_and_cannot_be_changed(box: Sandboxes) -> None:
    script = "#!/bin/sh\n(echo x >> /run/joblet/script) 2>/dev/null && echo changed\necho ran\n"
    assert box.run(["/run/joblet/script"], script=script).output() == b"ran\n"


def test_a_workspace_in_memory_has_its_size(box: Sandboxes) -> None:
    workspace = {"type": "tmpfs", "bytes": 1 << 20}
    attempt = box.run(["/bin/sh", "-c", "head -c 2M /dev/zero > big"], workspace=workspace)
    assert attempt.record()["outcome"]["type"] == "exited"
    assert b"No space left on device" in attempt.output("stderr")


def test_an_image_is_mounted_as_workspace_and_its_loop_device_is_freed(box: Sandboxes) -> None:
    image = box.root / "disk.ext4"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    os.spawnlp(os.P_WAIT, "mkfs.ext4", "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image))
    workspace = {"type": "loop", "image": str(image)}
    assert box.shell("ls -A; stat -f -c %T .; echo kept > file", workspace=workspace).split()[-1] == "ext2/ext3"
    # By the kernel, once it has cleared away the mounts of whoever was the last.
    eventually(lambda: str(image) not in backing_files(), what="the loop device to be free")
    assert box.shell("rm -d lost+found; cat file", workspace=workspace) == "kept\n"


# --- start errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (["nosuch"], 127, "nosuch: No such file or directory"),
        (["/no/such"], 127, "/no/such: No such file or directory"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        (["/usr"], 126, "/usr: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_executed_is_on_record_with_the_reason(
    box: Sandboxes, argv: list[str], code: int, error: str
) -> None:
    attempt = box.run(argv)
    assert attempt.record()["outcome"] == {"type": "not_started", "code": code, "error": error}
    assert attempt.record()["started_ns"] is None
    assert attempt.lines == []


def test_a_missing_working_directory_is_on_record(box: Sandboxes) -> None:
    outcome = box.run(["/bin/true"], workdir="/x").record()["outcome"]
    assert outcome == {"type": "not_started", "code": 126, "error": "workdir /x: No such file or directory"}


def test_a_working_directory_never_leads_out_of_the_root(box: Sandboxes) -> None:
    assert box.shell("pwd", workdir=".") == "/\n"


def test_a_limit_that_the_kernel_refuses_is_on_record_and_leaves_no_cgroup(box: Sandboxes) -> None:
    spec = box.spec(["/bin/true"], CgroupLimits(pids=5))
    writes = [(path, "many" if limit == "pids" else value, limit) for path, value, limit in spec["cgroup"]["write"]]
    spec["cgroup"] = {**spec["cgroup"], "write": writes}
    answer, fds = box.ask(spec)
    assert answer["code"] == 126 and "limit pids: the kernel refuses 'many'" in answer["error"] and not fds
    assert os.strerror(errno.EINVAL) in answer["error"]
    assert not any(os.path.exists(directory) for directory in spec["cgroup"]["mkdir"])
    assert '"not_started"' in Path(spec["attempt_dir"], "exit.json").read_text()


def test_nothing_is_left_of_an_attempt_but_its_empty_cgroup(box: Sandboxes) -> None:
    before = mounts_of(box)
    attempt = box.run(["/bin/sh", "-c", "sleep 300 & setsid sleep 300 & exit 3"])
    assert attempt.record()["outcome"] == {"type": "exited", "code": 3}
    name = attempt.directory.name
    assert box.hierarchy.processes(name) == []
    box.hierarchy.remove(name)
    assert name not in box.hierarchy.list_attempts()
    assert mounts_of(box) == before


def mounts_of(box: Sandboxes) -> list[str]:
    """The launcher's, and what got out of its namespace to us. Other tests mount something meanwhile."""
    assert box.process is not None
    seen = [Path(f"/proc/{pid}/mountinfo").read_text().splitlines() for pid in (os.getpid(), box.process.pid)]
    return [line for lines in seen for line in lines if str(box.root) in line]

"""The client against a real daemon: what a person types, sees, and gets as exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import BIN, PATIENCE, Host, eventually, job_host
from tests.ports import held_port

JOB = """\
apiVersion: joblet/v1
kind: Job
metadata: {{name: {name}, labels: {{team: data}}}}
spec:
  command: [sh, -c, {command}]
  limits: {{memory: {memory}, cpu: 50%, pids: 20}}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def manifest(name: str, *, command: str = "echo hi", memory: str = "64Mi") -> Path:
        path = tmp_path / f"{name}.yml"
        path.write_text(JOB.format(name=name, command=json.dumps(command), memory=memory))
        return path

    return manifest


def popen(host: Host, *arguments: str) -> subprocess.Popen[bytes]:
    command = [str(BIN / "rnx"), "--config", str(host.root / "config/rnx-config.yml"), *arguments]
    # Unbuffered: communicate() would not see what readline() has taken beforehand.
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)


@pytest.mark.parametrize(
    ("command", "status", "stdout", "stderr"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 7"], 7, b"out\n", b"err\n"),
        (["sh", "-c", "kill -9 $$"], 137, b"", b"killed by SIGKILL"),
        (["sh", "-c", "kill -TERM $$"], 143, b"", b"killed by SIGTERM"),
        (["nosuchcommand"], 127, b"", b"No such file or directory"),
        (["printf", "no end"], 0, b"no end", b""),
    ],
)
def test_run_wait_gives_output_and_exit_code(
    host: Host, command: list[str], status: int, stdout: bytes, stderr: bytes
) -> None:
    ended = host.rnx("run", "--wait", *command)
    assert (ended.status, ended.stdout) == (status, stdout)
    assert stderr in ended.stderr


def test_run_wait_tells_out_of_memory_and_out_of_time_apart(host: Host) -> None:
    hog = host.rnx("run", "--wait", "--max-memory", "32", "python3", "-c", "bytearray(1 << 29)")
    assert (hog.status, "OOMKilled" in hog.err) == (137, True)
    slow = host.rnx("run", "--wait", "--timeout", "1s", "sleep", "60")
    assert (slow.status, "TimedOut" in slow.err) == (124, True)


def test_run_answers_at_once_and_status_shows_limits_as_read_back(host: Host) -> None:
    ended = host.rnx("run", "--max-memory", "64", "--max-cpu", "50", "--name", "answers", "sleep", "600")
    keys = [line.partition(":")[0] for line in ended.out.splitlines()]
    assert (ended.status, keys) == (0, ["ID", "Command", "Status", "StartTime"])
    run_id = ended.out.split()[1]
    assert host.rnx("wait", run_id, "--for", "running").status == 0
    status = host.rnx("status", run_id[:4]).out
    assert "Status:        RUNNING\n" in status
    assert "asked 64Mi" in status and "asked 50%" in status and "NOT ENFORCED" not in status
    assert "Memory Peak:" in status and "CPU Time:" in status
    again = host.rnx("run", "--name", "answers", "true")
    assert (again.status, "there is a job answers already" in again.err) == (6, True)
    stopped = host.rnx("stop", run_id, "--force", "--wait")
    assert (stopped.status, stopped.out) == (0, f"run {run_id} STOPPED\n")
    assert host.rnx("wait", "answers", "--for", "completed").status == 1


def test_uploads_and_environment_reach_the_job(host: Host, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/data.txt").write_text("data\n")
    (tmp_path / "tool.sh").write_text("#!/bin/sh\ncat sub/data.txt; echo $WORD\n")
    (tmp_path / "tool.sh").chmod(0o755)
    flags = ("--upload", tmp_path / "tool.sh", "--upload-dir", tmp_path / "tree", "--env", "WORD=a b")
    ended = host.rnx("run", "-w", *flags, "/work/tool.sh")
    assert (ended.status, ended.out) == (0, "data\na b\n"), ended.err


def test_apply_diff_and_apply_again(host: Host, write) -> None:  # type: ignore[no-untyped-def]
    path = write("declared")
    assert host.rnx("diff", "-f", path).status == 1
    assert host.rnx("apply", "-f", path, "--dry-run").out.startswith("job/declared created")
    assert host.rnx("get", "declared").status == 3
    applied = host.rnx("apply", "-f", path, "--wait")
    assert applied.status == 0
    assert applied.out.splitlines()[-1] == "job/declared COMPLETED (Completed)"
    assert host.rnx("apply", "-f", path).out == "job/declared unchanged\n"
    assert host.rnx("diff", "-f", path).status == 0
    write("declared", memory="32Mi")
    changed = host.rnx("diff", "-f", path)
    assert changed.status == 1
    assert "-    memory: 64Mi\n+    memory: 32Mi\n" in changed.out
    assert changed.out.startswith("# job/declared: ")
    manifest = host.rnx("get", "declared", "--manifest").out
    again = host.rnx("apply", "-f", "-", stdin=manifest)
    assert again.out == "job/declared unchanged\n", again.err


def test_one_wrong_file_applies_none(host: Host, write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write("right")
    write("wrong", memory="64MB/s")
    ended = host.rnx("apply", "-f", tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f'{tmp_path}/wrong.yml:6:20: spec.limits.memory: "64MB/s" is not a size')
    assert host.rnx("get", "right").status == 3


def test_list_describe_events_and_delete(host: Host, write) -> None:  # type: ignore[no-untyped-def]
    assert host.rnx("apply", "-f", write("shown"), "--wait").status == 0
    (listed,) = [one for one in json.loads(host.rnx("list", "--json", "-l", "team=data").out) if one["name"] == "shown"]
    assert (listed["status"], listed["exitCode"]) == ("COMPLETED", 0)
    described = host.rnx("describe", "shown")
    assert described.status == 0
    for part in ("Labels:\n  team: data\n", "Runs:\n", "Events:\n", "Manifest:\n  apiVersion: joblet/v1\n"):
        assert part in described.out
    assert "Created" in host.rnx("events", "shown").out
    assert host.rnx("delete", "shown").out == "job/shown deleted\n"
    eventually(lambda: host.rnx("get", "shown").status == 3, what="the job is gone")


def test_a_stream_of_events_is_taken_up_where_it_was_left(host: Host, write) -> None:  # type: ignore[no-untyped-def]
    host.rnx("apply", "-f", write("streamed"), "--wait")
    with popen(host, "events", "streamed", "-w", "-o", "json") as stream:
        assert stream.stdout is not None
        while (last := json.loads(stream.stdout.readline()))["reason"] != "Completed":
            pass
        host.rnx("run", "--job", "streamed", "--wait")
        assert json.loads(stream.stdout.readline())["reason"] == "Triggered"  # as it happens, not when the pipe is full
        stream.terminate()
    with popen(host, "events", "streamed", "-w", "-o", "json", "--since", last["last"]) as again:
        assert again.stdout is not None
        seen = [last]  # from that moment on: what happened in it comes again, and is known by its id
        while len([one for one in seen if one["id"] > last["id"]]) < 3:
            seen.append(json.loads(again.stdout.readline()))
        again.terminate()
    assert last in seen[1:]
    assert [one["reason"] for one in seen if one["id"] > last["id"]] == ["Triggered", "Started", "Completed"]


def test_a_misspelt_name_is_met_with_the_nearest(host: Host, write) -> None:  # type: ignore[no-untyped-def]
    host.rnx("apply", "-f", write("misspelt"))
    ended = host.rnx("status", "mispelt")
    assert (ended.status, ended.err) == (3, "rnx: no job or run 'mispelt'\n  did you mean misspelt?\n")


def test_following_starts_at_once_and_goes_on_through_a_restart_of_the_daemon(host: Host) -> None:
    host.rnx("run", "--name", "followed", "sh", "-c", "for i in $(seq 1 60); do echo $i; sleep 0.1; done")
    follower = popen(host, "log", "-f", "followed")
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"1\n"
        host.kill()
        with held_port(int((host.root / "run/port").read_text())) as port:  # where the follower looks for it
            host.configure(lambda config: config["server"].update(port=port))
            host.start()
        rest, errors = follower.communicate(timeout=60 * PATIENCE)
    finally:
        follower.kill()
        follower.wait()
    assert (follower.returncode, errors) == (0, b"")
    assert rest.split() == [str(number).encode() for number in range(2, 61)]


def test_ctrl_c_leaves_the_job_running(host: Host) -> None:
    process = popen(host, "run", "--wait", "--name", "goes-on", "sh", "-c", "echo ready; sleep 600")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30 * PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert b"rnx: the job goes on\n" in errors
    assert host.run("goes-on").phase == "RUNNING"
    assert host.rnx("stop", "goes-on", "--force", "--wait").status == 0


def test_a_viewer_may_look_and_is_refused_the_rest(host: Host, write) -> None:  # type: ignore[no-untyped-def]
    path = write("viewed")
    assert host.rnx("apply", "-f", path, "--wait").status == 0
    for arguments in (["list"], ["get", "viewed"], ["log", "viewed"], ["status", "viewed"], ["events"], ["nodes"]):
        assert host.rnx(*arguments, role="viewer").status == 0, arguments
    for arguments in (["run", "true"], ["stop", "viewed"], ["delete", "viewed"], ["apply", "-f", str(path)]):
        ended = host.rnx(*arguments, role="viewer")
        assert ended.status == 5, arguments
        assert "needs the role admin" in ended.err


def test_doctor_nodes_and_version_are_content(host: Host) -> None:
    doctor = host.rnx("doctor")
    assert (doctor.status, doctor.err) == (0, "")
    assert host.rnx("nodes").out.splitlines()[1].split()[2] == "ready"
    assert [line.partition(":")[0] for line in host.rnx("version").out.splitlines()] == ["client", "daemon"]


def test_a_daemon_that_is_not_there_is_told_quickly(host: Host) -> None:
    host.stop()
    try:
        started = time.monotonic()
        ended = host.rnx("list")
        assert (ended.status, "nothing listens there" in ended.err) == (4, True)
        assert time.monotonic() - started < 15 * PATIENCE  # most of it the interpreter's start
    finally:
        host.start()

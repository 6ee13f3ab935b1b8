"""How attempts end: exit codes, signals, stops, timeouts, the death of the launcher; and that nothing outlives them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from joblet.cgroup import CgroupLimits
from tests.integration.host import eventually
from tests.integration.sandbox_attempts import Attempt, Sandboxes, sandboxes
from tests.timing import PATIENCE

STUBBORN = ["/bin/sh", "-c", "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandboxes]:
    with sandboxes() as made:
        yield made


def until_it_says(attempt: Attempt, text: bytes) -> None:
    eventually(lambda: text in attempt.output(), what=f"{text!r} in the output")


def lock_is_held(attempt: Attempt) -> bool:
    with (attempt.directory / "state").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_on_record(box: Sandboxes, code: int) -> None:
    record = box.run(["/bin/sh", "-c", f"exit {code}"]).record()
    assert (record["outcome"], record["cause"]) == ({"type": "exited", "code": code}, "")
    assert record["started_ns"] <= record["ended_ns"] <= time.time_ns()


def test_the_signal_is_on_record(box: Sandboxes) -> None:
    record = box.run(["/bin/sh", "-c", "kill -SEGV $$"]).record()
    assert record["outcome"] == {"type": "killed", "signal": signal.SIGSEGV}


def test_what_was_used_is_on_record(box: Sandboxes) -> None:
    script = "import time; data = bytearray(30 << 20); end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    record = box.run(["/usr/bin/env", "python3", "-c", script], CgroupLimits(memory_bytes=64 << 20)).record()
    usage = box.hierarchy.parse_usage(record["usage"])
    assert usage.memory_peak_bytes is not None and 30 << 20 <= usage.memory_peak_bytes <= 64 << 20
    assert usage.cpu_seconds is not None and usage.cpu_seconds >= 0.2
    assert record["cpu_seconds"] >= 0.2


def test_a_stop_gives_the_command_its_grace(box: Sandboxes) -> None:
    attempt = box.start(["/bin/sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"])
    until_it_says(attempt, b"ready")
    attempt.signal(signal.SIGTERM)
    record = attempt.wait()
    assert (record["outcome"], record["cause"]) == ({"type": "exited", "code": 5}, "stop")
    assert attempt.output() == b"ready\nbye\n"


def test_the_stop_signal_is_the_specs(box: Sandboxes) -> None:
    script = "trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done"
    attempt = box.start(["/bin/sh", "-c", script], stop_signal=signal.SIGINT.value)
    until_it_says(attempt, b"ready")
    attempt.signal(signal.SIGTERM)
    assert attempt.wait()["outcome"] == {"type": "exited", "code": 7}


def test_after_the_grace_everything_is_killed(box: Sandboxes) -> None:
    grace = 0.3 * PATIENCE  # in which a shell gets to its trap, also on a busy machine
    attempt = box.start(STUBBORN, grace_seconds=grace)
    until_it_says(attempt, b"ready")
    begin = time.monotonic()
    attempt.signal(signal.SIGTERM)
    attempt.signal(signal.SIGTERM)  # the second changes nothing
    record = attempt.wait()
    assert (record["outcome"], record["cause"]) == ({"type": "killed", "signal": signal.SIGKILL}, "stop")
    assert grace - 0.05 <= time.monotonic() - begin < grace + 10 * PATIENCE  # its own, not that of other specs
    assert b"asked\n" in attempt.output()


def test_a_stopped_command_can_be_stopped_for_good(box: Sandboxes) -> None:
    attempt = box.start(["/bin/sh", "-c", "echo ready; kill -STOP $$"])
    until_it_says(attempt, b"ready")
    attempt.signal(signal.SIGTERM)
    assert attempt.wait()["outcome"] == {"type": "killed", "signal": signal.SIGTERM}


def test_a_kill_is_at_once(box: Sandboxes) -> None:
    attempt = box.start(STUBBORN, grace_seconds=600.0)
    attempt.signal(signal.SIGUSR1)
    record = attempt.wait()
    assert (record["outcome"], record["cause"]) == ({"type": "killed", "signal": signal.SIGKILL}, "kill")


def test_a_signal_right_after_the_launch_is_not_lost(box: Sandboxes) -> None:
    for number in range(10):
        attempt = box.launch(box.spec(["/bin/sleep", "300"]))
        time.sleep(number * 0.0005)  # wherever it is by then
        attempt.signal(signal.SIGTERM)
        assert attempt.wait()["cause"] == "stop"


def test_a_timeout_stops_and_then_kills(box: Sandboxes) -> None:
    begin = time.monotonic()
    timeout = 1.5 * PATIENCE  # in which a shell gets to its trap, also on a busy machine
    record = box.run(STUBBORN, timeout_seconds=timeout, grace_seconds=0.2).record()
    assert (record["outcome"], record["cause"]) == ({"type": "killed", "signal": signal.SIGKILL}, "timeout")
    assert timeout + 0.15 <= time.monotonic() - begin < timeout + 10 * PATIENCE


def test_processes_that_the_command_leaves_behind_are_killed(box: Sandboxes) -> None:
    script = "(setsid sh -c 'trap \"\" TERM HUP; sleep 300' &) ; (sleep 300 &) ; exec sleep 0.05"
    attempt = box.run(["/bin/sh", "-c", script])
    assert attempt.record()["outcome"] == {"type": "exited", "code": 0}
    assert box.hierarchy.processes(attempt.directory.name) == []


def test_orphans_are_reaped_while_the_command_runs(box: Sandboxes) -> None:
    """All that have no parent any more are children of the init, ended ones too; the command alone stays one."""
    script = """
        for i in 1 2 3 4 5; do (true &) ; done
        tries=0
        until [ "$(grep -ls '^PPid:.1$' /proc/[0-9]*/status)" = /proc/$$/status ] || [ $tries = 300 ]; do
            sleep 0.1
            tries=$((tries+1))
        done
        grep -s '^PPid:.1$' /proc/[0-9]*/status | wc -l
    """
    assert box.shell(script) == "1\n"


def test_an_oom_kill_takes_all_of_the_job_with_it(box: Sandboxes) -> None:
    hog = "x = bytearray(200 << 20)"
    script = f"sleep 300 & python3 -c '{hog}'; sleep 300"
    attempt = box.run(["/bin/sh", "-c", script], CgroupLimits(memory_bytes=48 << 20))
    record = attempt.record()
    assert record["outcome"] == {"type": "killed", "signal": signal.SIGKILL}
    assert (box.hierarchy.parse_usage(record["usage"]).oom_kills or 0) >= 1
    assert box.hierarchy.processes(attempt.directory.name) == []


def test_a_memory_limit_too_low_to_start_is_no_riddle(box: Sandboxes) -> None:
    record = box.run(["/bin/true"], CgroupLimits(memory_bytes=64 << 10)).record()
    assert record["outcome"]["type"] in ("killed", "not_started")


# --- the lock, and who dies when --------------------------------------------------------------------------------------


def test_the_lock_is_held_as_long_as_the_init_lives(box: Sandboxes) -> None:
    attempt = box.start(["/bin/sleep", "300"])
    assert lock_is_held(attempt)
    attempt.signal(signal.SIGUSR1)
    attempt.wait()
    assert not lock_is_held(attempt)


def test_an_attempt_is_launched_once(box: Sandboxes) -> None:
    spec = box.spec(["/bin/sh", "-c", "echo once; sleep 300"])
    attempt = box.launch(spec)
    until_it_says(attempt, b"once")
    assert box.ask(spec) == ({"attempt": spec["attempt"], "already": True}, [])
    attempt.signal(signal.SIGUSR1)
    attempt.wait()
    assert box.ask(spec) == ({"attempt": spec["attempt"], "already": True}, [])
    assert attempt.output() == b"once\n"


def test_the_state_file_says_who_the_init_is(box: Sandboxes) -> None:
    attempt = box.start(["/bin/sleep", "300"])
    first, second = (attempt.directory / "state").read_text().splitlines()
    _, pid, start_time, boot_id = first.split()
    fields = Path(f"/proc/{attempt.pid}/stat").read_text().rpartition(")")[2].split()
    assert (int(pid), start_time) == (attempt.pid, fields[19])
    assert boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert second.startswith("started ")


def test_a_killed_init_takes_the_job_with_it_and_leaves_no_invented_record(box: Sandboxes) -> None:
    attempt = box.start(["/bin/sleep", "300"])
    attempt.signal(signal.SIGKILL)
    with pytest.raises(FileNotFoundError):
        attempt.wait()
    assert not lock_is_held(attempt)
    eventually(lambda: not box.hierarchy.processes(attempt.directory.name), what="the command's end")


def test_jobs_outlive_a_killed_launcher_and_record_their_end() -> None:
    with sandboxes() as box:
        attempt = box.start(
            ["/bin/sh", "-c", "trap 'echo late; exit 9' TERM; echo ready; while :; do sleep 0.05; done"]
        )
        until_it_says(attempt, b"ready")
        assert box.process is not None
        box.process.send_signal(signal.SIGKILL)
        box.process.wait()
        attempt.signal(signal.SIGTERM)
        assert attempt.wait()["outcome"] == {"type": "exited", "code": 9}
        assert attempt.output() == b"ready\nlate\n"
        box.start_launcher()  # another one does the next
        assert box.shell("echo again") == "again\n"


def test_a_launcher_ends_without_the_process_of_which_inits_are_born_and_its_jobs_run_on() -> None:
    with sandboxes() as box:
        assert box.process is not None
        launcher = box.process.pid
        attempt = box.start(["/bin/sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"])
        until_it_says(attempt, b"ready")
        eventually(lambda: len(spares_of(launcher)) == 2, what="the next spare, beside the job's init")
        box.ask({})  # once that is answered, the launcher has heard of the spare that was born
        (nursery,) = children(launcher)
        os.kill(nursery, signal.SIGKILL)
        assert box.launch(box.spec(["/bin/true"])).wait()["outcome"] == {"type": "exited", "code": 0}
        box.process.wait(30 * PATIENCE)
        attempt.signal(signal.SIGTERM)
        assert attempt.wait()["outcome"] == {"type": "exited", "code": 9}
        box.start_launcher()
        assert box.shell("echo again") == "again\n"


def test_a_launcher_that_is_hung_up_on_leaves_no_process() -> None:
    with sandboxes() as box:
        box.shell("true")
        assert box.process is not None
        launcher = box.process.pid
        eventually(lambda: len(spares_of(launcher)) == 1, what="a spare alone, once the job's init was reaped")
        spares = spares_of(launcher)
        started = [*children(launcher), *spares]
        box.stop_launcher()
        assert box.process.returncode == 0
        # It sees them end, but waits for nobody for ever.
        eventually(lambda: not [pid for pid in started if os.path.exists(f"/proc/{pid}")], what="all to be gone")


def test_a_spare_that_died_is_replaced() -> None:
    with sandboxes() as box:
        assert box.process is not None
        end_spares(box.process.pid)
        assert box.shell("echo fine") == "fine\n"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def spares_of(launcher: int) -> list[int]:
    (nursery,) = children(launcher)
    return children(nursery)


def end_spares(launcher: int) -> None:
    for pid in spares_of(launcher):
        with suppress(ProcessLookupError):  # one that could not get ready ends by itself
            os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), what="the spare's end")  # type: ignore[misc]


def test_an_init_that_cannot_get_ready_is_on_record() -> None:
    with sandboxes() as box:
        box.shell("true")
        assert box.process is not None

        def within_its_mounts(*command: str) -> None:
            assert box.process is not None
            subprocess.run(["nsenter", "-m", "-t", str(box.process.pid), *command], check=True)

        template = f"{box.root}/template"
        within_its_mounts("mount", "-o", "remount,bind,rw", template)
        within_its_mounts("mv", f"{template}/proc", f"{template}/gone")
        end_spares(box.process.pid)  # the one that was ready before
        record = box.launch(box.spec(["/bin/true"])).wait()
        assert record["outcome"]["type"] == "not_started" and record["outcome"]["code"] == 126
        assert "No such file" in record["outcome"]["error"]
        within_its_mounts("mv", f"{template}/gone", f"{template}/proc")
        end_spares(box.process.pid)
        assert box.shell("echo fine") == "fine\n"


@pytest.mark.parametrize("field", ["cgroup", "argv", "id_base", "timeout_seconds"])
def test_a_spec_that_lacks_something_is_on_record_and_the_next_one_runs(box: Sandboxes, field: str) -> None:
    spec = box.spec(["/bin/true"])
    answer, fds = box.ask({key: value for key, value in spec.items() if key != field})
    if fds:
        attempt = Attempt(Path(spec["attempt_dir"]), answer["pid"], *fds)
        box.attempts.append(attempt)
        attempt.wait()
    record = json.loads(Path(spec["attempt_dir"], "exit.json").read_text())
    assert record["outcome"]["type"] == "not_started" and field in record["outcome"]["error"]
    assert box.run(["/bin/true"]).record()["outcome"] == {"type": "exited", "code": 0}


def test_what_is_no_spec_is_answered_and_the_next_one_runs(box: Sandboxes) -> None:
    assert box.ask({}) == ({"attempt": "", "error": "not a launch spec", "code": 126}, [])
    assert box.ask({"attempt": "x", "attempt_dir": "/nonexistent"})[0]["error"].startswith("no attempt's directory")
    assert box.run(["/bin/true"]).record()["outcome"] == {"type": "exited", "code": 0}

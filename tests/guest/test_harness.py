"""The guest itself: what goes in, what comes out, and what a test may rely on in there."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.guest.boot import REPOSITORY, TIMED_OUT, Guest, Init, run

pytestmark = pytest.mark.timeout(180)

INTO_CGROUP = """
import os
from joblet.sandbox.syscalls import clone3
os.mkdir("/sys/fs/cgroup/born-here")
directory = os.open("/sys/fs/cgroup/born-here", os.O_RDONLY | os.O_DIRECTORY)
pid, pidfd = clone3(0, directory)
if pid == 0:
    print(open("/proc/self/cgroup").read().strip(), flush=True)
    os._exit(0)
os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
os.rmdir("/sys/fs/cgroup/born-here")
"""


@dataclass(frozen=True)
class Ended:
    """How a command in the guest ended."""

    status: int
    out: str
    err: str


def in_guest(command: Sequence[str], *, init: Init = Init.COMMAND, timeout_seconds: float = 120) -> Ended:
    out, err = io.BytesIO(), io.BytesIO()
    status = run(
        Guest(
            command=tuple(command), init=init, timeout_seconds=timeout_seconds, environment={"GREETING": "two  words'"}
        ),
        stdout=out,
        stderr=err,
    )
    return Ended(status, out.getvalue().decode(), err.getvalue().decode())


def test_status_output_and_environment_pass_through_unharmed() -> None:
    ended = in_guest(["sh", "-c", r'printf "%s\t\r\n" "$GREETING"; echo complaint >&2; exit 7'])
    assert (ended.status, ended.out, ended.err) == (7, "two  words'\t\r\n", "complaint\n")


def test_a_command_that_takes_too_long_gives_124_and_leaves_nothing() -> None:
    ended = in_guest(["sleep", "inf"], timeout_seconds=5)
    assert ended.status == TIMED_OUT
    assert "killed after 5 s" in ended.err


def test_what_the_guest_writes_stays_in_the_guest() -> None:
    mark = f"/var/joblet-test-{os.getpid()}"
    assert in_guest(["touch", mark]).status == 0
    assert not os.path.exists(mark)


def test_the_hierarchy_is_cgroup_v2_with_the_controllers_that_limits_need() -> None:
    ended = in_guest(["sh", "-c", "stat -fc %T /sys/fs/cgroup && cat /sys/fs/cgroup/cgroup.controllers"])
    kind, controllers = ended.out.splitlines()
    assert kind == "cgroup2fs"
    assert {"cpu", "io", "memory", "pids"} <= set(controllers.split())


def test_a_process_can_be_born_in_a_cgroup() -> None:
    ended = in_guest([sys.executable, "-c", INTO_CGROUP])
    assert (ended.status, ended.out) == (0, "0::/born-here\n"), ended.err


def test_tmp_has_a_disk_and_there_are_loop_devices() -> None:
    script = "findmnt -no SOURCE,FSTYPE /tmp; truncate -s 8M /tmp/image; losetup -f --show /tmp/image"
    ended = in_guest(["sh", "-c", script])
    assert ended.out.split() == ["/dev/ubda", "ext4", "/dev/loop0"], ended.err


def test_systemd_can_be_the_first_process() -> None:
    ended = in_guest(["systemctl", "is-system-running", "--wait"], init=Init.SYSTEMD)
    assert (ended.status, ended.out) == (0, "running\n"), ended.err


def test_what_guests_beside_another_command_find_counts_and_is_shown_after_it() -> None:
    beside = [sys.executable, "-m", "tests.guest.beside", "tests/unit/networking/no_such_test.py"]
    ended = subprocess.run(
        [*beside, "--", "echo", "native"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR, ended
    assert ended.stdout.startswith("native\n") and "file or directory not found" in ended.stdout + ended.stderr

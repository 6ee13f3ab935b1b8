"""How a command is born: before there is work, where cgroups are entered by a thread. What is with it then, and later."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import eventually
from tests.integration.sandbox_attempts import Sandboxes, sandboxes

MOST_KILOBYTES = 1024  # the budget; 940 when it was written, 1690 before


@pytest.fixture(scope="module")
def box() -> Iterator[Sandboxes]:
    with sandboxes() as made:
        yield made


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def spare(box: Sandboxes) -> int:
    """The init that waits, with what waits in it: who sets up, and where it can be born already, the command and its keeper."""
    launcher = box.process
    assert launcher is not None
    (nursery,) = children(launcher.pid)

    def ready() -> int:
        for pid in children(nursery):
            born = children(pid)
            if len(born) == 1 + 2 * box.hierarchy.entered_by_thread and has_the_namespaces(born[0]):
                return pid
        return 0

    return eventually(ready, what="a spare init")


def has_the_namespaces(setup: int) -> bool:
    """The last that it opens of them."""
    try:
        return any(link.endswith("/gid_map") for link in descriptors(setup))
    except OSError:
        return False  # it opens and closes some


def descriptors(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]


def test_a_spare_has_no_directory_of_the_host_open(box: Sandboxes) -> None:
    box.run(["/bin/true"])
    pid = spare(box)
    setup = children(pid)[0]

    def settled() -> bool:
        try:
            links = descriptors(pid)[3:] + descriptors(setup)[3:]
        except OSError:
            return False  # closed while we looked
        return not [link for link in links if link.startswith("/") and not link.endswith(("null", "_map"))]

    eventually(settled, what="the end of the rehearsal")


@pytest.mark.native_only(reason="with cgroup v2 a command is born when its cgroup is known")
def test_what_waits_to_become_a_command_has_pipes_and_sockets_and_nothing_of_the_host(box: Sandboxes) -> None:
    for pid in children(spare(box))[1:]:
        assert {link.split(":")[0] for link in descriptors(pid)} <= {"/dev/null", "pipe", "socket"}
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NSpid" not in status or len(status.split("NSpid:")[1].split("\n")[0].split()) == 2
        assert os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino


def test_beside_a_running_command_nothing_is_left_of_its_birth(box: Sandboxes) -> None:
    attempt = box.start(["/bin/sleep", "1000"])
    try:
        eventually(lambda: len(children(attempt.pid)) == 1, what="the end of who set up, and of the keeper")
        (command,) = children(attempt.pid)
        eventually(lambda: Path(f"/proc/{command}/comm").read_text() == "sleep\n", what="the command")
    finally:
        os.kill(attempt.pid, signal.SIGTERM)
        attempt.wait()


@pytest.mark.native_only(reason="with cgroup v2 a command is born when its cgroup is known")
@pytest.mark.parametrize("which", [0, 1])
def test_a_command_is_born_anew_if_what_waits_to_become_one_is_killed(box: Sandboxes, which: int) -> None:
    box.run(["/bin/true"])
    pid = children(spare(box))[1 + which]  # itself, or the keeper of its memory
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: b") Z" in Path(f"/proc/{pid}/stat").read_bytes(), what="its end")
    assert box.shell("echo fine") == "fine\n"


def test_the_rehearsals_go_well(capfd: pytest.CaptureFixture[str]) -> None:
    with sandboxes() as box:
        for _ in range(2):
            box.run(["/bin/true"])
            spare(box)
    assert "rehearsal" not in capfd.readouterr().err


@pytest.mark.native_only(reason="a page that is written to is the same one there")
def test_a_running_job_costs_few_pages_of_memory(box: Sandboxes) -> None:
    """The budget, 1 MB, in pages that a job's init does not share: a count, so that it holds on a busy machine, too."""
    for _ in range(3):
        box.run(["/bin/true"])  # the first births find something that is new to them
        spare(box)
    attempt = box.start(["/bin/sleep", "1000"])
    try:
        eventually(lambda: len(children(attempt.pid)) == 1, what="the end of those who helped to start it")
        assert private_kilobytes(attempt.pid) < MOST_KILOBYTES
    finally:
        os.kill(attempt.pid, signal.SIGTERM)
        attempt.wait()


def private_kilobytes(pid: int) -> int:
    """Written to by nobody else, and by it or before its birth: Private_Dirty of proc_pid_smaps(5)."""
    (line,) = [
        line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Private_Dirty:")
    ]
    return int(line.split()[1])


def test_a_launcher_that_is_scheduled_as_idle_launches_all_the_same() -> None:
    """As by CPUSchedulingPolicy=idle of a unit: what has no capability cannot leave that policy."""
    with sandboxes(within=("chrt", "--idle", "0")) as made:
        assert made.shell("chrt -p $$").splitlines()[0].endswith("SCHED_IDLE")

"""How a command is born: before there is work, where cgroups are entered by a thread. What is with it then, and later."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import eventually
from tests.integration.sandbox_attempts import Sandboxes, sandboxes


@pytest.fixture(scope="module")
def box() -> Iterator[Sandboxes]:
    with sandboxes() as made:
        yield made


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def spare(box: Sandboxes) -> int:
    """The init that waits, with what waits in it."""
    launcher = box.process
    assert launcher is not None

    def ready() -> int:
        found = [pid for pid in children(launcher.pid) if len(children(pid)) == 2 * box.hierarchy.entered_by_thread]
        return found[0] if found else 0

    return eventually(ready, what="a spare init")


def descriptors(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]


def test_a_spare_has_no_directory_of_the_host_open(box: Sandboxes) -> None:
    box.run(["/bin/true"])
    pid = spare(box)

    def settled() -> bool:
        return not [
            link for link in descriptors(pid)[3:] if link.startswith("/") and not link.endswith(("null", "_map"))
        ]

    eventually(settled, what="the end of the rehearsal")


@pytest.mark.native_only(reason="with cgroup v2 a command is born when its cgroup is known")
def test_what_waits_to_become_a_command_has_pipes_and_sockets_and_nothing_of_the_host(box: Sandboxes) -> None:
    for pid in children(spare(box)):
        assert {link.split(":")[0] for link in descriptors(pid)} <= {"/dev/null", "pipe", "socket"}
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NSpid" not in status or len(status.split("NSpid:")[1].split("\n")[0].split()) == 2
        assert os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino


def test_beside_a_running_command_nothing_is_left_of_its_birth(box: Sandboxes) -> None:
    attempt = box.launch(box.spec(["/bin/sleep", "1000"]))
    try:
        eventually(lambda: len(children(attempt.pid)) == 1, what="the end of the keeper")
        (command,) = children(attempt.pid)
        eventually(lambda: Path(f"/proc/{command}/comm").read_text() == "sleep\n", what="the command")
    finally:
        os.kill(attempt.pid, signal.SIGTERM)
        attempt.wait()


@pytest.mark.native_only(reason="with cgroup v2 a command is born when its cgroup is known")
@pytest.mark.parametrize("which", [0, 1])
def test_a_command_is_born_anew_if_what_waits_to_become_one_is_killed(box: Sandboxes, which: int) -> None:
    box.run(["/bin/true"])
    pid = children(spare(box))[which]  # itself, or the keeper of its memory
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: b") Z" in Path(f"/proc/{pid}/stat").read_bytes(), what="its end")
    assert box.shell("echo fine") == "fine\n"


def test_the_rehearsals_go_well(capfd: pytest.CaptureFixture[str]) -> None:
    with sandboxes() as box:
        for _ in range(2):
            box.run(["/bin/true"])
            spare(box)
    assert "rehearsal" not in capfd.readouterr().err

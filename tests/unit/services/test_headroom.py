"""Room is measured where it counts, and who asks for more than there is hears what is scarce and what to do."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobletd import headroom
from jobletd.headroom import Headroom, MemoryBound, Monitor, NoRoom
from jobletd.registry import Registry
from jobletd.store import Store
from tests.unit.reconciler.stepped_clock import SteppedClock

MIB = 1 << 20


class Room(Headroom):
    """With a clock and a memory bound that the test sets."""

    def __init__(self, directory: Path, *, floor_bytes: int = MIB) -> None:
        self.clock = SteppedClock()
        self.bound: MemoryBound | None = None
        super().__init__((str(directory),), floor_bytes, self.clock, memory=lambda: self.bound)

    def later(self) -> None:
        self.clock.pass_time(1)


def test_with_room_there_is_nothing_to_say(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.check()
    assert room.why() == ""
    assert [(one.type, one.status) for one in room.conditions(1)] == [(kind, "False") for kind in headroom.KINDS]


def test_below_the_floor_the_disk_is_named_with_what_to_do(tmp_path: Path) -> None:
    room = Room(tmp_path, floor_bytes=1 << 60)
    with pytest.raises(NoRoom, match=r"less than state\.minFree.*make room") as caught:
        room.check()
    assert str(tmp_path) in str(caught.value)
    assert room.conditions(7)[0].reason == "DiskFull"
    assert room.conditions(9)[0].since_ns == 7


def test_a_disk_that_cannot_be_asked_counts_as_full(tmp_path: Path) -> None:
    assert Room(tmp_path / "missing").pressures()[0].reason == "DiskUnreadable"


def test_near_the_memory_limit_there_is_no_room(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.bound = MemoryBound(95 * MIB, 100 * MIB, "/cgroup")
    assert "95 of 100 MiB" in room.why()
    room.bound = MemoryBound(50 * MIB, 100 * MIB, "/cgroup")
    assert room.why()  # a look is good for a moment
    room.later()
    assert not room.why()


@pytest.fixture
def few_descriptors() -> Iterator[list[int]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 100, hard))
    try:
        yield held
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_last_descriptors_are_kept(few_descriptors: list[int]) -> None:
    assert headroom.descriptors() is None
    assert headroom.may_accept()
    few_descriptors += [os.open("/dev/null", os.O_RDONLY) for _ in range(90)]
    found = headroom.descriptors()
    assert found is not None and "LimitNOFILE" in found.todo
    assert not headroom.may_accept()  # strangers wait


def test_events_tell_when_it_begins_and_when_it_is_over(tmp_path: Path) -> None:
    room = Room(tmp_path)
    store = Store.open(str(tmp_path / "joblet.db"))

    async def scenario() -> list[tuple[str, str]]:
        monitor = Monitor(room, Registry(store, room.clock), store)
        await monitor.look()
        for bound in (MemoryBound(99, 100, ""), MemoryBound(98, 100, ""), None):
            room.bound = bound
            room.later()
            await monitor.look()
        return await store.read(lambda connection: connection.execute("SELECT type, reason FROM events").fetchall())

    try:
        assert asyncio.run(scenario()) == [("Warning", "MemoryPressure"), ("Normal", "MemoryPressure")]
    finally:
        store.close()

"""Whether there is room to take on more: on the disks of state and logs, of descriptors, of the daemon's own memory.

Asked before anything new is accepted or started, so that what runs keeps what it needs to end well. What is missing is one of the
node's conditions, and everything goes on by itself when it is there again.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from joblet.clock import Clock
from joblet.errors import JobletError
from jobletd.model import Condition
from jobletd.registry import Registry
from jobletd.saves import EventDraft
from jobletd.store import Store

LOOK_SECONDS = 2.0  # between two looks of the monitor
FRESH_SECONDS = 0.2  # as long a look is good for all who ask
INODES_KEPT = 128
DESCRIPTORS_KEPT = 64  # or a quarter of them, if they are few
MEMORY_KEPT = 0.1  # of the limit
log = structlog.get_logger("headroom")


class NoRoom(JobletError):
    """Nothing new is taken on just now. What runs goes on."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """One thing that is scarce. kind: of the condition. todo: what people can do."""

    kind: str
    reason: str
    message: str
    todo: str


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """What bounds the daemon's own memory, as its executor tells."""

    used_bytes: int
    limit_bytes: int
    where: str


DESCRIPTORS = "/proc/self/fd"
KINDS = ("DiskPressure", "DescriptorPressure", "MemoryPressure")


class Headroom:
    """directories: where there has to be ``min_free_bytes``."""

    def __init__(
        self,
        directories: tuple[str, ...],
        min_free_bytes: int,
        clock: Clock,
        *,
        memory: Callable[[], MemoryBound | None],
    ) -> None:
        self._directories = directories
        self._min_free_bytes = min_free_bytes
        self._clock = clock
        self._memory = memory
        self._looked = float("-inf")
        self._found: tuple[Pressure, ...] = ()
        self._since: dict[str, int] = {}

    def check(self) -> None:
        """Raises NoRoom."""
        if found := self.pressures():
            what = "; ".join(pressure.message for pressure in found)
            raise NoRoom(f"nothing new is taken on: {what}", where=found[0].reason, todo=found[0].todo)

    def why(self) -> str:
        """What is scarce, or nothing."""
        return "; ".join(pressure.message for pressure in self.pressures())

    def pressures(self) -> tuple[Pressure, ...]:
        now = self._clock.boot_seconds()
        if now - self._looked >= FRESH_SECONDS:
            self._found = tuple(self._look())
            self._looked = now
        return self._found

    def conditions(self, now_ns: int) -> list[Condition]:
        """One of each kind, whether it is so or not."""
        found = {pressure.kind: pressure for pressure in reversed(self.pressures())}
        conditions = []
        for kind in KINDS:
            status = "True" if kind in found else "False"
            since_ns = self._since.setdefault(f"{kind}={status}", now_ns)
            self._since.pop(f"{kind}={'False' if status == 'True' else 'True'}", None)
            pressure = found.get(kind)
            reason, message = (pressure.reason, pressure.message) if pressure else ("Enough", "")
            conditions.append(Condition(kind, status, reason, message, since_ns))
        return conditions

    def _look(self) -> list[Pressure]:
        found = [pressure for path in self._directories if (pressure := self._disk(path)) is not None]
        return found + [pressure for pressure in (descriptors(), self._memory_pressure()) if pressure is not None]

    def _disk(self, path: str) -> Pressure | None:
        todo = "make room there, or lower state.minFree"
        try:
            disk = os.statvfs(path)
        except OSError as error:
            return Pressure("DiskPressure", "DiskUnreadable", f"{path}: {error.strerror}", "see the host's disk")
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < self._min_free_bytes:
            what = f"{path} has {free_bytes >> 20} MiB free, less than state.minFree ({self._min_free_bytes >> 20} MiB)"
            return Pressure("DiskPressure", "DiskFull", what, todo)
        if disk.f_files and disk.f_favail < INODES_KEPT:
            return Pressure("DiskPressure", "NoInodes", f"{path} has {disk.f_favail} inodes left", "remove files there")
        return None

    def _memory_pressure(self) -> Pressure | None:
        bound = self._memory()
        if bound is None or bound.limit_bytes - bound.used_bytes >= bound.limit_bytes * MEMORY_KEPT:
            return None
        what = f"the daemon's cgroup uses {bound.used_bytes >> 20} of {bound.limit_bytes >> 20} MiB ({bound.where})"
        return Pressure("MemoryPressure", "NearLimit", what, "raise its limit (MemoryMax= of the unit)")


def descriptors() -> Pressure | None:
    used, limit = open_files()
    if limit - used >= min(DESCRIPTORS_KEPT, limit // 4):
        return None
    what = f"the daemon has {used} of {limit} files open"
    return Pressure("DescriptorPressure", "NearLimit", what, "raise its limit (LimitNOFILE= of the unit)")


def may_accept() -> bool:
    """Whether a stranger may have a descriptor: half of those that are kept are for what runs alone."""
    used, limit = open_files()
    return limit - used >= min(DESCRIPTORS_KEPT, limit // 4) // 2


def open_files() -> tuple[int, int]:
    """How many there are, and may be."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        # Its size is their number since Linux 6.2; before, it has none.
        return os.stat(DESCRIPTORS).st_size or len(os.listdir(DESCRIPTORS)) - 1, limit  # one is the listing's own
    except OSError:  # there is none left to look with
        return limit, limit


class Monitor:
    """Tells when something becomes scarce, and when it is there again; finds out whether the store can be written again."""

    def __init__(self, headroom: Headroom, registry: Registry, store: Store) -> None:
        self._headroom = headroom
        self._registry = registry
        self._store = store
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """Look now and then until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        found = {pressure.kind: pressure for pressure in self._headroom.pressures()}
        for kind, pressure in found.items():
            if self._told.get(kind) != pressure.reason:
                log.warning("nothing new is taken on", condition=kind, reason=pressure.reason, message=pressure.message)
                await self._record("Warning", kind, pressure.message)
                self._told[kind] = pressure.reason
        for kind in self._told.keys() - found.keys():
            log.info("there is room again", condition=kind)
            await self._record("Normal", kind, "over: there is room again")
            del self._told[kind]
        if self._store.failure is not None:
            await self._record("Normal", "StoreWritable", "the database can be written again")

    async def _record(self, kind: str, reason: str, message: str) -> None:
        try:
            await self._registry.record(EventDraft("", "", kind, reason, message))
        except JobletError as error:
            log.warning("event not recorded", error=str(error))

"""The one clock. Time is passed in, so that tests can move it.

Records bear the wall clock, which anybody may set; timers go by the time since boot, which nobody can. A timer that outlives its
daemon is recorded with both: as long as the boot is the same, the time since boot counts; after another boot only the wall clock
can tell how long it has been.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class BootTime:
    """A moment on the clock that nobody sets: nanoseconds since that boot, suspend included. ``str()`` is read by ``parse``."""

    boot_id: str
    ns: int

    def __str__(self) -> str:
        return f"{self.boot_id} {self.ns}"

    @classmethod
    def parse(cls, text: str) -> BootTime:
        """Raises ValueError."""
        boot_id, _, ns = text.rpartition(" ")
        return cls(boot_id, int(ns))

    def plus(self, ns: int) -> BootTime:
        return BootTime(self.boot_id, self.ns + ns)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment on both clocks. wall_ns: since the Unix epoch."""

    wall_ns: int
    boot: BootTime

    def since_ns(self, wall_ns: int, boot: BootTime | None) -> int:
        """How long ago something recorded was; never negative. boot: None if it was not recorded."""
        if boot is not None and boot.boot_id == self.boot.boot_id:
            return max(self.boot.ns - boot.ns, 0)
        return max(self.wall_ns - wall_ns, 0)


class Clock(Protocol):
    """Where time comes from."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch: for records, never for timers."""

    def boot_seconds(self) -> float:
        """Seconds since boot, suspend included (CLOCK_BOOTTIME): for timers within one boot."""

    def now(self) -> Moment:
        """Both, with the boot: for timers that outlive the daemon."""


class SystemClock:
    """The kernel's clocks."""

    def __init__(self) -> None:
        self._boot_id = ""

    def wall_ns(self) -> int:
        return time.time_ns()

    def boot_seconds(self) -> float:
        # Linux has CLOCK_BOOTTIME; the client also runs where it does not exist.
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def now(self) -> Moment:
        if not self._boot_id:
            with open(_BOOT_ID) as file:
                self._boot_id = file.read().strip()
        return Moment(self.wall_ns(), BootTime(self._boot_id, int(self.boot_seconds() * _SECOND_NS)))

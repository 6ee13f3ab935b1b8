"""The one clock. Time is passed in, so that tests can move it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch: for records, never for timers."""

    def boot_seconds(self) -> float:
        """Seconds since boot, suspend included (CLOCK_BOOTTIME): for timers within one boot."""


class SystemClock:
    """The kernel's clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def boot_seconds(self) -> float:
        # Linux has CLOCK_BOOTTIME; the client also runs where it does not exist.
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

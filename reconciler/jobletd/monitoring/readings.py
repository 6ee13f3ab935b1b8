"""What an attempt used at two moments, from which rates are made: the last reading, and the one before it that differs.

Of a job on this host each look is a reading. On another host its node notes the usage once in a while: looks in between see the
same reading, and the rate stays that between the last two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobletd.model import AttemptId, Usage
from jobletd.monitoring.live import Live

AT_THE_START = Usage(cpu_seconds=0.0, throttled_seconds=0.0, io_read_bytes=0, io_write_bytes=0)
SECOND_NS = 10**9


@dataclass(frozen=True, slots=True)
class Reading:
    """usage: at a moment in seconds, of whichever clock it was read by; earlier, earlier_at: the reading before it, if any."""

    usage: Usage
    at: float
    earlier: Usage | None = None
    earlier_at: float = 0.0

    def rate(self, field: str) -> float | None:
        """So much a second of what only grows."""
        before, now = getattr(self.earlier, field, None), getattr(self.usage, field)
        if before is None or now is None:
            return None
        return max(float(now - before), 0.0) / max(self.at - self.earlier_at, 1e-9)


def readings(live: Iterable[Live], now: float, before: Mapping[AttemptId, Reading]) -> dict[AttemptId, Reading]:
    """now: seconds, by the clock of the looks."""
    return {one.attempt.id: _reading(one, now, before.get(one.attempt.id)) for one in live}


def _reading(one: Live, now: float, last: Reading | None) -> Reading:
    at = now if one.usage_ns is None else one.usage_ns / SECOND_NS
    if last is not None and last.at == at:
        return last
    if last is not None:
        return Reading(one.usage, at, last.usage, last.at)
    if one.usage_ns is not None and one.attempt.started_ns is not None:  # by the same clock
        return Reading(one.usage, at, AT_THE_START, one.attempt.started_ns / SECOND_NS)
    return Reading(one.usage, at)

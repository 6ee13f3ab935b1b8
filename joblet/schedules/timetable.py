"""Timetables: the ticks of a schedule, as whole seconds since the Unix epoch.

What the change of clocks means for a cron expression is what Debian's cron does. One with fixed hours and minutes names local
times: each happens once a day, at the first moment after the gap if that day's clock jumps over it, and at the first of two if it
comes twice. One whose minute or hour begins with * goes by the clock as it is: what is jumped over does not happen, what comes
twice happens twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from joblet.schedules.cron import comes, simulation

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

DAY = 86_400
FOREVER = 60 * 366 * DAY  # beyond which nothing is looked for
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  read as UTC, computed with without its cost


@dataclass(frozen=True, slots=True)
class At:
    """Once."""

    at: int

    def ticks(self, after: int) -> Iterator[int]:
        """Those later than ``after``, in order."""
        if self.at > after:
            yield self.at


@dataclass(frozen=True, slots=True)
class Every:
    """Each multiple of so many seconds since the Unix epoch: so it depends on nothing that a restart could lose."""

    seconds: int

    def ticks(self, after: int) -> Iterator[int]:
        """Those later than ``after``, in order."""
        tick = (after // self.seconds + 1) * self.seconds
        while True:
            yield tick
            tick += self.seconds


@dataclass(frozen=True, slots=True)
class Cron:
    """expression: of six fields, without H."""

    expression: str
    zone: ZoneInfo

    @property
    def is_fixed(self) -> bool:
        """Whether it names local times, rather than going by the clock."""
        _, minute, hour, *_ = self.expression.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def ticks(self, after: int) -> Iterator[int]:
        """Those later than ``after``, in order."""
        if not comes(self.expression):
            return iter(())
        return self._fixed(after) if self.is_fixed else self._by_the_clock(after)

    def _fixed(self, after: int) -> Iterator[int]:
        for local in simulation(self.expression, local_time(after, self.zone)):
            tick = moment_of(local, self.zone)
            if tick > after:
                yield tick
                after = tick

    def _by_the_clock(self, after: int) -> Iterator[int]:
        """Between two changes of the offset, local time runs like any other."""
        begin, end = after + 1, after + FOREVER
        while begin < end:
            offset = offset_at(begin, self.zone)
            change = end
            for local in simulation(self.expression, _EPOCH + timedelta(seconds=begin + offset - 1)):
                tick = _seconds(local) - offset
                change = change_of_offset(begin, min(tick, end), self.zone) or 0
                if change or tick >= end:
                    break
                yield tick
                begin = tick
            begin = change or end


Timetable = At | Every | Cron


def tick_after(timetable: Timetable, after: int) -> int | None:
    """The first tick later than that; None: there is none to come."""
    return next(timetable.ticks(after), None)


def latest_tick(timetable: Timetable, after: int, until: int) -> int | None:
    """The last tick later than ``after`` and not later than ``until``. Costs the same however many there are."""
    found = tick_after(timetable, after)
    if found is None or found > until:
        return None
    width = 60
    while until - width > found:  # most are close to ``until``
        later = tick_after(timetable, until - width)
        if later is not None and later <= until:
            found = later
            break
        width *= 2
    nothing_after = until
    while nothing_after > found:
        middle = (found + nothing_after) // 2
        later = tick_after(timetable, middle)
        if later is None or later > until:
            nothing_after = middle
        else:
            found = later
    return found


def latest_ticks(timetable: Timetable, after: int, until: int, most: int) -> tuple[int, ...]:
    """At most so many of those later than ``after`` and not later than ``until``: the last ones, the oldest of them first."""
    found: list[int] = []
    while len(found) < most and (tick := latest_tick(timetable, after, until)) is not None:
        found.append(tick)
        until = tick - 1
    return tuple(reversed(found))


def local_time(moment: int, zone: ZoneInfo) -> datetime:
    """What a clock on the wall shows."""
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def moment_of(local: datetime, zone: ZoneInfo) -> int:
    """When that local time is: the first of two, or the first moment after the gap that it falls into."""
    first = int(local.replace(tzinfo=zone).timestamp())
    if local_time(first, zone) == local:
        return first
    # In a gap: read with the offset of after, it is a moment before it; with the offset of before, one after it.
    before = int(local.replace(tzinfo=zone, fold=1).timestamp())
    return change_of_offset(before, first, zone) or first


def offset_at(moment: int, zone: ZoneInfo) -> int:
    """Seconds east of UTC."""
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    assert offset is not None
    return offset.days * DAY + offset.seconds


def change_of_offset(begin: int, until: int, zone: ZoneInfo) -> int | None:
    """The first moment later than ``begin``, and not later than ``until``, with another offset."""
    offset = offset_at(begin, zone)
    same, other = begin, min(begin + DAY, until)
    while offset_at(other, zone) == offset:
        if other == until:
            return None
        same, other = other, min(other + DAY, until)
    while other - same > 1:
        middle = (same + other) // 2
        if offset_at(middle, zone) == offset:
            same = middle
        else:
            other = middle
    return other


def _seconds(local: datetime) -> int:
    """Since the epoch, read as UTC."""
    return int(local.replace(tzinfo=UTC).timestamp())

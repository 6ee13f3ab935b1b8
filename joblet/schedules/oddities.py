"""What is odd about a tick because clocks change there: words for people who look at a schedule before they trust it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from joblet.schedules.cron import simulation
from joblet.schedules.timetable import Timetable, change_of_offset, local_time, moment_of, offset_at

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


def oddities(timetable: Timetable, tick: int, before: int | None, zone: ZoneInfo) -> list[str]:
    """before: the tick before that one; None: it is the first that is shown."""
    found = []
    change = change_of_offset(before, tick, zone) if before is not None else None
    if change is not None:
        gained = offset_at(change, zone) - offset_at(change - 1, zone)
        way = "forward" if gained > 0 else "back"
        found.append(f"clocks went {way} by {_span(abs(gained))} at {_time(local_time(change - 1, zone) + _SECOND)}")
    if (missing := _put_off(timetable, tick, zone)) is not None:
        found.append(f"{_time(missing)} does not exist on that day")
    local = local_time(tick, zone)
    first, second = (int(local.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if first != second and moment_of(local, zone) == first:
        found.append(f"{_time(local)} comes twice: the {'first' if tick == first else 'second'}")
    return found


_SECOND = timedelta(seconds=1)


def _put_off(timetable: Timetable, tick: int, zone: ZoneInfo) -> datetime | None:
    """The local time in a gap that the tick stands for."""
    gained = offset_at(tick, zone) - offset_at(tick - 1, zone)
    expression = getattr(timetable, "expression", None)
    if gained <= 0 or expression is None or not getattr(timetable, "is_fixed", False):
        return None
    end = local_time(tick, zone)
    local: datetime = next(simulation(expression, end - timedelta(seconds=gained + 1)))
    return local if local < end else None


def _time(local: datetime) -> str:
    return f"{local:%H:%M:%S}".removesuffix(":00")


def _span(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return " ".join(part for part in (f"{hours}h" * bool(hours), f"{rest // 60}m" * bool(rest)) if part)

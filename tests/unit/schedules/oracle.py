"""What cron means, told a second time and in the simplest way: by looking at each step of a clock on the wall.

It shares no line with joblet.schedules and knows nothing of CronSim: fields are sets of numbers, and every minute (or second) of
a a time span is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
MONTHS = {name: number for number, name in enumerate(_MONTHS, 1)}
DAYS = {name: number for number, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}
RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


class Expression:
    """Of six fields, without L, # and H."""

    def __init__(self, text: str) -> None:
        self.texts = text.split()
        self.fields = [numbers(field, *span) for field, span in zip(self.texts, RANGES, strict=True)]
        self.fields[5] = frozenset(day % 7 for day in self.fields[5])
        self.both_days = self.texts[3].startswith("*") or self.texts[5].startswith("*")
        self.is_fixed = not (self.texts[1].startswith("*") or self.texts[2].startswith("*"))

    def matches(self, local: datetime) -> bool:
        seconds, minutes, hours, days, months, weekdays = self.fields
        if local.second not in seconds or local.minute not in minutes or local.hour not in hours:
            return False
        if local.month not in months:
            return False
        day, weekday = local.day in days, local.isoweekday() % 7 in weekdays
        return (day and weekday) if self.both_days else (day or weekday)


def numbers(field: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = number(first)
            end = number(last) if last else (high if step else begin)
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


def number(text: str) -> int:
    return MONTHS.get(text, DAYS.get(text, -1)) if text.isalpha() else int(text)


@lru_cache(maxsize=64)
def wall_clock(zone: str, begin: int, end: int, step: int) -> tuple[tuple[int, datetime], ...]:
    """What it shows at each step."""
    where = ZoneInfo(zone)
    return tuple(
        (moment, datetime.fromtimestamp(moment, where).replace(tzinfo=None)) for moment in range(begin, end, step)
    )


def ticks(text: str, zone: str, begin: int, end: int, step: int = 60) -> Iterator[int]:
    """Those later than ``begin`` and before ``end``; both are multiples of step."""
    expression = Expression(text)
    clock = wall_clock(zone, begin, end, step)
    latest = clock[0][1]
    for moment, local in clock[1:]:
        if expression.is_fixed:
            # Each local time once: when the clock shows it first, or has jumped over it.
            due = False
            while latest < local:
                latest += timedelta(seconds=step)
                due = due or expression.matches(latest)
            if due:
                yield moment
        elif expression.matches(local):
            yield moment

"""Cron expressions: what is a valid one, and what the H of one job stands for.

Five fields as in crontab(5), or six with seconds in front; names of months and days, ``@daily`` and its like; L and # as CronSim
has them. H is some number that fits the field, from a hash of the job's name: ``H 2 * * *`` spreads many jobs over the hour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from joblet.schedules.stable import stable_number

if TYPE_CHECKING:
    from cronsim import CronSim

SHORT_FORMS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
Choose = Callable[[str, Sequence[str]], int]
# Also what the published schema says.
PATTERN = r"^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9A-Za-z*,/#()-]{1,99}( +[0-9A-Za-z*,/#()-]{1,99}){4,5})$"
_PATTERN = re.compile(PATTERN.replace("$", r"\Z"), re.ASCII)
# Of each field: its name in CronSim's errors and ours, and the numbers that H may stand for.
_FIELDS = (
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day-of-month", 1, 28),  # every month has these
    ("month", 1, 12),
    ("day-of-week", 0, 6),
)
_ALLOWED = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, L for the last",
    "month": "1 to 12 or JAN to DEC",
    "day-of-week": "0 to 7 or SUN to SAT",
}
_HASHED = re.compile(r"H(?:\(([0-9]{1,2})-([0-9]{1,2})\))?(?:/([0-9]{1,2}))?", re.ASCII)
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # of the months, at most
_SOME_DAY = datetime(2024, 1, 1)  # noqa: DTZ001  a calendar's day, nobody's moment


def check_cron(text: str) -> str:
    """The expression with single spaces. Raises ValueError with words for people."""
    text = " ".join(text.split())
    if text.startswith("@") and text not in SHORT_FORMS:
        hint = "a job of its own with restart: Always" if text == "@reboot" else ", ".join(SHORT_FORMS)
        raise ValueError(f"{text[:40]} is not known here (use {hint})")
    if not _PATTERN.match(text):
        raise ValueError('is no cron expression: five fields, or six with seconds first, as in "30 2 * * MON-FRI"')
    expression = _expanded(text, _shortest)
    from cronsim import CronSimError

    try:
        next(simulation(expression, _SOME_DAY))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        allowed = f" ({_ALLOWED[field]}; also *, 1,2, 1-5, */15, H)" if field in _ALLOWED else ""
        raise ValueError(f"its field {field} is wrong{allowed}") from error
    except StopIteration:
        raise ValueError("names a day that never comes") from None
    return text


def six_fields(text: str, *, name: str) -> str:
    """The expression with seconds, short forms spelt out and the job's own numbers for H. Raises ValueError."""
    return _expanded(text, lambda field, choices: stable_number(name, field, len(choices)))


def simulation(expression: str, after: datetime) -> CronSim:
    """The local times of an expression of six fields after that one, which has no time zone. Raises CronSimError."""
    from cronsim import CronSim

    return CronSim(expression, after)


@lru_cache(maxsize=16_384)
def comes(expression: str) -> bool:
    """Whether it names days that there are. One that was put on record by a Joblet that took it for good may not."""
    from cronsim import CronSimError

    try:
        simulation(expression, _SOME_DAY)
    except CronSimError:
        return False
    return True


def _expanded(text: str, choose: Choose) -> str:
    """choose: of what an H may stand for in a field, the number of the one that it does."""
    fields = SHORT_FORMS.get(text, text).upper().split()
    if len(fields) == 5:
        fields.insert(0, "0")
    return " ".join(
        ",".join(_without_hash(term, choose, *kind) for term in field.split(","))
        for field, kind in zip(fields, _FIELDS, strict=True)
    )


def _shortest(field: str, choices: Sequence[str]) -> int:
    """The choice that leaves the fewest days: what holds for it holds for every job. Only months differ in that."""
    if field != "month":
        return 0

    def longest(choice: str) -> int:
        span, _, step = choice.partition("/")
        first, _, last = span.partition("-")
        return max(_DAYS[month - 1] for month in range(int(first), int(last or first) + 1, int(step or 1)))

    return min(range(len(choices)), key=lambda number: longest(choices[number]))


def _without_hash(term: str, choose: Choose, field: str, low: int, high: int) -> str:
    """``17`` or ``5-59/15`` for ``H`` or ``H/15``; anything else as it is."""
    if not re.match(r"H(\W|\Z)", term, re.ASCII):
        return term
    match = _HASHED.fullmatch(term)
    if match is None:
        raise ValueError(f"{term} in its field {field} is wrong (use H, H/15, H(0-29) or H(0-29)/10)")
    first, last, step = match.groups()
    if first is not None:
        if not low <= int(first) <= int(last) <= high:
            raise ValueError(f"{term} in its field {field} is out of range ({low} to {high})")
        low, high = int(first), int(last)
    if step is None:
        numbers = [str(number) for number in range(low, high + 1)]
        return numbers[choose(field, numbers)]
    if not 1 <= int(step) <= high - low + 1:
        raise ValueError(f"{term} in its field {field} has a step that is out of range (1 to {high - low + 1})")
    spans = [f"{number}-{high}/{step}" for number in range(low, low + int(step))]
    return spans[choose(field, spans)]

"""The values of a schedule: parsing with words for people, and the rules among them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from joblet.manifest import quantities
from joblet.manifest.nearest import nearest
from joblet.manifest.quantities import shown
from joblet.schedules import cron

CRON_PATTERN = cron.PATTERN
MOMENT_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
ZONE_PATTERN = r"^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,3}$"
LAST_MOMENT = int(datetime(9998, 12, 31, tzinfo=UTC).timestamp())
LONGEST_INTERVAL_SECONDS = 366 * 86_400
_MOMENT = re.compile(MOMENT_PATTERN.replace("$", r"\Z"), re.ASCII)
_ZONE = re.compile(ZONE_PATTERN.replace("$", r"\Z"), re.ASCII)

Found = tuple[tuple[str | int, ...], str]


def check_cron(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a cron expression; write it in quotes")
    try:
        return cron.check_cron(value)
    except ValueError as error:
        raise ValueError(f"{shown(value)}: {error}") from None


def parse_moment(value: object) -> int:
    """Seconds since the Unix epoch, from RFC 3339; parts of a second are cut off."""
    if not isinstance(value, str) or not _MOMENT.match(value):
        hint = "2027-01-31T02:00:00Z, or with an offset: 2027-01-31T02:00:00+01:00"
        raise ValueError(f"{shown(value)} is not a time (use {hint})")
    try:
        moment = datetime.fromisoformat(value[:19].replace("t", "T") + value[19:].lstrip(".0123456789").upper())
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{shown(value)} is not a time: {error}") from None
    if not 0 <= seconds <= LAST_MOMENT:
        raise ValueError(f"{shown(value)} is out of range (1970 to 9998)")
    return seconds


def format_moment(seconds: int) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_interval(value: object) -> int:
    """Whole seconds."""
    seconds = quantities.parse_duration(value)
    if not 1 <= seconds <= LONGEST_INTERVAL_SECONDS or seconds != int(seconds):
        raise ValueError(f"{shown(value)} is out of range (whole seconds, 1s to 366d)")
    return int(seconds)


def check_zone(value: object) -> str:
    """A name that this host's time zones know."""
    import zoneinfo  # many a client never needs it

    if isinstance(value, str) and _ZONE.match(value):
        try:
            return zoneinfo.ZoneInfo(value).key
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            pass
    best = nearest(value, zoneinfo.available_timezones()) if isinstance(value, str) else None
    hint = f"did you mean {best}?" if best else "use UTC, Europe/Berlin, America/New_York"
    raise ValueError(f"{shown(value)} is not a time zone; {hint}")


def schedule_problems(spec: Mapping[str, object]) -> Iterator[Found]:
    """Broken rules of a raw spec: paths below it, and what is wrong."""
    schedule = spec.get("schedule")
    if not isinstance(schedule, Mapping):
        return
    given = [key for key in ("cron", "at", "every") if key in schedule]
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "says not when"
        yield ("schedule",), f"{what}; exactly one of cron, at and every is allowed"
    if "timezone" in schedule and given and "cron" not in given:
        yield ("schedule", "timezone"), f"works only with cron; {given[0]} needs none"
    if "missedLimit" in schedule and schedule.get("missed") != "all":
        yield ("schedule", "missedLimit"), "works only with missed: all"
    if spec.get("restart") == "Always":
        yield ("restart",), "Always is for services, which never end; a job with a schedule may have Never or OnFailure"

"""A schedule as a CronJob's fields, where it can be one."""

from __future__ import annotations

import re
from typing import Any

from joblet.manifest import JobManifest, Missed, Overlap
from joblet.manifest.schedule import Schedule
from joblet.schedules.cron import six_fields
from rnx.rendering.findings import Ledger

MINUTE, HOUR, DAY = 60, 3600, 86400
_POLICIES = {Overlap.FORBID: "Forbid", Overlap.ALLOW: "Allow", Overlap.REPLACE: "Replace"}
_FOREIGN = re.compile("#|(?<![A-Z])L")  # the third Friday, the last day


def cron_spec(manifest: JobManifest, ledger: Ledger) -> dict[str, Any] | None:
    """None if there is no cron expression that means the same; the ledger says why."""
    schedule = manifest.spec.schedule
    assert schedule is not None
    expression = _expression(schedule, manifest.metadata.name, ledger)
    if expression is None:
        return None
    ledger.keep("schedule.timezone", "schedule.suspend", "suspend", "history.keep")
    found: dict[str, Any] = {"schedule": expression, "timeZone": schedule.timezone}
    if schedule.overlap in _POLICIES:
        ledger.keep("schedule.overlap")
    else:
        ledger.lost("schedule.overlap", "Queue is not known; Forbid skips the tick")
    found["concurrencyPolicy"] = _POLICIES.get(schedule.overlap, "Forbid")
    if schedule.starting_deadline_seconds is not None:
        ledger.keep("schedule.startingDeadline")
        found["startingDeadlineSeconds"] = max(int(schedule.starting_deadline_seconds), 1)
    if schedule.missed is Missed.ONCE:
        ledger.keep("schedule.missed")
    else:
        ledger.lost("schedule.missed", f"{schedule.missed} is not known: the last missed tick is made up for")
    ledger.lost_if_set("schedule.missedLimit", "at most one missed tick is made up for")
    ledger.lost_if_set("schedule.jitter", "all CronJobs of a minute begin in it together; H in cron spreads them")
    if schedule.suspend or manifest.spec.suspend:
        found["suspend"] = True
    keep = manifest.spec.history.keep
    return {**found, "successfulJobsHistoryLimit": keep, "failedJobsHistoryLimit": keep}


def _expression(schedule: Schedule, name: str, ledger: Ledger) -> str | None:
    if schedule.cron is not None:
        second, *fields = six_fields(schedule.cron, name=name).split()
        if second != "0":
            ledger.lost("schedule", "a CronJob knows no seconds")
            return None
        if any(_FOREIGN.search(field) for field in fields) or "7" in fields[-1]:
            ledger.lost("schedule", "L, # and 7 for Sunday are not known to a CronJob")
            return None
        ledger.keep("schedule.cron")
        if "H" in schedule.cron:
            ledger.differs("schedule.cron", f"H is spelt out: {' '.join(fields)}")
        return " ".join(fields)
    if schedule.every_seconds is not None:
        expression = _every(int(schedule.every_seconds))
        if expression is None:
            ledger.lost(
                "schedule", "every is no whole part of an hour or a day in minutes: no cron expression says that"
            )
            return None
        ledger.keep("schedule.every")
        return expression
    ledger.lost("schedule", "at is once: Kubernetes starts no Job at a given time")
    return None


def _every(seconds: int) -> str | None:
    """In UTC, in which multiples since 1970 fall on whole hours and days."""
    minutes, hours = seconds // MINUTE, seconds // HOUR
    if seconds < HOUR and seconds % MINUTE == 0 and 60 % minutes == 0:
        return f"*/{minutes} * * * *" if minutes > 1 else "* * * * *"
    if seconds < DAY and seconds % HOUR == 0 and 24 % hours == 0:
        return f"0 */{hours} * * *" if hours > 1 else "0 * * * *"
    return "0 0 * * *" if seconds == DAY else None

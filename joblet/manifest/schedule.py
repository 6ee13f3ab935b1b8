"""The ``schedule`` of a job: when it runs by itself."""

from __future__ import annotations

from functools import lru_cache

from pydantic import Field

from joblet.manifest import fields as f
from joblet.manifest.choices import Missed, Overlap
from joblet.manifest.model_base import ManifestModel
from joblet.schedules import At, Cron, Every, Timetable
from joblet.schedules.cron import six_fields
from joblet.schedules.stable import stable_number

SECOND_NS = 1_000_000_000


class Schedule(ManifestModel):
    """When the job runs by itself: one run for each tick. One of cron, at and every; without it a job runs when it is applied."""

    cron: f.CronText = Field(
        default=None,
        description="Five fields as in crontab(5), or six with seconds first; names; @daily; H is a fixed number, the job's own.",
    )
    at: f.PointInTime = Field(default=None, description="Once, at that time, in RFC 3339.")
    every_seconds: f.WholeSeconds = Field(
        default=None, alias="every", description="At each multiple of so much time, counted from 1970-01-01T00:00:00Z."
    )
    timezone: f.TimeZone = Field(default="UTC", description="The time zone of cron, as in the IANA database.")
    overlap: f.OverlapChoice = Field(
        default=Overlap.FORBID,
        description="When a run goes on at the next tick. Forbid: that tick is skipped; Allow: both run; Replace: the old one is "
        "stopped; Queue: the new one waits.",
    )
    missed: f.MissedChoice = Field(
        default=Missed.ONCE,
        description="Of ticks at which no daemon ran. skip: none is made up for; once: the last one; all: the last missedLimit.",
    )
    missed_limit: f.MissedLimit = Field(
        default=10, alias="missedLimit", description="How many ticks missed: all makes up for."
    )
    starting_deadline_seconds: f.OptionalDelay = Field(
        default=None, alias="startingDeadline", description="How late a run may begin; later it does not run at all."
    )
    jitter_seconds: f.Grace = Field(
        default=0.0,
        alias="jitter",
        description="Each run begins later by a part of this, the same each time, from a hash of the job's name.",
    )
    suspend: f.Flag = Field(
        default=False, description="true: no ticks; what runs goes on. Ticks of that time are not made up for."
    )

    def timetable(self, job: str) -> Timetable:
        """The ticks of the job of that name, before jitter."""
        return _timetable(self, job)

    def jitter_ns(self, job: str) -> int:
        """How much later than each tick that job begins."""
        most = int(self.jitter_seconds * SECOND_NS)
        return stable_number(job, "jitter", most) if most else 0


@lru_cache(maxsize=16_384)
def _timetable(schedule: Schedule, job: str) -> Timetable:
    if schedule.at is not None:
        return At(schedule.at)
    if schedule.every_seconds is not None:
        return Every(schedule.every_seconds)
    assert schedule.cron is not None  # a rule of the spec
    from zoneinfo import ZoneInfo  # many a client never needs it

    return Cron(six_fields(schedule.cron, name=job), ZoneInfo(schedule.timezone))

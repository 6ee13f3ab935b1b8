"""An attempt that was handed over, as this daemon holds it in memory: everything in it can be had again from the records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from joblet.manifest import JobManifest
from jobletd.executor import Ended, GivenSecrets, Observation, Pending
from jobletd.executor.slurm.client import NAME_PREFIX, SlurmJob
from jobletd.executor.slurm.records import NOTHING, Claim, Told
from jobletd.executor.slurm.verdict import ACTIVE, WAITING, is_held_for_good, is_over
from jobletd.model import AttemptId

WAITING_SECONDS = 30.0  # between two looks at the files of what waits in Slurm's queue


class Ask(IntEnum):
    """How hard Slurm is asked to end a job."""

    NOTHING = 0
    TERMINATE = 1
    KILL = 2
    CANCEL = 3


@dataclass(slots=True)
class Tracked:
    """job_id: empty until Slurm gave one. over_since, waits_since: seconds of a clock that only goes on. trouble: why it could
    not be handed over yet. stop, force: somebody asked for its end. abandoned: nobody waits for its end."""

    attempt_id: AttemptId
    document: dict[str, Any]
    manifest: JobManifest
    waits_since: float
    job_id: str = ""
    observation: Observation = field(default_factory=Pending)
    job: SlurmJob | None = None
    told: Told = NOTHING
    over_since: float | None = None
    trouble: str = ""
    dropped: set[str] = field(default_factory=set)  # ids of jobs that Slurm dropped before a node had begun them
    in_hand: bool = False  # being handed over just now
    stop: bool = False
    force: bool = False
    time_is_up: bool = False
    stopping_since: float | None = None
    killed_since: float | None = None
    asked: Ask = Ask.NOTHING  # the hardest that Slurm was asked for, and heard
    asked_at: float = 0.0
    usage_read_at: float = 0.0
    files_read_at: float | None = None
    abandoned: bool = False
    secrets: GivenSecrets | None = None  # in memory alone, and only until Slurm has it
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return f"{NAME_PREFIX}{self.attempt_id}"

    @property
    def has_ended(self) -> bool:
        return isinstance(self.observation, Ended)

    @property
    def may_have_begun(self) -> bool:
        """Whether its files are worth each look."""
        waits = self.job is not None and self.job.state == "PENDING" and not is_held_for_good(self.job)
        return bool(self.job_id) and (self.told.claim is not None or not waits)

    def record(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "request": self.document}

    @classmethod
    def of_record(cls, attempt_id: AttemptId, record: dict[str, Any], now: float) -> Tracked:
        """Raises KeyError, TypeError or ValueError if it is none."""
        document = record["request"]
        manifest = JobManifest.model_validate(document["manifest"])
        return cls(attempt_id, document, manifest, now, job_id=str(record["job_id"]))

    def note(self, now: float) -> None:
        """Since when it is over, or waits, as Slurm has just said."""
        gone = self.job is None or is_over(self.job) or is_held_for_good(self.job)
        if not gone:
            self.over_since = None
        elif self.over_since is None:
            self.over_since = now

    def wants_reading(self, now: float) -> bool:
        """Whether its files are to be read now. What waits, as Slurm says, is looked at seldom: there may be thousands, and only
        a slurmctld that goes on from an older state shows a job as waiting that has begun."""
        if self.files_read_at is None:
            self.files_read_at = self.waits_since
        if not self.may_have_begun and now - self.files_read_at < WAITING_SECONDS:
            return False
        self.files_read_at = now
        return True

    def past_deadline(self, now_ns: int) -> bool:
        deadline = self.document.get("deadline_unix")
        return isinstance(deadline, int | float) and now_ns / 10**9 > deadline


def attempt_of(name: str) -> AttemptId:
    """Whose job has that name."""
    return AttemptId(name.removeprefix(NAME_PREFIX))


def choose(jobs: Iterable[SlurmJob], job_id: str, claim: Claim | None) -> SlurmJob | None:
    """Of jobs with one name, which only a submission that was tried twice has: whoever claimed it; without a claim one that has
    a node, which may be about to claim it, before the one that was noted, before the first that has not ended."""
    found = sorted(jobs, key=lambda job: int(job.id))
    if claim is not None and claim.job:
        return next((job for job in found if job.id == claim.job), None)
    active = [job for job in found if job.state in ACTIVE]
    noted = [job for job in found if job.id == job_id]
    living = [job for job in found if not is_over(job)]
    return next(iter([*active, *(job for job in noted if job in living), *living, *noted, *found[-1:]]), None)


def volume_in_use(tracked: Tracked, others: Iterable[Tracked]) -> str:
    """Why it has to wait for another attempt that uses a volume of its own; empty if it need not."""
    wanted = {volume.name for volume in tracked.manifest.spec.volumes}
    for other in others if wanted else ():
        is_ahead = (other.job_id or other.in_hand) and not other.has_ended
        if other is tracked or not is_ahead:
            continue
        if both := wanted & {volume.name for volume in other.manifest.spec.volumes}:
            return f"waits for the volume {min(both)}, which attempt {other.attempt_id} has"
    return ""


def doubles(jobs: Iterable[SlurmJob], chosen: SlurmJob | None, claim: Claim | None) -> list[str]:
    """The others that can be taken away: those that wait, and, once it is claimed, all."""
    is_claimed = claim is not None and bool(claim.job)
    return [
        job.id
        for job in jobs
        if chosen is not None and job.id != chosen.id and not is_over(job) and (is_claimed or job.state in WAITING)
    ]

"""What a source needs of the desired state, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from joblet.manifest import Manifest
from jobletd.inventory import OwnerChanges
from jobletd.model import ApplyResult, JobName, RunId, Source


class DesiredJobs(Protocol):
    """The part of the desired state that sources change. Errors are JobletErrors."""

    async def owners(self) -> Mapping[JobName, Source]:
        """The source of every job that is not being deleted: the inventory that survives a restart."""

    def owner_changes(self) -> OwnerChanges:
        """The same for whoever follows it: all of it first, then what changes."""

    async def apply(
        self,
        manifests: Sequence[Manifest],
        source: Source | Mapping[JobName, Source],
        *,
        dry_run: bool = False,
        take_over: bool = False,
    ) -> list[ApplyResult]:
        """Make these manifests the desired state, all or none; durable when it returns.

        source: of all, or of each by its key. take_over: what belongs to another source becomes this one's.
        """

    async def transfer(self, name: JobName, old: Source, new: Source) -> None:
        """Hand a job from one source to another; nothing restarts."""

    async def delete(self, name: JobName, *, source: Source | None) -> None:
        """Stop a job and remove it."""

    async def record_event(self, job: str, run_id: str, type: str, reason: str, message: str) -> None:
        """Record what happened; ``job`` may be empty for the host itself."""

    async def set_condition(self, name: JobName, condition_type: str, status: str, reason: str, message: str) -> None:
        """Set a lasting fact about a job."""

    async def claim(self, claimant: str, claims: Mapping[JobName, Source]) -> None:
        """What a source would own if nobody else did; replaces what it has claimed before."""

    async def heir(self, name: JobName, owner: Source) -> Source | None:
        """Who claims a job that its owner no longer wants."""

    async def stopped_by_hand(self) -> frozenset[JobName]:
        """Jobs that ought to run and do not, because a person stopped them."""

    async def holding(self, condition_type: str, status: str) -> Mapping[JobName, str]:
        """Whatever has that condition with that status, and the message in it."""

    async def trigger(self, name: JobName, *, trigger: str, why: str) -> RunId:
        """One more run of a job. trigger, why: what the run and the event say."""

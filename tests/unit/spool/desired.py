"""A desired state in memory, with the rules of the real one as far as sources see them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from joblet.errors import JobletError
from joblet.manifest import ChangeKind, JobManifest, Manifest, compare, jobs_of
from jobletd.inventory import OwnerChanges
from jobletd.model import Action, ApplyResult, JobName, RunId, Source


class _Compared(OwnerChanges):
    """Seen by comparing: tests change the jobs as they like."""

    def __init__(self, desired: MemoryDesired) -> None:
        self._desired = desired
        self._taken: Mapping[JobName, Source] = {}

    def take(self) -> dict[JobName, Source | None]:
        before, self._taken = self._taken, self._desired.owned()
        return {
            job: self._taken.get(job)
            for job in before.keys() | self._taken.keys()
            if before.get(job) != self._taken.get(job)
        }


@dataclass
class MemoryDesired:
    """Jobs with owners and generations; everything said about them is kept."""

    jobs: dict[JobName, tuple[JobManifest, Source, int]] = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    conditions: dict[tuple[JobName, str], tuple[str, str]] = field(default_factory=dict)
    applies: list[tuple[str, ...]] = field(default_factory=list)
    refuse: str = ""
    delete_seconds: float = 0.0
    refuse_delete: str = ""
    claims: dict[str, Mapping[JobName, Source]] = field(default_factory=dict)

    async def owners(self) -> Mapping[JobName, Source]:
        return self.owned()

    def owned(self) -> Mapping[JobName, Source]:
        return {name: source for name, (_, source, _) in self.jobs.items()}

    def owner_changes(self) -> OwnerChanges:
        return _Compared(self)

    async def apply(
        self,
        manifests: Sequence[Manifest],
        source: Source | Mapping[JobName, Source],
        *,
        dry_run: bool = False,
        take_over: bool = False,
    ) -> list[ApplyResult]:
        if self.refuse:
            raise JobletError(self.refuse)
        if not dry_run:
            self.applies.append(tuple(manifest.metadata.name for manifest in manifests))
        results = []
        for manifest in jobs_of(manifests):
            name = JobName(manifest.metadata.name)
            current = self.jobs.get(name)
            given = source if isinstance(source, Source) else source[name]
            owned = current is None or current[1].owner == given.owner or take_over
            assert owned, "the source has to see to ownership first"
            kind = compare(current[0] if current else None, manifest).kind
            generation = (current[2] if current else 0) + (kind is not ChangeKind.NONE)
            if current is not None and kind is ChangeKind.NONE and current[1].file == given.file:
                given = current[1]
            if not dry_run:
                self.jobs[name] = (manifest, given, generation)
            results.append(ApplyResult(name, Action.CREATED, generation, "", None, None, manifest))
        return results

    async def transfer(self, name: JobName, old: Source, new: Source) -> None:
        manifest, source, generation = self.jobs[name]
        assert source == old
        self.jobs[name] = (manifest, new, generation)

    async def delete(self, name: JobName, *, source: Source | None) -> None:
        assert self.jobs[name][1] == source
        await asyncio.sleep(self.delete_seconds)
        if self.refuse_delete:
            raise JobletError(self.refuse_delete)
        del self.jobs[name]

    async def record_event(self, job: str, run_id: str, type: str, reason: str, message: str) -> None:
        self.events.append((job, reason, message))

    async def set_condition(self, name: JobName, condition_type: str, status: str, reason: str, message: str) -> None:
        if name not in self.jobs:
            raise JobletError("no such job", where=name)
        self.conditions[name, condition_type] = (status, message)

    async def claim(self, claimant: str, claims: Mapping[JobName, Source]) -> None:
        self.claims[claimant] = claims

    async def heir(self, name: JobName, owner: Source) -> Source | None:
        found = (claims[name] for claims in self.claims.values() if name in claims)
        return next((source for source in found if source.owner != owner.owner), None)

    async def stopped_by_hand(self) -> frozenset[JobName]:
        return frozenset()

    async def holding(self, condition_type: str, status: str) -> Mapping[JobName, str]:
        wanted = (condition_type, status)
        return {job: message for (job, kind), (now, message) in self.conditions.items() if (kind, now) == wanted}

    async def trigger(self, name: JobName, *, trigger: str, why: str) -> RunId:
        raise AssertionError("the spool does not start jobs")

    def owner(self, name: str) -> str:
        """``spool:a.yml``, or empty if there is no such job."""
        job = self.jobs.get(JobName(name))
        return str(job[1]) if job else ""

    def generation(self, name: str) -> int:
        return self.jobs[JobName(name)][2]

    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.events]

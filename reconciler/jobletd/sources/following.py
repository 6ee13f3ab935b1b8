"""What every source with files does to the desired state once its plan is made: hand over, apply, delete, and tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog

from joblet.errors import JobletError
from joblet.manifest import Manifest
from jobletd.model import Action, JobName, Source
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.ownership import Conflict

_audit = structlog.get_logger("audit")
_log = structlog.get_logger(__name__)


class Follower:
    """Acts for one source, and remembers what the outside has been told, so that it is told once.

    client: who it is in audit lines. place: what its files are in, for people: ``the spool``.
    """

    def __init__(self, desired: DesiredJobs, *, client: str, place: str) -> None:
        self._desired = desired
        self._client = client
        self._place = place
        self.conflicts: frozenset[Conflict] = frozenset()
        self._invalid: Mapping[JobName, str] = {}

    async def hand_over(self, transfers: Iterable[tuple[JobName, Source, Source]]) -> None:
        """Give jobs to their new files; nothing restarts. Raises JobletError."""
        for job, old, new in transfers:
            await self._desired.transfer(job, old, new)
            self._note("transfer", new, job, before=str(old))
            await self._desired.record_event(job, "", "Normal", "OwnerChanged", f"moved from {old} to {new}")

    async def apply(self, manifests: Sequence[Manifest], source: Source | Mapping[JobName, Source]) -> None:
        """Make these the desired state, all or none. Raises JobletError."""
        for result in await self._desired.apply(manifests, source) if manifests else ():
            if result.action is not Action.UNCHANGED:
                where = source if isinstance(source, Source) else source[result.name]
                self._note("apply", where, result.name, action=result.action.value, generation=result.generation)

    async def delete(self, deletes: Iterable[tuple[JobName, Source]]) -> bool:
        """Remove what is no longer declared, jobs first, since what they use goes only after them. Whether all could be."""
        every = True
        for job, source in sorted(deletes, key=lambda item: ("/" in item[0], item[0])):
            try:
                await self._desired.delete(job, source=source)
                self._note("delete", source, job)
            except JobletError as error:
                _log.warning("not deleted", job=job, source=str(source), error=str(error))
                every = False
        return every

    async def tell_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        """Say of each job who else declares it, and who does no longer."""
        now = frozenset(conflicts)
        for job in sorted({conflict.job for conflict in now ^ self.conflicts}):
            files = sorted(conflict.file for conflict in now if conflict.job == job)
            if files:
                message = f"{', '.join(files)} in {self._place} declares it too and is not acted upon"
                await self._condition(job, "Conflict", "True", "DeclaredTwice", message)
                await self._desired.record_event(job, "", "Warning", "NameConflict", message)
            else:
                await self._condition(job, "Conflict", "False", "DeclaredOnce", "")
        self.conflicts = now

    async def tell_validity(self, invalid: Mapping[JobName, str]) -> None:
        """Say of each job whose file is no longer good what is wrong with it, and of each whose file is good again."""
        for job, message in invalid.items():
            if self._invalid.get(job) != message:
                await self._condition(job, "Valid", "False", "InvalidManifest", message)
        for job in self._invalid.keys() - invalid.keys():
            await self._condition(job, "Valid", "True", "Accepted", "")
        self._invalid = invalid

    async def _condition(self, job: JobName, condition: str, status: str, reason: str, message: str) -> None:
        try:
            await self._desired.set_condition(job, condition, status, reason, message)
        except JobletError as error:
            _log.info("condition not set", job=job, condition=condition, error=str(error))  # the job is gone meanwhile

    def _note(self, change: str, source: Source, job: JobName, **what: object) -> None:
        """One audit line for each change: who, what, which generation."""
        _audit.info(change, client=self._client, source=str(source), job=job, **what)

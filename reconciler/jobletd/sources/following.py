"""What every source with files does to the desired state once its plan is made: hand over, apply, delete, and tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog

from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import Manifest
from jobletd.model import Action, JobName, Source
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.ownership import Conflict, Scope

_audit = structlog.get_logger("audit")
_log = structlog.get_logger(__name__)


class Follower:
    """Acts for one source, and remembers what the outside has been told, so that it is told once.

    What an earlier daemon told is taken up: a fault that was mended while none ran does not stay in the conditions.

    scope: as its files are now. client: who it is in audit lines. place: what its files are in, for people: ``the spool``.
    """

    def __init__(self, desired: DesiredJobs, scope: Scope, *, client: str, place: str) -> None:
        self._desired = desired
        self.scope = scope
        self._client = client
        self._place = place
        self.conflicts: frozenset[Conflict] = frozenset()
        self._invalid: Mapping[JobName, str] | None = None
        self._took_up_conflicts = False
        self._undeleted: dict[JobName, str] = {}  # why, as it was logged

    async def hand_over(self, transfers: Iterable[tuple[JobName, Source, Source]]) -> None:
        """Give jobs to their new files; nothing restarts. Raises JobletError."""
        for job, old, new in transfers:
            await self._desired.transfer(job, old, new)
            self._note("transfer", new, job, before=str(old))
            await self._desired.record_event(job, "", "Normal", "OwnerChanged", f"moved from {old} to {new}")

    async def apply(
        self,
        manifests: Sequence[Manifest],
        source: Source | Mapping[JobName, Source],
        transfers: Iterable[tuple[JobName, Source, Source]] = (),
        *,
        take_over: bool = False,
    ) -> None:
        """Make these the desired state, all or none. transfers: which of them change hands with it. Raises JobletError."""
        if not manifests:
            return
        results = await self._desired.apply(manifests, source, take_over=take_over)
        for job, old, new in transfers:
            self._note("transfer", new, job, before=str(old))
        for result in results:
            if result.action is not Action.UNCHANGED:
                where = source if isinstance(source, Source) else source[result.name]
                self._note("apply", where, result.name, action=result.action.value, generation=result.generation)

    async def delete(self, deletes: Iterable[tuple[JobName, Source]]) -> bool:
        """Remove what is no longer declared, jobs first, since what they use goes only after them. Whether all could be.

        What another source claims is handed to that one instead, and goes on. (What a file of ours claims was transferred by the
        plan already; a claim that is left of an earlier look is none any more.)
        """
        failed: dict[JobName, str] = {}
        for job, source in sorted(deletes, key=lambda item: ("/" in item[0], item[0])):
            try:
                heir = await self._desired.heir(job, source)
                if heir is not None and self.scope.file_of(heir) is None:
                    await self.hand_over([(job, source, heir)])
                    continue
                await self._desired.delete(job, source=source)
                self._note("delete", source, job)
                reached("daemon.source-job-deleted")
            except JobletError as error:
                if self._undeleted.get(job) != str(error):  # it is tried again soon, and mostly fails alike
                    _log.warning("not deleted", job=job, source=str(source), error=str(error))
                    await self._desired.record_event(job, "", "Warning", "NotDeleted", f"{self._place}: {error}")
                failed[job] = str(error)
        self._undeleted = failed
        return not failed

    async def tell_conflicts(self, conflicts: Iterable[Conflict]) -> None:
        """Say of each job who else declares it, and who does no longer."""
        now = frozenset(conflicts)
        changed = {conflict.job for conflict in now ^ self.conflicts}
        if not self._took_up_conflicts:
            told = await self._desired.holding("Conflict", "True")
            changed |= {job for job, message in told.items() if message.endswith(self._tail)}
            self._took_up_conflicts = True
        for job in sorted(changed):
            files = sorted(conflict.file for conflict in now if conflict.job == job)
            if files:
                message = f"{', '.join(files)}{self._tail}"
                await self._condition(job, "Conflict", "True", "DeclaredTwice", message)
                await self._desired.record_event(job, "", "Warning", "NameConflict", message)
            else:
                await self._condition(job, "Conflict", "False", "DeclaredOnce", "")
        self.conflicts = now
        claims = {
            conflict.job: self.scope.source_of(conflict.file) for conflict in sorted(now, key=lambda one: one.file)
        }
        await self._desired.claim(self._client, claims)

    def waits_for(self, job: JobName) -> bool:
        """Whether another one's change of that job may end a conflict."""
        return any(conflict.job == job for conflict in self.conflicts)

    async def tell_validity(self, invalid: Mapping[JobName, str]) -> None:
        """Say of each job whose file is no longer good what is wrong with it, and of each whose file is good again."""
        if self._invalid is None:
            owners = await self._desired.owners()
            told = await self._desired.holding("Valid", "False")
            mine = {job for job, owner in owners.items() if self.scope.file_of(owner) is not None}
            self._invalid = {job: message for job, message in told.items() if job in mine}
        for job, message in invalid.items():
            if self._invalid.get(job) != message:
                await self._condition(job, "Valid", "False", "InvalidManifest", message)
        for job in self._invalid.keys() - invalid.keys():
            await self._condition(job, "Valid", "True", "Accepted", "")
        self._invalid = invalid

    @property
    def _tail(self) -> str:
        return f" in {self._place} declares it too and is not acted upon"

    async def _condition(self, job: JobName, condition: str, status: str, reason: str, message: str) -> None:
        try:
            await self._desired.set_condition(job, condition, status, reason, message)
        except JobletError as error:
            _log.info("condition not set", job=job, condition=condition, error=str(error))  # the job is gone meanwhile

    def _note(self, change: str, source: Source, job: JobName, **what: object) -> None:
        """One audit line for each change: who, what, which generation."""
        _audit.info(change, client=self._client, source=str(source), job=job, **what)

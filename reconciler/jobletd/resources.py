"""What is declared and no job (volumes ...): brought into being, taken away, and looked at, one key at a time.

Each kind has a controller, which knows the host. A resource that cannot be had yet says why in its condition Ready, and is tried
again; jobs that use it wait. One that is to go stays as long as a run uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from joblet.errors import JobletError
from joblet.manifest import JobManifest, ResourceManifest, references
from jobletd.arrays.index_runs import job_part
from jobletd.conditions import with_condition
from jobletd.errors import WrongState
from jobletd.executor import GivenSecrets
from jobletd.model import JobName, ResourceView, Run
from jobletd.planning import open_runs
from jobletd.registry import Registry
from jobletd.saves import EventDraft, SaveResource
from jobletd.secrets.giving import given_secrets, missing_value
from jobletd.secrets.vault import Vault
from jobletd.work_queue import WorkQueue

READY = "Ready"
log = structlog.get_logger("resources")


class NotInLine(JobletError):
    """It is not as it should be, and its controller will say when to look again. reason: CamelCase, for the condition."""

    def __init__(self, reason: str, what: str) -> None:
        self.reason = reason
        super().__init__(what)


class Controller(Protocol):
    """Knows one kind of resource on this host. Every method may be repeated without harm."""

    def check(
        self, current: ResourceManifest | None, desired: ResourceManifest, others: Iterable[ResourceManifest]
    ) -> None:
        """Whether this may be applied. others: all the others of its kind. Raises JobletError; changes nothing."""

    async def realize(self, view: ResourceView) -> None:
        """Make it be as its manifest says. Raises JobletError, OSError; NotInLine if there is no use in trying again."""

    async def remove(self, view: ResourceView) -> None:
        """Take away all that it is on the host; no run uses it. Raises JobletError, OSError."""

    async def status(self, view: ResourceView) -> Mapping[str, str]:
        """What there is to see of it, as short words: ``{"used": "12Mi"}``."""


class Resources:
    """The controllers at work."""

    def __init__(self, registry: Registry, controllers: Mapping[str, Controller], vault: Vault) -> None:
        """controllers: by kind."""
        self._registry = registry
        self.vault = vault
        self.controllers = controllers
        self._nudge: Callable[[JobName], None] = _nobody
        self._queue: WorkQueue[JobName] = WorkQueue()
        self._ready: set[JobName] = set()

    def subscribe(self, nudge: Callable[[JobName], None]) -> None:
        """Call ``nudge`` with each job whose waiting may be over."""
        self._nudge = nudge

    def look_at(self, name: JobName) -> None:
        """It was declared, changed, or is to go; or somebody stopped using it."""
        self._ready.discard(name)  # jobs that start from now on shall see it as it is declared now
        self._queue.add(name)

    async def settle(self) -> None:
        """Wait until nothing wants a look now."""
        await self._queue.join()

    async def start(self) -> None:
        """Bring everything that is declared into being, before any launch; what fails is tried again later."""
        for name in list(self._registry.resources):
            await self._look(name)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                name = await self._queue.get()
                await self._look(name)
                self._queue.done(name)
        finally:
            self._queue.close()

    def waits_for(self, job: JobManifest) -> str:
        """Why a run of this job cannot start yet; empty if all that it uses is there."""
        for name in map(JobName, references(job)):
            view = self._registry.resources.get(name)
            if view is None or view.deleting:
                return f"{name} does not exist; apply a manifest of it"
            if name not in self._ready:
                why = next((one.message for one in view.conditions if one.type == READY), "")
                return f"{name} is not ready{f': {why}' if why else ''}"
        return missing_value(job, self._registry.resources)

    def used_by(self, job: JobManifest) -> tuple[ResourceManifest, ...]:
        """The manifests of all that a job uses. Raises WrongState for what went away meanwhile."""
        views = [self._registry.resources.get(JobName(name)) for name in references(job)]
        if None in views:
            raise WrongState("what it uses is not there any more", todo=self.waits_for(job))
        return tuple(view.manifest for view in views if view is not None)

    def secrets_for(self, job: JobManifest) -> GivenSecrets:
        """The values that a job gets. Raises JobletError for what went away meanwhile."""
        return given_secrets(job, self._registry.resources, self.vault)

    def users(self, name: JobName) -> list[JobName]:
        """The jobs with a run under way that uses it."""
        found = (
            job_part(view.name)
            for view in self._registry.everything()
            if any(_has_begun(run) and name in references(run.manifest) for run in open_runs(view))
        )
        return list(dict.fromkeys(found))

    async def _look(self, name: JobName) -> None:
        try:
            async with self._registry.lock(name):
                view = self._registry.resources.get(name)
                if view is not None:
                    await (self._remove(view) if view.deleting else self._realize(view))
            self._queue.forget_failures(name)
        except NotInLine as waiting:
            log.debug("resource not in line", resource=name, error=str(waiting))
        except Exception as error:  # one resource's trouble, even a defect of ours, must not end the others
            pause = self._queue.retry(name)
            expected = isinstance(error, JobletError | OSError)
            log.warning(
                "resource not in line",
                resource=name,
                error=str(error),
                again_seconds=round(pause, 2),
                exc_info=None if expected else error,
            )
        self._nudge_users(name)

    async def _realize(self, view: ResourceView) -> None:
        try:
            await self.controllers[view.manifest.kind].realize(view)
        except (JobletError, OSError) as error:
            self._ready.discard(view.name)
            reason = error.reason if isinstance(error, NotInLine) else "NotReady"
            await self._set_ready(view, "False", reason, str(error))
            raise
        self._ready.add(view.name)
        await self._set_ready(view, "True", "Realized", "")

    async def _remove(self, view: ResourceView) -> None:
        self._ready.discard(view.name)
        if users := self.users(view.name):
            await self._set_ready(view, "False", "InUse", f"is to go, and is used by {', '.join(users[:5])}")
            self._queue.add_after(view.name, 1.0)
            return
        await self.controllers[view.manifest.kind].remove(view)
        event = EventDraft(view.name, "", "Normal", "Deleted", "removed")
        await self._registry.save(SaveResource(view, [event], remove=True))

    async def _set_ready(self, view: ResourceView, status: str, reason: str, message: str) -> None:
        now_ns = self._registry.clock.wall_ns()
        changed = with_condition(view, READY, status, reason, message, now_ns)
        if changed is not view:
            kind = "Normal" if status == "True" else "Warning"
            event = EventDraft(view.name, "", kind, reason, message or "ready")
            await self._registry.save(SaveResource(replace(changed, updated_ns=now_ns), [event]))

    def _nudge_users(self, name: JobName) -> None:
        for view in self._registry.views.values():
            if any(name in references(run.manifest) for run in open_runs(view)):
                self._nudge(view.name)


def _has_begun(run: Run) -> bool:
    """An array's run has no attempts of its own."""
    return bool(run.attempts) or run.started_ns is not None


def _nobody(_: JobName) -> None:
    """Before somebody subscribes."""

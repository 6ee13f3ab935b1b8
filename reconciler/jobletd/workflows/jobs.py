"""The jobs that a workflow's steps are: declared, stopped, suspended, deleted. Each may be repeated without harm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext

from joblet.crash_points import reached
from joblet.manifest import ON_FAILURE, JobManifest, WorkflowManifest
from jobletd.desired import DesiredState
from jobletd.errors import NoSuchJob, WrongState
from jobletd.model import JobName, Reason
from jobletd.planning import open_runs
from jobletd.registry import Registry
from jobletd.workflows.progress import StepState
from jobletd.workflows.steps import KIND, WorkflowRun, source_of, step_job, token_of


class StepJobs:
    """Of all workflows."""

    def __init__(
        self, registry: Registry, desired: DesiredState, ask_host: Callable[[JobName], Awaitable[None]]
    ) -> None:
        """ask_host: puts on record how a job's run stands."""
        self._registry = registry
        self._desired = desired
        self._ask_host = ask_host

    def of(self, workflow: str) -> list[JobName]:
        """All that belong to it."""
        source = source_of(workflow)
        return [job for job, view in self._registry.views.items() if view.source == source]

    def latest_run(self, workflow: str) -> int:
        """The highest number of a run that one of its jobs belongs to; 0: none. After a restore the record may be behind."""
        numbers = [token_of(self._registry.views[job])[0] for job in self.of(workflow)]
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    async def ask_host(self, workflow: str) -> None:
        """Find out how all that seems to run of it stands."""
        for job in self.of(workflow):
            if open_runs(self._registry.views[job]):
                await self._ask_host(job)

    async def declare(self, plan: WorkflowManifest, run: WorkflowRun, state: StepState) -> None:
        """The job of a step that is due, with which its run starts. Raises JobletError."""
        if state.name == ON_FAILURE:
            assert plan.spec.on_failure is not None
            spec = plan.spec.on_failure.job
        else:
            spec = next(step.job for step in plan.spec.steps if step.name == state.name)
        await self._apply(step_job(plan, state.name, spec, run, state.inputs), plan.metadata.name)
        reached("daemon.step-declared")

    async def stop_earlier(self, workflow: str, run: WorkflowRun) -> bool:
        """Stop what runs of an earlier run of the workflow. Returns whether something still does."""
        earlier = [
            job
            for job in self.of(workflow)
            if token_of(self._registry.views[job]) != run.token(job.removeprefix(f"{workflow}-"))
        ]
        return await self._stop(earlier, Reason.SUPERSEDED, force=False)

    async def stop(self, workflow: str, *, force: bool = False) -> bool:
        """Stop all that runs of it. Returns whether something still does."""
        return await self._stop(self.of(workflow), Reason.STOPPED, force=force)

    async def _stop(self, jobs: Iterable[JobName], reason: Reason, *, force: bool) -> bool:
        still_run = [job for job in jobs if open_runs(self._registry.views[job])]
        for job in still_run:
            if any(one.stop is None or (force and not one.force) for one in open_runs(self._registry.views[job])):
                try:
                    await self._desired.stop(job, force=force, reason=reason)
                except (WrongState, NoSuchJob):
                    continue  # it ended meanwhile
        return bool(still_run)

    async def suspend(self, workflow: str) -> None:
        """Stop what runs of it, to run anew later."""
        for job in self.of(workflow):
            view = self._registry.views[job]
            if open_runs(view) and not (view.manifest.spec.suspend or view.deleting):
                await self._apply(_suspended(view.manifest, True), workflow)

    async def resume(self, workflow: str, run: WorkflowRun) -> None:
        """Run anew what was suspended in that run of the workflow."""
        for job in self.of(workflow):
            view = self._registry.views[job]
            if view.manifest.spec.suspend and token_of(view) == run.token(job.removeprefix(f"{workflow}-")):
                await self._apply(_suspended(view.manifest, False), workflow)

    async def delete(self, workflow: str, jobs: Iterable[JobName]) -> None:
        for job in jobs:
            if not self._registry.views[job].deleting:
                try:
                    await self._desired.delete(job, source=source_of(workflow))
                except NoSuchJob:
                    continue  # it went meanwhile

    async def _apply(self, job: JobManifest, workflow: str) -> None:
        tracing = self._registry.tracing
        with nullcontext() if tracing is None else tracing.below(f"{KIND}/{workflow}"):
            await self._desired.apply([job], source_of(workflow))


def _suspended(job: JobManifest, suspend: bool) -> JobManifest:
    return job.model_copy(update={"spec": job.spec.model_copy(update={"suspend": suspend})})

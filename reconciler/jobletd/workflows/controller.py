"""The controller of workflows: looks at one at a time, declares the jobs of steps that are due, and notes how it ended.

It is told of every change of a step's job, and derives all else from what jobs are there. What it keeps on record is the run that
each workflow is at, with how often steps were tried anew. It changes jobs without holding the workflow's own lock: who applies a
workflow and jobs together holds several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import ON_FAILURE, ResourceManifest, WorkflowManifest
from jobletd.desired import DesiredState
from jobletd.errors import NoSuchJob, NoSuchResource, WrongState
from jobletd.model import JobName, JobView, ResourceView
from jobletd.planning import open_runs
from jobletd.registry import EventDraft, Registry
from jobletd.resources import NotInLine
from jobletd.store.workflow_rows import delete_workflow_run, load_workflow_runs, put_workflow_run
from jobletd.work_queue import WorkQueue
from jobletd.workflows.progress import StepPhase, StepState, phase_of, retried, states_of
from jobletd.workflows.steps import (
    KIND,
    WorkflowRun,
    job_name,
    source_of,
    step_job,
    token_of,
    with_dependents,
)

WORKERS = 2
log = structlog.get_logger("workflows")


class Workflows:
    """See ``jobletd.resources.Controller``. ``begin`` before ``run``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._runs: dict[str, WorkflowRun] = {}
        self._queue: WorkQueue[str] = WorkQueue()
        self._saving = asyncio.Lock()
        self._desired: DesiredState | None = None
        self._look_at: Callable[[JobName], None] = lambda _: None

    async def begin(self, desired: DesiredState, look_at: Callable[[JobName], None]) -> None:
        """Tell it what to change, and whom to tell of a workflow that has nothing left."""
        self._desired = desired
        self._look_at = look_at
        self._runs = {run.workflow: run for run in await self._registry.store.read(load_workflow_runs)}
        self._registry.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        for view in list(self._registry.resources.values()):
            if isinstance(view.manifest, WorkflowManifest):
                self._queue.add(view.manifest.metadata.name)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            self._queue.close()

    @property
    def is_busy(self) -> bool:
        """Whether a workflow wants a look now."""
        return not self._queue.is_idle

    async def settle(self) -> None:
        """Wait until no workflow wants a look now."""
        await self._queue.join()

    def _changed(self, name: JobName, view: JobView | None) -> None:
        if view is not None and view.source.kind == KIND:
            self._queue.add(view.source.name)
        elif view is None:  # perhaps the last one of a workflow that is to go
            for resource in self._registry.resources.values():
                if resource.deleting and name.startswith(f"{resource.manifest.metadata.name}-"):
                    self._queue.add(resource.manifest.metadata.name)

    # -- as Controller --

    def check(
        self, current: ResourceManifest | None, desired: ResourceManifest, others: Iterable[ResourceManifest]
    ) -> None:
        """Its own model has looked at everything."""

    async def realize(self, view: ResourceView) -> None:
        self._queue.add(view.manifest.metadata.name)

    async def remove(self, view: ResourceView) -> None:
        """Its jobs go first. Raises NotInLine until they are gone."""
        name = view.manifest.metadata.name
        if self._jobs(name):
            self._queue.add(name)
            raise NotInLine("Leaving", "the jobs of its steps go first")
        await self._registry.store.write(lambda connection: delete_workflow_run(connection, name))
        self._runs.pop(name, None)

    async def status(self, view: ResourceView) -> Mapping[str, str]:
        """Which run it is at, and how far that is."""
        run, states = self.progress(view)
        if run is None:
            return {}
        over = sum(state.is_over for state in states.values())
        return {"phase": phase_of(states), "run": str(run.number), "steps": f"{over}/{len(states)}"}

    def progress(self, view: ResourceView) -> tuple[WorkflowRun | None, Mapping[str, StepState]]:
        """The run that it is at, None before there is one, and how its steps stand."""
        manifest = _manifest(view)
        run = self._runs.get(manifest.metadata.name)
        if run is None or run.generation != view.generation:
            return None, {}
        return run, states_of(manifest, run, self._registry.views)

    # -- what people ask for --

    async def retry(self, name: str, *, step: str = "", whole: bool = False) -> WorkflowRun:
        """Run a part anew: what failed, a step with all that need it, or the whole. Raises NoSuchResource, WrongState."""
        view = self._registry.resources.get(JobName(f"{KIND}/{name}"))
        if view is None or view.deleting:
            raise NoSuchResource(KIND, name)
        manifest = _manifest(view)
        run, states = self.progress(view)
        if run is None or phase_of(states) == "Running":
            raise WrongState(f"workflow {name!r} still runs", todo=f"rnx tree workflow/{name} shows how it stands")
        names = [one.name for one in manifest.spec.steps]
        if step and step not in names:
            raise WrongState(f"workflow {name!r} has no step {step!r}", todo=f"its steps: {', '.join(names)}")
        if whole:
            again = WorkflowRun(name, run.number + 1, view.generation, self._now(), {})
            what = f"run {again.number}, all of it"
        else:
            first = [step] if step else retried(manifest, states)
            if not first:
                raise WrongState(f"no step of workflow {name!r} failed", todo="say --from STEP, or --all")
            part = with_dependents(manifest, first) | {ON_FAILURE}
            tries = {**run.tries, **{one: run.tries.get(one, 0) + 1 for one in part}}
            again = replace(run, tries=tries, phase="Running", ended_ns=None)
            what = f"run {run.number}, from {', '.join(first)} on"
        if not await self._save(again, EventDraft(view.name, "", "Normal", "Retried", what), instead_of=run):
            raise WrongState(f"workflow {name!r} was changed meanwhile", todo="look again")
        self._queue.add(name)
        return again

    # -- one workflow --

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            try:
                await self._look(name)
                self._queue.forget_failures(name)
            except Exception as error:  # one workflow's trouble, even a defect of ours, must not end the others
                await self._try_again(name, error)
            finally:
                self._queue.done(name)

    async def _try_again(self, name: str, error: Exception) -> None:
        pause = self._queue.retry(name)
        expected = isinstance(error, JobletError | OSError)
        told = {"workflow": name, "error": str(error), "again_seconds": round(pause, 2)}
        log.warning("workflow not in line", **told, exc_info=None if expected else error)
        try:
            event = EventDraft(f"{KIND}/{name}", "", "Warning", "Delayed", str(error) or repr(error))
            await self._registry.record(event)
        except JobletError as unwritable:
            log.warning("event not recorded", workflow=name, error=str(unwritable))

    async def _look(self, name: str) -> None:
        """Bring it in line: one look is enough, since each step's change brings the next."""
        view = self._registry.resources.get(JobName(f"{KIND}/{name}"))
        if view is None:
            return
        if view.deleting:
            await self._clear_away(name, self._jobs(name))
            if not self._jobs(name):
                self._look_at(view.name)
            return
        manifest = _manifest(view)
        run = await self._current_run(view)
        wanted = {job_name(name, step.name) for step in manifest.spec.steps} | {job_name(name, ON_FAILURE)}
        await self._clear_away(name, [job for job in self._jobs(name) if job not in wanted])
        await self._stop_earlier(name, run)
        states = states_of(manifest, run, self._registry.views)
        for state in states.values():
            if state.phase == StepPhase.DUE:
                await self._declare(manifest, run, state)
        states = states_of(manifest, run, self._registry.views)
        phase = phase_of(states)
        if phase != run.phase:
            await self._note_end(view, run, phase, states)

    async def _current_run(self, view: ResourceView) -> WorkflowRun:
        """The run of what is declared now, on record before anything of it is declared."""
        name = view.manifest.metadata.name
        run = self._runs.get(name)
        if run is not None and run.generation == view.generation:
            return run
        number = run.number + 1 if run is not None else 1
        fresh = WorkflowRun(name, number, view.generation, self._now(), {})
        event = EventDraft(view.name, "", "Normal", "Started", f"run {number}, generation {view.generation}")
        await self._save(fresh, event, instead_of=run)
        reached("daemon.workflow-run-stored")
        return fresh

    async def _declare(self, manifest: WorkflowManifest, run: WorkflowRun, state: StepState) -> None:
        """Its job, with which its run starts. Raises JobletError."""
        assert self._desired is not None, "begin comes first"
        by_name = {step.name: step.job for step in manifest.spec.steps}
        if state.name == ON_FAILURE:
            assert manifest.spec.on_failure is not None
            spec = manifest.spec.on_failure.job
        else:
            spec = by_name[state.name]
        job = step_job(manifest, state.name, spec, run, state.inputs)
        await self._desired.apply([job], source_of(manifest.metadata.name))
        reached("daemon.step-declared")

    async def _stop_earlier(self, name: str, run: WorkflowRun) -> None:
        """What still runs of an earlier run of the workflow is stopped."""
        assert self._desired is not None
        for job in self._jobs(name):
            view = self._registry.views[job]
            step = job.removeprefix(f"{name}-")
            if token_of(view) != run.token(step) and any(one.stop is None for one in open_runs(view)):
                try:
                    await self._desired.stop(job, force=False)
                except WrongState:
                    continue  # it ended meanwhile

    async def _clear_away(self, name: str, jobs: Iterable[JobName]) -> None:
        assert self._desired is not None
        for job in jobs:
            if not self._registry.views[job].deleting:
                try:
                    await self._desired.delete(job, source=source_of(name))
                except NoSuchJob:
                    continue  # it went meanwhile

    async def _note_end(
        self, view: ResourceView, run: WorkflowRun, phase: str, states: Mapping[str, StepState]
    ) -> None:
        failed = [state for state in states.values() if state.went_wrong and state.name != ON_FAILURE]
        kind = "Warning" if phase == "Failed" else "Normal"
        text = f"run {run.number}" + "".join(
            f"; {one.name}: {one.phase} ({one.reason}: {one.message})" for one in failed
        )
        event = EventDraft(view.name, "", kind, phase, text)
        await self._save(replace(run, phase=phase, ended_ns=self._now()), event, instead_of=run)
        reached("daemon.workflow-end-stored")

    async def _save(self, run: WorkflowRun, event: EventDraft, *, instead_of: WorkflowRun | None) -> bool:
        """Put it on record, unless somebody did so with another one meanwhile."""
        async with self._saving:
            if self._runs.get(run.workflow) is not instead_of:
                return False
            await self._registry.write(lambda connection: put_workflow_run(connection, run), event)
            self._runs[run.workflow] = run
            return True

    def _jobs(self, name: str) -> list[JobName]:
        """All that belong to it."""
        source = source_of(name)
        return [job for job, view in self._registry.views.items() if view.source == source]

    def _now(self) -> int:
        return self._registry.clock.wall_ns()


def _manifest(view: ResourceView) -> WorkflowManifest:
    assert isinstance(view.manifest, WorkflowManifest)
    return view.manifest

"""The controller of workflows: looks at one at a time, declares the jobs of steps that are due, and begins its runs.

It is told of every change of a step's job, and derives all else from what jobs are there. What it keeps on record is the run that
each workflow is at, with how often steps were tried anew, and which runs are to come. It changes jobs without holding the
workflow's own lock: who applies a workflow and jobs together holds several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import ON_FAILURE, ResourceManifest, WorkflowManifest
from joblet.manifest.schedule_values import format_moment
from jobletd.desired import DesiredState
from jobletd.model import JobName, JobView, Reason, ResourceView
from jobletd.registry import Registry
from jobletd.resources import NotInLine
from jobletd.saves import EventDraft
from jobletd.schedules.ticker import BehindClocks, set_back_event
from jobletd.work_queue import WorkQueue
from jobletd.workflows.jobs import StepJobs
from jobletd.workflows.progress import StepPhase, StepState, phase_of, states_of
from jobletd.workflows.record import Record
from jobletd.workflows.requests import WorkflowRequests
from jobletd.workflows.runs import WorkflowRuns, is_changed, manifest_of, plan_of
from jobletd.workflows.steps import KIND, RUNNING, WorkflowRun, job_name
from jobletd.workflows.turns import Asked, Turn, Turns, decide, decided_until, is_ticking, next_ns, turns_for

WORKERS = 2
SECOND_NS = 1_000_000_000
LONGEST_WAIT_SECONDS = 60.0  # then the clock is read again: it may have been set, or the host have slept
log = structlog.get_logger("workflows")


class Workflows:
    """See ``jobletd.resources.Controller``. ``begin`` before ``run``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._record = Record(registry)
        self._queue: WorkQueue[str] = WorkQueue()
        self._behind = BehindClocks(registry.clock)
        self._runs = WorkflowRuns(registry, self._record)
        self._look_at: Callable[[JobName], None] = lambda _: None

    async def begin(
        self,
        desired: DesiredState,
        look_at: Callable[[JobName], None],
        ask_host: Callable[[JobName], Awaitable[None]],
    ) -> None:
        """Tell it what to change, whom to tell of a workflow that has nothing left, and who finds out how a job's run stands."""
        self._jobs = StepJobs(self._registry, desired, ask_host)
        self._requests = WorkflowRequests(self._registry, self._record, self._runs, self._jobs)
        self._look_at = look_at
        await self._record.load()
        self._registry.on_change(self._changed)

    async def pass_over_ticks(self) -> None:
        """Nothing is made up for, nor goes on waiting: after a restore it may have run."""
        for turns in self._record.all_turns():
            await self._record.put(None, decided_until(turns, self._now()))

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
        """Ticks count from this apply, if it changes when they come."""
        await self._note_declared(view)
        self._queue.add(view.manifest.metadata.name)

    async def remove(self, view: ResourceView) -> None:
        """Its jobs go first. Raises NotInLine until they are gone."""
        name = view.manifest.metadata.name
        if self._jobs.of(name):
            self._queue.add(name)
            raise NotInLine("Leaving", "the jobs of its steps go first")
        await self._record.delete(name)

    async def status(self, view: ResourceView) -> Mapping[str, str]:
        """Which run it is at, how far that is, and when the next one begins."""
        manifest, turns = manifest_of(view), self._record.turns(view.manifest.metadata.name)
        run, states = self.progress(view)
        phase = "Scheduled" if run is None else phase_of(run, states)
        found = {}
        if run is not None:
            over = sum(state.is_over for state in states.values())
            found = {"run": str(run.number), "steps": f"{over}/{len(states)}"}
        due_ns = next_ns(manifest, turns)
        if due_ns is not None:
            found["next"] = format_moment(due_ns // SECOND_NS)
        if turns.waiting:
            found["waiting"] = str(len(turns.waiting))
        if manifest.spec.suspend and phase in (RUNNING, "Scheduled"):
            phase = "Suspended"
        return {"phase": phase, **found} if found or phase == "Suspended" else {}

    def progress(self, view: ResourceView) -> tuple[WorkflowRun | None, Mapping[str, StepState]]:
        """The run that it is at, None before there is one, and how its steps stand."""
        return self._runs.progress(view)

    # -- what people ask for --

    async def retry(self, name: str, *, step: str = "") -> WorkflowRun:
        """Run a part anew: what failed, or a step with all that need it. Raises NoSuchResource, WrongState."""
        with self._registry.entered("joblet.retry", {"joblet.workflow": name}):
            again = await self._requests.retry(name, step)
        self._queue.add(name)
        return again

    async def trigger(self, name: str, *, force: bool) -> tuple[int, int]:
        """All of it as a new run, as its overlap lets it. force: whatever goes on is stopped.

        Returns the number of the run that began, or that it will wait for, and its place in the line, 0: it began. Raises
        NoSuchResource, WrongState.
        """
        with self._registry.entered("joblet.retry", {"joblet.workflow": name}):
            begun = await self._requests.trigger(name, force=force)
        self._queue.add(name)
        return begun

    async def stop(self, name: str, *, force: bool) -> WorkflowRun:
        """Its run ends: what runs of it gets its grace, or none with force, and nothing more begins, not ``onFailure`` either.
        What waits in the line behind it does not run. Raises NoSuchResource, WrongState if nothing goes on."""
        stopping = await self._requests.stop(name, force=force)
        self._queue.add(name)
        return stopping

    # -- one workflow --

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            try:
                again_seconds = await self._look(name)
                self._queue.forget_failures(name)
                if again_seconds is not None:
                    self._queue.add_after(name, again_seconds)
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

    async def _look(self, name: str) -> float | None:
        """Bring it in line. Returns in how many seconds to look again, None: when one of its jobs or itself changes."""
        view = self._registry.resources.get(JobName(f"{KIND}/{name}"))
        if view is None:
            return None
        if view.deleting:
            await self._let_go(view)
            return None
        await self._note_declared(view)
        await self._keep_up(view)
        await self._go_on(view)
        if self._has_due_tick(view) and self._record.running(name):
            await self._jobs.ask_host(name)  # what ended while nobody looked forbids nothing
            await self._go_on(view)
        return await self._take_turns(view)

    async def _let_go(self, view: ResourceView) -> None:
        name = view.manifest.metadata.name
        run = self._record.run(name)
        if run is not None and self._record.running(name):
            async with self._record.changing:
                await self._runs.put_stopped(view, run, Reason.DELETED)
        await self._jobs.delete(name, self._jobs.of(name))
        if not self._jobs.of(name):
            self._look_at(view.name)

    async def _note_declared(self, view: ResourceView) -> None:
        """Up to where its ticks are decided about, as it is declared now."""
        name = view.manifest.metadata.name
        async with self._record.changing:
            known = self._record.turns(name)
            turns = turns_for(known, manifest_of(view), view.updated_ns)
            if turns != known:
                await self._record.put(None, turns)

    async def _keep_up(self, view: ResourceView) -> None:
        """A run of what is declared now, unless it comes by a schedule; what changes no work goes on as the run that there is."""
        name, manifest = view.manifest.metadata.name, manifest_of(view)
        async with self._record.changing:
            run = self._record.run(name)
            if run is not None and (run.generation == view.generation or not is_changed(view, run)):
                if run.generation != view.generation or run.manifest is None:
                    await self._record.put(replace(run, generation=view.generation, manifest=manifest), None)
            elif manifest.spec.schedule is None and not manifest.spec.suspend:
                await self._begin(view, Turn(self._record.turns(name), Asked("generation")))

    async def _go_on(self, view: ResourceView) -> None:
        """What is due in its run is declared, and its end noted."""
        name = view.manifest.metadata.name
        run = self._record.run(name)
        if run is None:
            return
        plan = plan_of(view, run)
        wanted = {job_name(name, step.name) for step in plan.spec.steps} | {job_name(name, ON_FAILURE)}
        await self._jobs.delete(name, [job for job in self._jobs.of(name) if job not in wanted])
        if await self._jobs.stop_earlier(name, run):
            return  # their end brings the next look
        if run.was_stopped:
            await self._end_stopped(view, run)
            return
        if manifest_of(view).spec.suspend:
            await self._jobs.suspend(name)
        else:
            await self._jobs.resume(name, run)
            for state in states_of(plan, run, self._registry.views).values():
                if state.phase == StepPhase.DUE:
                    await self._jobs.declare(plan, run, state)
        states = states_of(plan, run, self._registry.views)
        phase = phase_of(run, states)
        if phase != run.phase:
            await self._runs.note(view, run, phase, states)

    async def _end_stopped(self, view: ResourceView, run: WorkflowRun) -> None:
        """Of a run that somebody stopped: what runs ends, and then it has ended itself."""
        if not run.goes_on or await self._jobs.stop(run.workflow):
            return  # their end brings the next look
        async with self._record.changing:
            if self._record.run(run.workflow) is run:
                await self._runs.put_stopped(view, run, Reason.STOPPED)
        reached("daemon.workflow-stopped")

    # -- runs to come --

    def _has_due_tick(self, view: ResourceView) -> bool:
        due_ns = next_ns(manifest_of(view), self._record.turns(view.manifest.metadata.name))
        return due_ns is not None and due_ns <= self._now()

    async def _take_turns(self, view: ResourceView) -> float | None:
        """Begin what is due and may. Returns in how many seconds the next tick is."""
        name, manifest = view.manifest.metadata.name, manifest_of(view)
        async with self._record.changing:
            turns = await self._with_clock_set_back(view, self._record.turns(name))
            turn = decide(manifest, turns, self._record.running(name), self._now())
            if turn is not None and turn.begin is not None:
                await self._begin(view, turn)
                self._queue.add(name)
            elif turn is not None:
                await self._record.put(None, turn.turns, *turn.events)
        due_ns = next_ns(manifest, self._record.turns(name))
        if due_ns is None:
            return None
        return min(max((due_ns - self._now()) / SECOND_NS, 0.001), LONGEST_WAIT_SECONDS)

    async def _with_clock_set_back(self, view: ResourceView, turns: Turns) -> Turns:
        manifest, ticked_seconds = manifest_of(view), turns.ticked_seconds
        schedule = manifest.spec.schedule
        if ticked_seconds is None or schedule is None or not is_ticking(manifest):
            self._behind.forget(view.name)
            return turns
        if not self._behind.was_set_back(view.name, schedule, ticked_seconds):
            return turns
        self._behind.forget(view.name)
        turns = replace(turns, ticked_seconds=self._now() // SECOND_NS)
        await self._record.put(None, turns, set_back_event(view.name, ticked_seconds))
        return turns

    async def _begin(self, view: ResourceView, turn: Turn) -> None:
        await self._runs.begin(view, turn, self._jobs.latest_run(view.manifest.metadata.name))

    def _now(self) -> int:
        return self._registry.clock.wall_ns()

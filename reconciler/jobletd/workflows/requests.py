"""What people ask of a workflow: that a part of it runs anew, or all of it, or that it stops."""

from __future__ import annotations

from dataclasses import replace

from joblet.crash_points import reached
from joblet.manifest import ON_FAILURE
from jobletd.errors import NoSuchResource, WrongState
from jobletd.lookup import Lookup
from jobletd.model import JobName, ResourceView
from jobletd.registry import Registry
from jobletd.saves import EventDraft
from jobletd.workflows.jobs import StepJobs
from jobletd.workflows.progress import phase_of, retried
from jobletd.workflows.record import Record
from jobletd.workflows.runs import WorkflowRuns, manifest_of, plan_of
from jobletd.workflows.steps import KIND, RUNNING, STOPPING, WorkflowRun, with_dependents
from jobletd.workflows.turns import ask


class WorkflowRequests:
    """Each is on record when it returns; the controller then does what follows from it."""

    def __init__(self, registry: Registry, record: Record, runs: WorkflowRuns, jobs: StepJobs) -> None:
        self._registry = registry
        self._record = record
        self._runs = runs
        self._jobs = jobs

    async def retry(self, name: str, step: str) -> WorkflowRun:
        """See ``Workflows.retry``."""
        view = self._view(name)
        run, states = self._runs.progress(view)
        if run is None:
            raise WrongState(
                f"workflow {name!r} has not run yet", todo=f"rnx status workflow/{name} shows how it stands"
            )
        if phase_of(run, states) in (RUNNING, STOPPING):
            raise WrongState(f"workflow {name!r} still runs", todo=f"rnx status workflow/{name} shows how it stands")
        plan = plan_of(view, run)
        names = [one.name for one in plan.spec.steps]
        if step and step not in names:
            raise WrongState(f"workflow {name!r} has no step {step!r}", todo=f"its steps: {', '.join(names)}")
        first = [step] if step else retried(plan, states)
        if not first:
            raise WrongState(f"no step of workflow {name!r} failed", todo="say --from STEP, or --all")
        part = with_dependents(plan, first) | {ON_FAILURE}
        tries = {**run.tries, **{one: run.tries.get(one, 0) + 1 for one in part}}
        again = replace(run, tries=tries, phase=RUNNING, ended_ns=None)
        event = EventDraft(view.name, "", "Normal", "Retried", f"run {run.number}, from {', '.join(first)} on")
        async with self._record.changing:
            if self._record.run(name) is not run:
                raise WrongState(f"workflow {name!r} was changed meanwhile", todo="look again")
            await self._record.put(again, None, event, place=self._runs.place())
        return again

    async def trigger(self, name: str, *, force: bool) -> tuple[int, int]:
        """See ``Workflows.trigger``."""
        view = self._view(name)
        async with self._record.changing:
            run = self._record.run(name)
            turn = ask(manifest_of(view), self._record.turns(name), self._record.running(name), force=force)
            if turn.begin is None:
                await self._record.put(None, turn.turns, EventDraft(view.name, "", "Normal", "Queued", "by hand"))
            else:
                run = await self._runs.begin(view, turn, self._jobs.latest_run(name))
        assert run is not None, "who waits, waits for one"
        return run.number, len(turn.turns.waiting) if turn.begin is None else 0

    async def stop(self, name: str, *, force: bool) -> WorkflowRun:
        """See ``Workflows.stop``."""
        view = self._view(name)
        async with self._record.changing:
            run = self._record.run(name)
            if run is None or phase_of(run, self._runs.states(view, run)) not in (RUNNING, STOPPING):
                raise WrongState(
                    f"workflow {name!r} does not run", todo=f"rnx status workflow/{name} shows how it stands"
                )
            if run.phase != STOPPING:
                run = await self._put_stopping(view, run, "by force" if force else "with the grace of its steps")
        reached("daemon.workflow-stop-stored")
        if force:
            await self._jobs.stop(name, force=True)
        return run

    async def _put_stopping(self, view: ResourceView, run: WorkflowRun, how: str) -> WorkflowRun:
        """Nothing more of it begins, nor of what waited for its end: else that would run as soon as this has stopped."""
        turns = self._record.turns(run.workflow)
        waited = f"; {len(turns.waiting)} more that waited do not run" if turns.waiting else ""
        stopping = replace(run, phase=STOPPING)
        event = EventDraft(view.name, "", "Normal", STOPPING, f"run {run.number}, {how}{waited}")
        await self._record.put(stopping, replace(turns, waiting=()) if turns.waiting else None, event)
        return stopping

    def _view(self, name: str) -> ResourceView:
        view = self._registry.resources.get(JobName(f"{KIND}/{name}"))
        if view is None or view.deleting:
            raise NoSuchResource(KIND, name, Lookup(self._registry).nearest(KIND, name))
        return view

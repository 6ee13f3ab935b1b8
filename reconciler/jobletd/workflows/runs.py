"""The runs of workflows put on record: each with its beginning or its end, and whom it concerns told of that, in one write."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace

from joblet.crash_points import reached
from joblet.manifest import ON_FAILURE, WorkflowManifest
from joblet.manifest.schedule_values import format_moment
from joblet.trace_context import SpanPlace
from jobletd.model import Reason, ResourceView
from jobletd.notifying.workflow_drafts import drafts_of_workflow
from jobletd.registry import Registry
from jobletd.saves import EventDraft
from jobletd.workflows.progress import StepState, states_of
from jobletd.workflows.record import Record
from jobletd.workflows.steps import KIND, STOPPED, WorkflowRun
from jobletd.workflows.turns import Asked, Turn, Turns


class WorkflowRuns:
    """Of all workflows. Who calls what begins or stops one holds ``record.changing``."""

    def __init__(self, registry: Registry, record: Record) -> None:
        self._registry = registry
        self._record = record
        self._node = socket.gethostname()

    def progress(self, view: ResourceView) -> tuple[WorkflowRun | None, Mapping[str, StepState]]:
        """The run that it is at, None before there is one, and how its steps stand."""
        run = self._record.run(view.manifest.metadata.name)
        if run is None or (run.generation != view.generation and is_out_of_date(view, run)):
            return None, {}
        return run, self.states(view, run)

    def states(self, view: ResourceView, run: WorkflowRun) -> Mapping[str, StepState]:
        """How the steps of that run stand."""
        return states_of(plan_of(view, run), run, self._registry.views)

    async def begin(self, view: ResourceView, turn: Turn, latest: int) -> WorkflowRun:
        """A new run, on record with its tick before anything of it is declared; what goes on ends for it.

        latest: the highest number of a run that one of its jobs belongs to.
        """
        asked, manifest = turn.begin, manifest_of(view)
        assert asked is not None
        name = manifest.metadata.name
        old = self._record.run(name)
        number = 1 + max(old.number if old is not None else 0, latest)
        run = WorkflowRun(
            name,
            number,
            view.generation,
            self._now(),
            {},
            trigger=asked.trigger,
            tick_seconds=asked.tick_seconds,
            manifest=manifest,
        )
        event = EventDraft(view.name, "", "Normal", "Started", f"run {number}, {_told(asked, view.generation)}")
        place = None if asked.trigger == "generation" else self.place()  # with a new generation it has one already
        if old is not None and self._record.running(name):
            reason = Reason.SUPERSEDED if asked.trigger == "generation" else Reason.REPLACED
            await self.put_stopped(view, old, reason, run, turn.turns, *turn.events, event, place=place)
        else:
            await self._record.put(run, turn.turns, *turn.events, event, place=place)
        reached("daemon.workflow-run-stored")
        return run

    async def put_stopped(
        self,
        view: ResourceView,
        run: WorkflowRun,
        reason: Reason,
        instead: WorkflowRun | None = None,
        turns: Turns | None = None,
        *events: EventDraft,
        place: SpanPlace | None = None,
    ) -> None:
        """A run that goes on has its end, told to whom it concerns, in one write with the one that takes its place."""
        ended = replace(run, phase=STOPPED, ended_ns=self._now())
        event = EventDraft(view.name, "", "Normal", STOPPED, f"run {run.number}: {reason}")
        drafts = drafts_of_workflow(view, ended, reason, "", self.states(view, run), self._node)
        here = self._here(ended)  # before another run goes on in its place
        await self._record.put(instead or ended, turns, event, *events, notifications=drafts, place=place)
        self._trace_end(ended, "", here)

    async def note(self, view: ResourceView, run: WorkflowRun, phase: str, states: Mapping[str, StepState]) -> None:
        """The phase that a run has come to by itself, unless something else became of it meanwhile."""
        failed = [state for state in states.values() if state.went_wrong and state.name != ON_FAILURE]
        kind = "Warning" if phase == "Failed" else "Normal"
        why = "; ".join(f"{one.name}: {one.phase} ({one.reason}: {one.message})" for one in failed)
        event = EventDraft(view.name, "", kind, phase, f"run {run.number}" + (f"; {why}" if why else ""))
        ended = replace(run, phase=phase, ended_ns=self._now())
        reason = "StepFailed" if failed else Reason.COMPLETED
        drafts = () if ended.goes_on else drafts_of_workflow(view, ended, reason, why, states, self._node)
        async with self._record.changing:
            if self._record.run(run.workflow) is run:
                await self._record.put(ended, None, event, notifications=drafts)
                self._trace_end(ended, event.message if phase == "Failed" else "", self._here(ended))
        reached("daemon.workflow-end-stored")

    def place(self) -> SpanPlace | None:
        """In a trace, of what begins now."""
        return None if self._registry.tracing is None else self._registry.tracing.place()

    def _here(self, run: WorkflowRun) -> SpanPlace | None:
        """In a trace, of that run."""
        return None if self._registry.tracing is None else self._registry.tracing.place_of(f"{KIND}/{run.workflow}")

    def _trace_end(self, ended: WorkflowRun, fault: str, place: SpanPlace | None) -> None:
        if ended.goes_on or self._registry.tracing is None:
            return
        about: dict[str, str | int | float] = {
            "joblet.workflow": ended.workflow,
            "joblet.workflow.run": ended.number,
            "joblet.phase": ended.phase,
        }
        self._registry.tracing.ended(place, about, fault=fault)

    def _now(self) -> int:
        return self._registry.clock.wall_ns()


def manifest_of(view: ResourceView) -> WorkflowManifest:
    """As it is declared."""
    assert isinstance(view.manifest, WorkflowManifest)
    return view.manifest


def plan_of(view: ResourceView, run: WorkflowRun) -> WorkflowManifest:
    """What that run runs."""
    return run.manifest or manifest_of(view)


def is_changed(view: ResourceView, run: WorkflowRun) -> bool:
    """Whether what is declared would do something else than that run, of another generation."""
    return run.manifest is None or run.manifest.spec.work != manifest_of(view).spec.work


def is_out_of_date(view: ResourceView, run: WorkflowRun) -> bool:
    """Whether another run is about to take its place."""
    spec = manifest_of(view).spec
    return spec.schedule is None and not spec.suspend and is_changed(view, run)


def _told(asked: Asked, generation: int) -> str:
    if asked.tick_seconds is not None:
        return f"by its schedule, for {format_moment(asked.tick_seconds)}"
    return f"generation {generation}" if asked.trigger == "generation" else "by hand"

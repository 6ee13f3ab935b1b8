"""Which runs of a workflow are to come, by its schedule and at people's wish: pure functions of what is on record and the time.

What a tick is, and when it counts as missed, is decided by ``jobletd.schedules`` as for jobs. Of a workflow one run goes on at a
time, since each of its steps is one job: so runs that may not begin yet wait in a line that is on record, and not as runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from joblet.manifest import Overlap, WorkflowManifest, key_of
from joblet.manifest.schedule_values import format_moment
from jobletd.errors import WrongState
from jobletd.saves import EventDraft
from jobletd.schedules.due import DueTicks, clockwork, due_ticks, next_tick_ns, ticked_anew
from jobletd.schedules.overlap import OPEN_AT_MOST
from jobletd.schedules.ticker import deadline_is_over, missed_events

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A run that is to come. trigger: generation | schedule | manual | forced. tick_seconds: of its schedule, since the epoch."""

    trigger: str
    tick_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Turns:
    """What is on record of a workflow's runs to come.

    clockwork: what said when ticks come when ticked_seconds was set, as text; empty: nothing. ticked_seconds: up to where it was
    decided about them. waiting: runs that begin one after the other, each when the one before has ended.
    """

    workflow: str
    clockwork: str = ""
    ticked_seconds: int | None = None
    waiting: tuple[Asked, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """What was decided. begin: the run that begins now; one that goes on is stopped for it."""

    turns: Turns
    begin: Asked | None = None
    events: tuple[EventDraft, ...] = ()


def turns_for(known: Turns, workflow: WorkflowManifest, applied_ns: int) -> Turns:
    """What is on record once the workflow is declared like this: ticks count from the apply that changed when it runs."""
    spec = workflow.spec
    marks = clockwork(spec.schedule, spec.suspend)
    mark = "" if marks is None else json.dumps(marks)
    if mark == known.clockwork:
        return known
    waiting = () if spec.suspend else known.waiting
    if marks is None:
        return Turns(known.workflow, waiting=waiting)
    applied = applied_ns // SECOND_NS
    ticked = applied if known.ticked_seconds is None else ticked_anew(known.ticked_seconds, applied)
    return Turns(known.workflow, mark, ticked, waiting)


def decided_until(turns: Turns, now_ns: int) -> Turns:
    """Without what is due and what waits: after a restore it may have run."""
    ticked = None if turns.ticked_seconds is None else max(now_ns // SECOND_NS, turns.ticked_seconds)
    return replace(turns, ticked_seconds=ticked, waiting=())


def is_ticking(workflow: WorkflowManifest) -> bool:
    """Whether ticks of it come due."""
    spec = workflow.spec
    return spec.schedule is not None and not (spec.schedule.suspend or spec.suspend)


def next_ns(workflow: WorkflowManifest, turns: Turns) -> int | None:
    """When the next tick comes due; None: never, or not as things are."""
    schedule = workflow.spec.schedule
    if turns.ticked_seconds is None or schedule is None or not is_ticking(workflow):
        return None
    return next_tick_ns(schedule, workflow.metadata.name, turns.ticked_seconds)


def decide(workflow: WorkflowManifest, turns: Turns, running: int, now_ns: int) -> Turn | None:
    """What of its turns is to be done now; None: nothing. running: the number of the run that goes on, 0: there is none."""
    turn = _ticks(workflow, turns, running, now_ns)
    if (turn is not None and turn.begin is not None) or running or workflow.spec.suspend:
        return turn
    turns, events = (turns, ()) if turn is None else (turn.turns, turn.events)
    waiting = turns.waiting
    while waiting:
        first, *rest = waiting
        waiting = tuple(rest)
        if not _is_too_late(workflow, first, now_ns):
            return Turn(replace(turns, waiting=waiting), first, events)
        what = (
            f"the run for {format_moment(first.tick_seconds or 0)}: its startingDeadline was over before it could begin"
        )
        events = (*events, EventDraft(key_of(workflow), "", "Warning", "Missed", what))
    return Turn(replace(turns, waiting=()), None, events) if turns.waiting or turn is not None else None


def ask(workflow: WorkflowManifest, turns: Turns, running: int, *, force: bool) -> Turn:
    """A run that a person asks for. force: it begins now, whatever goes on is stopped. Raises WrongState."""
    name, schedule = workflow.metadata.name, workflow.spec.schedule
    if workflow.spec.suspend:
        raise WrongState(f"workflow {name!r} is suspended", todo="apply it with spec.suspend: false")
    if force:
        return Turn(turns, Asked("forced"))
    overlap = schedule.overlap if schedule is not None else Overlap.FORBID
    if not running and not turns.waiting:
        return Turn(turns, Asked("manual"))
    if overlap is Overlap.REPLACE:
        return Turn(replace(turns, waiting=()), Asked("manual"))
    if overlap is Overlap.FORBID:
        todo = (
            f"rnx tree workflow/{name} shows how it stands; rnx run --workflow {name} --force stops it for another run"
        )
        raise WrongState(f"workflow {name!r} still runs", todo=todo)
    if len(turns.waiting) + 1 >= OPEN_AT_MOST:
        raise WrongState(f"{len(turns.waiting)} runs of workflow {name!r} wait already", todo="wait for some of them")
    return Turn(replace(turns, waiting=(*turns.waiting, Asked("manual"))))


def _ticks(workflow: WorkflowManifest, turns: Turns, running: int, now_ns: int) -> Turn | None:
    """Decide about what has become due since; None: nothing has."""
    schedule = workflow.spec.schedule
    if turns.ticked_seconds is None or schedule is None or not is_ticking(workflow):
        return None
    due = due_ticks(schedule, workflow.metadata.name, turns.ticked_seconds, now_ns)
    return None if due is None else _placed(workflow, turns, running, due)


def _placed(workflow: WorkflowManifest, turns: Turns, running: int, due: DueTicks) -> Turn:
    key, schedule = key_of(workflow), workflow.spec.schedule
    assert schedule is not None
    asked = tuple(Asked("schedule", tick) for tick in due.run)
    decided = replace(turns, ticked_seconds=due.decided)
    events = tuple(missed_events(key, due))
    is_open = bool(running or turns.waiting)
    if not asked:
        return Turn(decided, None, events)
    if schedule.overlap is Overlap.FORBID and is_open:
        return Turn(decided, None, (*events, _skipped(key, f"run {running} goes on, and overlap is Forbid")))
    if schedule.overlap is Overlap.REPLACE:
        if len(asked) > 1 or turns.waiting:
            events = (*events, _skipped(key, "the last one replaces those before it"))
        return Turn(replace(decided, waiting=()), asked[-1], events)
    places = max(OPEN_AT_MOST - len(turns.waiting) - bool(running), 0)
    if len(asked) > places:
        events = (*events, _skipped(key, f"{OPEN_AT_MOST} runs are open"))
    return Turn(replace(decided, waiting=(*turns.waiting, *(asked[-places:] if places else ()))), None, events)


def _is_too_late(workflow: WorkflowManifest, asked: Asked, now_ns: int) -> bool:
    schedule = workflow.spec.schedule
    if asked.tick_seconds is None or schedule is None:
        return False
    return deadline_is_over(schedule, workflow.metadata.name, asked.tick_seconds, now_ns)


def _skipped(key: str, why: str) -> EventDraft:
    return EventDraft(key, "", "Normal", "TickSkipped", why)

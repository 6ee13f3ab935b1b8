"""The step that turns due ticks into runs: decided once, and on record together with the runs, or not at all.

It is taken by the reconciler, under the job's lock, after the truth about the job's runs was asked for: so a run that ended while
no daemon ran stands in nobody's way, and one that goes on does.
"""

from __future__ import annotations

from dataclasses import replace

from joblet.clock import Clock
from joblet.crash_points import reached
from joblet.manifest import Schedule
from joblet.manifest.schedule_values import format_moment
from jobletd.model import JobName, JobView, Run
from jobletd.registry import Registry
from jobletd.saves import EventDraft, Save
from jobletd.schedules.due import BEHIND_SECONDS, COUNTED, SECOND_NS, DueTicks, due_ticks, is_ticking, next_due_ns
from jobletd.schedules.overlap import Added, add_scheduled_runs

PATIENCE_SECONDS = 3600.0  # with a clock that is behind by more: at a boot it may still be set right


class BehindClocks:
    """Since when the clock seems to be behind what was decided about, by who has the schedule."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def forget(self, name: str) -> None:
        self._since.pop(name, None)

    def was_set_back(self, name: str, schedule: Schedule, ticked_seconds: int) -> bool:
        """Whether the clock was far ahead once, and ticks count as decided that nobody will live to see.

        A clock may also be behind for the first minutes of a boot. So it is given time; and one tick alone never comes again.
        """
        now_seconds = self._clock.wall_ns() // SECOND_NS
        if schedule.at is not None or ticked_seconds - now_seconds <= BEHIND_SECONDS:
            self.forget(name)
            return False
        now = self._clock.boot_seconds()
        return now - self._since.setdefault(name, now) >= PATIENCE_SECONDS


class Ticker:
    """Knows since when a job's clock seems to be behind; all else is on record."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._behind = BehindClocks(registry.clock)

    async def tick(self, name: JobName) -> float | None:
        """Decide about what is due. Returns in how many seconds to look again (0: when the job changes), None: at once."""
        view = self._registry.views.get(name)
        if view is None or not is_ticking(view):
            self._behind.forget(name)
            return 0.0
        now_ns = self._registry.clock.wall_ns()
        schedule = view.manifest.spec.schedule
        assert schedule is not None
        ticked_seconds = view.ticked_seconds
        if ticked_seconds is None or self._behind.was_set_back(name, schedule, ticked_seconds):
            await self._begin_anew(view, now_ns)
            return None
        due = due_ticks(schedule, name, ticked_seconds, now_ns)
        if due is None:
            next_ns = next_due_ns(view)
            return 0.0 if next_ns is None else max((next_ns - now_ns) / SECOND_NS, 0.001)
        await self._decide(view, due, now_ns)
        return None

    async def _decide(self, view: JobView, due: DueTicks, now_ns: int) -> None:
        reached("daemon.tick-due")
        added = add_scheduled_runs(replace(view, ticked_seconds=due.decided), due.run, now_ns)
        events = [*_events(view.name, due, added)]
        await self._registry.save(Save(added.view, runs=[*added.stopped, *added.runs], events=events, job=True))
        reached("daemon.tick-stored")

    async def _begin_anew(self, view: JobView, now_ns: int) -> None:
        events = [] if view.ticked_seconds is None else [set_back_event(view.name, view.ticked_seconds)]
        self._behind.forget(view.name)
        await self._registry.save(Save(replace(view, ticked_seconds=now_ns // SECOND_NS), events=events, job=True))


def is_too_late(run: Run, now_ns: int) -> bool:
    """Whether the startingDeadline of a run that has not begun is over."""
    schedule = run.manifest.spec.schedule
    if run.tick_seconds is None or run.attempts or schedule is None:
        return False
    return deadline_is_over(schedule, run.job, run.tick_seconds, now_ns)


def deadline_is_over(schedule: Schedule, name: str, tick_seconds: int, now_ns: int) -> bool:
    """Whether a tick is so old that its run may not begin any more."""
    if schedule.starting_deadline_seconds is None:
        return False
    late_ns = now_ns - tick_seconds * SECOND_NS - schedule.jitter_ns(name)
    return late_ns > schedule.starting_deadline_seconds * SECOND_NS


def set_back_event(name: str, ticked_seconds: int) -> EventDraft:
    message = f"ticks up to {format_moment(ticked_seconds)} were decided about; they come anew"
    return EventDraft(name, "", "Warning", "ClockSetBack", message)


def missed_events(name: str, due: DueTicks) -> list[EventDraft]:
    """One, if ticks got no run because they were missed."""
    if not due.missed:
        return []
    count = "one tick" if due.missed == 1 else f"{due.missed}{' or more' * (due.missed == COUNTED)} ticks"
    message = f"{count} since {format_moment(due.first_missed)} got no run"
    return [EventDraft(name, "", "Warning", "TicksMissed", message)]


def _events(name: JobName, due: DueTicks, added: Added) -> list[EventDraft]:
    events = missed_events(name, due)
    if added.skipped:
        events.append(EventDraft(name, "", "Normal", "TickSkipped", added.why))
    events += [
        EventDraft(name, run.id, "Normal", "Triggered", f"by its schedule, for {format_moment(run.tick_seconds)}")
        for run in added.runs
        if run.tick_seconds is not None
    ]
    return events

"""The step that turns due ticks into runs: decided once, and on record together with the runs, or not at all.

It is taken by the reconciler, under the job's lock, after the truth about the job's runs was asked for: so a run that ended while
no daemon ran stands in nobody's way, and one that goes on does.
"""

from __future__ import annotations

from dataclasses import replace

from joblet.crash_points import reached
from joblet.manifest.schedule_values import format_moment
from jobletd.model import JobName, JobView, Run
from jobletd.registry import EventDraft, Registry, Save
from jobletd.schedules.due import BEHIND_SECONDS, COUNTED, SECOND_NS, DueTicks, due_ticks, is_ticking, next_due_ns
from jobletd.schedules.overlap import Added, add_scheduled_runs

PATIENCE_SECONDS = 3600.0  # with a clock that is behind by more: at a boot it may still be set right


class Ticker:
    """Knows since when a job's clock seems to be behind; all else is on record."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._behind_since: dict[JobName, float] = {}

    async def tick(self, name: JobName) -> float | None:
        """Decide about what is due. Returns in how many seconds to look again (0: when the job changes), None: at once."""
        view = self._registry.views.get(name)
        if view is None or not is_ticking(view):
            self._behind_since.pop(name, None)
            return 0.0
        now_ns = self._registry.clock.wall_ns()
        ticked_seconds = view.ticked_seconds
        if ticked_seconds is None or self._was_set_back(view, ticked_seconds, now_ns):
            await self._begin_anew(view, now_ns)
            return None
        schedule = view.manifest.spec.schedule
        assert schedule is not None
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

    def _was_set_back(self, view: JobView, ticked_seconds: int, now_ns: int) -> bool:
        """Whether the clock was far ahead once, and ticks count as decided that nobody will live to see.

        A clock may also be behind for the first minutes of a boot. So it is given time; and one tick alone never comes again.
        """
        schedule = view.manifest.spec.schedule
        one_tick_alone = schedule is not None and schedule.at is not None
        if one_tick_alone or ticked_seconds - now_ns // SECOND_NS <= BEHIND_SECONDS:
            self._behind_since.pop(view.name, None)
            return False
        now = self._registry.clock.boot_seconds()
        return now - self._behind_since.setdefault(view.name, now) >= PATIENCE_SECONDS

    async def _begin_anew(self, view: JobView, now_ns: int) -> None:
        events = []
        if view.ticked_seconds is not None:
            message = f"ticks up to {format_moment(view.ticked_seconds)} were decided about; they come anew"
            events.append(EventDraft(view.name, "", "Warning", "ClockSetBack", message))
        self._behind_since.pop(view.name, None)
        await self._registry.save(Save(replace(view, ticked_seconds=now_ns // SECOND_NS), events=events, job=True))


def is_too_late(run: Run, now_ns: int) -> bool:
    """Whether the startingDeadline of a run that has not begun is over."""
    schedule = run.manifest.spec.schedule
    if run.tick_seconds is None or run.attempts or schedule is None or schedule.starting_deadline_seconds is None:
        return False
    late_ns = now_ns - run.tick_seconds * SECOND_NS - schedule.jitter_ns(run.job)
    return late_ns > schedule.starting_deadline_seconds * SECOND_NS


def _events(name: JobName, due: DueTicks, added: Added) -> list[EventDraft]:
    events = []
    if due.missed:
        count = "one tick" if due.missed == 1 else f"{due.missed}{' or more' * (due.missed == COUNTED)} ticks"
        message = f"{count} since {format_moment(due.first_missed)} got no run"
        events.append(EventDraft(name, "", "Warning", "TicksMissed", message))
    if added.skipped:
        events.append(EventDraft(name, "", "Normal", "TickSkipped", added.why))
    events += [
        EventDraft(name, run.id, "Normal", "Triggered", f"by its schedule, for {format_moment(run.tick_seconds)}")
        for run in added.runs
        if run.tick_seconds is not None
    ]
    return events

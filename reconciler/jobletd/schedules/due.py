"""Which ticks of a job are due, and which of them get a run: pure functions of what is on record and the time.

A job's record says up to where its ticks were decided about (``ticked_seconds``, in the schedule's own time, without jitter).
What lies between that and now is due. Of it the last may be in time; the others were missed: by an outage, a clock that jumped, a
suspended host. How many there are never matters: the search for the last ones costs the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, takewhile

from joblet.manifest import JobManifest, Missed, Schedule
from joblet.schedules import Timetable, latest_ticks, tick_after
from jobletd.model import JobView, Phase

SECOND_NS = 1_000_000_000
IN_TIME_NS = 60 * SECOND_NS  # so late may a tick be noticed and still be no missed one
BEHIND_SECONDS = 3 * 3600  # a clock that was set back by less is waited for
COUNTED = 1000  # missed ticks are counted up to here


@dataclass(frozen=True, slots=True)
class DueTicks:
    """run: ticks that get a run, oldest first. decided: the last one that is due. missed: how many got none, COUNTED: or more."""

    run: tuple[int, ...]
    decided: int
    missed: int
    first_missed: int = 0


def is_ticking(view: JobView) -> bool:
    """Whether ticks of the job come due."""
    spec = view.manifest.spec
    return spec.schedule is not None and not (spec.schedule.suspend or spec.suspend or view.deleting)


def due_ticks(schedule: Schedule, job: str, ticked_seconds: int, now_ns: int) -> DueTicks | None:
    """What has become due since; None: nothing."""
    timetable, jitter_ns = schedule.timetable(job), schedule.jitter_ns(job)
    until = (now_ns - jitter_ns) // SECOND_NS
    first = _tick_after(timetable, ticked_seconds)
    if first is None or first > until:
        return None
    most = schedule.missed_limit if schedule.missed is Missed.ALL else 1
    found = latest_ticks(timetable, ticked_seconds, until, most)
    decided = found[-1]

    def late_ns(tick: int) -> int:
        return now_ns - tick * SECOND_NS - jitter_ns

    run = found
    if schedule.missed is Missed.SKIP and late_ns(decided) > IN_TIME_NS:
        run = ()
    if schedule.starting_deadline_seconds is not None:
        deadline_ns = int(schedule.starting_deadline_seconds * SECOND_NS)
        run = tuple(tick for tick in run if late_ns(tick) <= deadline_ns)
    count = _count(timetable, ticked_seconds, decided)
    return DueTicks(run, decided, count if count == COUNTED else count - len(run), first)


def next_due_ns(view: JobView) -> int | None:
    """When the next tick of the job comes due, by the wall clock; None: never, or not as things are."""
    if not is_ticking(view) or view.ticked_seconds is None:
        return None
    schedule = view.manifest.spec.schedule
    assert schedule is not None
    return next_tick_ns(schedule, view.name, view.ticked_seconds)


def next_tick_ns(schedule: Schedule, name: str, ticked_seconds: int) -> int | None:
    """When the first tick that was not decided about comes due; None: never."""
    tick = _tick_after(schedule.timetable(name), ticked_seconds)
    return None if tick is None else tick * SECOND_NS + schedule.jitter_ns(name)


def is_awaited(view: JobView, phases: frozenset[Phase]) -> bool:
    """Whether SCHEDULED is among these phases, and that is what the job is: nothing of it runs, and a tick is to come."""
    is_open = any(not run.phase.is_final for run in view.runs)
    return Phase.SCHEDULED in phases and not is_open and next_due_ns(view) is not None


def ticked_after_apply(current: JobView | None, after: JobManifest, now_ns: int) -> int | None:
    """Up to where ticks count as decided once a manifest was applied: from now on, if that changes when the job runs."""
    if after.spec.schedule is None:
        return None
    now = now_ns // SECOND_NS
    if current is None or current.ticked_seconds is None:
        return now
    before = current.manifest.spec
    if not current.deleting and clockwork(before.schedule, before.suspend) == clockwork(
        after.spec.schedule, after.spec.suspend
    ):
        return current.ticked_seconds
    return ticked_anew(current.ticked_seconds, now)


def ticked_anew(ticked_seconds: int, now: int) -> int:
    """Up to where ticks count as decided under a changed schedule. The clock was set back a little: no tick comes twice."""
    return ticked_seconds if 0 <= ticked_seconds - now <= BEHIND_SECONDS else now


def decided_until_now(view: JobView, now_ns: int) -> JobView:
    """The job without ticks that are due; the same one if it has no schedule."""
    if view.manifest.spec.schedule is None:
        return view
    return replace(view, ticked_seconds=max(now_ns // SECOND_NS, view.ticked_seconds or 0))


def clockwork(schedule: Schedule | None, suspended: bool) -> tuple[object, ...] | None:
    """What says when it runs. Without jitter: who changes that has no tick decided twice, nor passed over."""
    if schedule is None:
        return None
    return schedule.cron, schedule.at, schedule.every_seconds, schedule.timezone, schedule.suspend, suspended


def _count(timetable: Timetable, after: int, until: int) -> int:
    ticks = takewhile(lambda tick: tick <= until, timetable.ticks(after))
    return sum(1 for _ in islice(ticks, COUNTED))


@lru_cache(maxsize=16_384)
def _tick_after(timetable: Timetable, after: int) -> int | None:
    return tick_after(timetable, after)

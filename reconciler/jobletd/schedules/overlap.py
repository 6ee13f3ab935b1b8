"""What a new run means for those of the same job that go on, and which runs may go on beside each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from joblet.manifest import Overlap
from jobletd.errors import WrongState
from jobletd.model import JobView, Phase, Reason, Run
from jobletd.planning import new_run, open_runs, plan_stop, with_runs

OPEN_AT_MOST = 100  # runs of a job at the same time, waiting ones included
FORCED = "forced"  # the trigger of a run that waits for no other


@dataclass(frozen=True, slots=True)
class Added:
    """The job with its new runs, in the order in which they were asked for, and with what is stopped for their sake."""

    view: JobView
    runs: tuple[Run, ...] = ()
    stopped: tuple[Run, ...] = ()
    skipped: int = 0
    why: str = ""  # some were skipped


def runs_in_turn(view: JobView) -> tuple[Run, ...]:
    """The open runs that may be worked on now, oldest first.

    The oldest; those that have begun, or are to end; and others that need not wait for those before them.
    """
    runs = tuple(reversed(open_runs(view)))
    return tuple(
        run
        for run in runs
        if run is runs[0]
        or run.attempts
        or run.stop is not None
        or _waits_for_no_other(run)
        or starts_beside(run, runs[0])
    )


def starts_beside(run: Run, oldest: Run) -> bool:
    """Whether a service's new run does not wait for the end of the one that serves, which ends once this one is ready."""
    return run.manifest.spec.update.max_unavailable == 0 and oldest.stop is None


def _waits_for_no_other(run: Run) -> bool:
    schedule = run.manifest.spec.schedule
    may_overlap = schedule is not None and schedule.overlap is Overlap.ALLOW and run.trigger != "generation"
    return run.trigger == FORCED or may_overlap


def add_scheduled_runs(view: JobView, ticks: tuple[int, ...], now_ns: int) -> Added:
    """One run for each of these ticks, as far as the job's overlap lets them."""
    schedule = view.manifest.spec.schedule
    assert schedule is not None
    running = open_runs(view)
    stopped: tuple[Run, ...] = ()
    if not ticks:
        return Added(view)
    if running and schedule.overlap is Overlap.FORBID:
        return Added(view, skipped=len(ticks), why=f"run {running[-1].id} goes on, and overlap is Forbid")
    if schedule.overlap is Overlap.REPLACE:
        stopped, skipped = plan_stop(view, Reason.REPLACED, force=False), len(ticks) - 1
        added = _added(with_runs(view, stopped), ticks[-1:], now_ns)
        return replace(added, stopped=stopped, skipped=skipped, why="the last one replaces those before it")
    places = max(OPEN_AT_MOST - len(running), 0)
    added = _added(view, ticks[-places:] if places else (), now_ns)
    skipped = max(len(ticks) - places, 0)
    return replace(added, skipped=skipped, why=f"{len(running)} runs of the job are open" if skipped else "")


def add_manual_run(view: JobView, trigger: str, now_ns: int, *, force: bool) -> Added:
    """One run that a person or a source asks for. Raises WrongState where others are in its way."""
    running = open_runs(view)
    schedule = view.manifest.spec.schedule
    overlap = schedule.overlap if schedule is not None else Overlap.FORBID
    if running and not force and overlap is Overlap.FORBID:
        raise WrongState(
            f"job {view.name!r} has run {running[0].id}, which is {running[0].phase}",
            todo=f"rnx stop {view.name} ends it; rnx run --job {view.name} --force starts another one beside it",
        )
    if len(running) >= OPEN_AT_MOST:
        raise WrongState(f"job {view.name!r} has {len(running)} open runs", todo=f"rnx stop {view.name} ends them")
    if force:
        trigger = FORCED
    stopped: tuple[Run, ...] = ()
    if running and not force and overlap is Overlap.REPLACE:
        stopped = plan_stop(view, Reason.REPLACED, force=False)
    run = new_run(view, trigger, now_ns)
    return Added(with_runs(view, stopped, run), (run,), stopped)


def _added(view: JobView, ticks: tuple[int, ...], now_ns: int) -> Added:
    runs: list[Run] = []
    for place, tick in enumerate(ticks):
        before = next(iter(open_runs(view)), None)
        run = replace(new_run(view, "schedule", now_ns + place), tick_seconds=tick)
        if before is not None and not _waits_for_no_other(run):
            run = replace(run, phase=Phase.PENDING, reason=Reason.WAITING, message=f"for the end of run {before.id}")
        runs.append(run)
        view = with_runs(view, (), run)
    return Added(view, tuple(runs))

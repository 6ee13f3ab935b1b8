"""From what is known of a job's attempts to its condition Ready, and to which older runs are relieved: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jobletd.conditions import with_condition
from jobletd.model import AttemptId, Condition, JobView, Phase, Reason, Run
from jobletd.planning import open_runs
from jobletd.probing.health import Health
from jobletd.saves import EventDraft

READY = "Ready"


def probed_runs(view: JobView) -> list[Run]:
    """Those that run, are not to end, and can be asked; the newest first."""
    return [
        run
        for run in open_runs(view)
        if run.phase is Phase.RUNNING and run.stop is None and run.manifest.spec.probe is not None and run.attempts
    ]


def condition_of(view: JobView) -> Condition | None:
    return next((one for one in view.conditions if one.type == READY), None)


def with_readiness(view: JobView, known: Mapping[AttemptId, Health], now_ns: int) -> JobView:
    """The job with its condition as it is now; the same if that stays."""
    if view.manifest.spec.probe is None:
        kept = tuple(one for one in view.conditions if one.type != READY)
        return view if len(kept) == len(view.conditions) else replace(view, conditions=kept)
    asked = [(run, known[run.attempts[-1].id]) for run in probed_runs(view) if run.attempts[-1].id in known]
    serving = [run for run, health in asked if health.ready]
    if serving:
        others = [run for run, health in asked if not health.ready]
        text = f"run {serving[0].id} serves" + (f"; run {others[0].id} is not ready yet" if others else "")
        return with_condition(view, READY, "True", "Probed", text, now_ns)
    if not asked:
        return with_condition(view, READY, "False", "NotRunning", "its command does not run", now_ns)
    health = asked[0][1]
    if not (health.successes or health.failures or health.why) and condition_of(view) is not None:
        return view  # of a daemon before this one, or an attempt before: until there is an answer
    if not health.started:
        reason = "NotStarted" if health.given_up else "Starting"
        text = f"no probe was well yet{f': {health.why}' if health.why else ''}"
        return with_condition(view, READY, "False", reason, text, now_ns)
    if not health.why:
        return with_condition(view, READY, "False", "Recovering", "the last probe was well", now_ns)
    return with_condition(view, READY, "False", "ProbeFailed", health.why, now_ns)


def relieved(view: JobView, known: Mapping[AttemptId, Health]) -> tuple[Run, ...]:
    """Older runs that go on only until the newest is ready, marked to end, if it is."""
    runs = open_runs(view)
    if len(runs) < 2 or not runs[0].attempts:
        return ()
    health = known.get(runs[0].attempts[-1].id)
    if health is None or not health.ready:
        return ()
    return tuple(replace(run, stop=Reason.SUPERSEDED) for run in runs[1:] if run.stop is None)


def events_of(before: JobView, after: JobView, stopped: tuple[Run, ...]) -> list[EventDraft]:
    """What people are told of the change."""
    events = [
        EventDraft(after.name, run.id, "Normal", "Relieved", f"run {after.runs[0].id} is ready and takes its place")
        for run in stopped
    ]
    old, new = condition_of(before), condition_of(after)
    if new is None or (old is not None and old.status == new.status):
        return events
    quiet = new.status == "True" or new.reason in ("Starting", "NotRunning")
    reason = "Ready" if new.status == "True" else "NotReady"
    run_id = after.runs[0].id if after.runs else ""
    return [EventDraft(after.name, run_id, "Normal" if quiet else "Warning", reason, new.message), *events]

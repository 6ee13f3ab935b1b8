"""Lasting facts about a job: set by its sources, read off its limits, or derived from its latest run."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from jobletd.model import Condition, JobView, LimitStatus, Phase, ResourceView, Run

_WAITS_FOR = {
    Phase.SCHEDULED: "BackOff",
    Phase.PENDING: "Queued",  # or what its reason says
    Phase.INITIALIZING: "Starting",
    Phase.RUNNING: "Running",
}


View = TypeVar("View", JobView, ResourceView)


def with_condition(view: View, kind: str, status: str, reason: str, message: str, now_ns: int) -> View:
    """The view with one condition set; the same view if it says so already."""
    present = next((condition for condition in view.conditions if condition.type == kind), None)
    if present is not None and (present.status, present.reason, present.message) == (status, reason, message):
        return view
    since_ns = present.since_ns if present is not None and present.status == status else now_ns
    others: tuple[Condition, ...] = tuple(condition for condition in view.conditions if condition.type != kind)
    return replace(view, conditions=(*others, Condition(kind, status, reason, message, since_ns)))


def with_limits_condition(view: JobView, limits: tuple[LimitStatus, ...], now_ns: int) -> JobView:
    """LimitsEnforced: whether each limit that was asked for is in force."""
    if not limits:
        return view
    missing = [
        f"{limit.name}: {limit.message or f'{limit.effective} instead of {limit.asked}'}"
        for limit in limits
        if not limit.enforced
    ]
    if missing:
        return with_condition(view, "LimitsEnforced", "False", "NotEnforced", "; ".join(missing), now_ns)
    return with_condition(view, "LimitsEnforced", "True", "ReadBack", "", now_ns)


def progressing(view: JobView) -> Condition:
    """Progressing: True as long as something is still to come of what was asked for. Derived, since it follows from the runs."""
    if not view.runs:
        spec = view.manifest.spec
        reason = "Suspended" if spec.suspend else "NoRun" if spec.schedule is None else "Scheduled"
        return Condition("Progressing", "False", reason, "", view.updated_ns)
    run = view.runs[0]
    if run.phase.is_final:
        return Condition("Progressing", "False", run.reason or run.phase, run.message, run.ended_ns or run.created_ns)
    if run.stop is not None:
        return Condition("Progressing", "True", "Stopping", run.stop, _since_ns(run))
    reason = run.reason if run.phase in (Phase.PENDING, Phase.SCHEDULED) and run.reason else _WAITS_FOR[run.phase]
    return Condition("Progressing", "True", reason, run.message, _since_ns(run))


def _since_ns(run: Run) -> int:
    last = run.attempts[-1] if run.attempts else None
    if last is None:
        return run.created_ns
    return last.end.ended_ns if last.end is not None else last.started_ns or last.created_ns

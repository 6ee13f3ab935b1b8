"""What the ends of attempts and runs add to the counters."""

from __future__ import annotations

from jobletd.metrics import instruments
from jobletd.model import Attempt, End, Phase, Run


def count_attempt(attempt: Attempt, end: End) -> None:
    """attempt: as it was before its end was seen."""
    instruments.attempts_ended.labels(end.reason).inc()
    if end.started_ns is None:
        return
    instruments.attempt_duration.observe(instruments.seconds_between(end.started_ns, end.ended_ns))
    if attempt.phase is not Phase.RUNNING:  # over before we had seen it run
        instruments.launch_duration.observe(instruments.seconds_between(attempt.created_ns, end.started_ns))


def count_run(run: Run) -> None:
    """An array is one run; its indexes are counted apart from those."""
    ended = instruments.runs_ended if run.index is None else instruments.indexes_ended
    ended.labels(run.phase, run.reason).inc()

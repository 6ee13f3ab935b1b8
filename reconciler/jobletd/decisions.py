"""What is to happen to a run: pure functions of what is on record and the time."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from joblet.manifest import JobSpec, Restart
from jobletd.model import End, Exited, Killed, NotStarted, Outcome, Phase, Reason, Run, Unknown

HEALTHY_NS = 600 * 1_000_000_000
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over."""

    phase: Phase
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt, not before so many nanoseconds since the epoch. reason: why not now."""

    at_ns: int
    reason: Reason = Reason.BACK_OFF


def after_attempt(run: Run, end: End) -> Finish | Retry:
    """What follows the end of the run's last attempt."""
    spec = run.manifest.spec
    succeeded = end.outcome == Exited(0) and end.reason is Reason.COMPLETED
    if succeeded and spec.restart is not Restart.ALWAYS:
        # Also if its stop had been asked for: it was done before that reached it, and is not to run again.
        return Finish(Phase.COMPLETED, Reason.COMPLETED, end.message)
    if run.stop is not None:
        if run.stop is Reason.SHUTDOWN and goes_on_after_shutdown(run):
            return Retry(end.ended_ns, Reason.SHUTDOWN)
        return Finish(Phase.STOPPED, run.stop, end.message)
    failure = Finish(Phase.FAILED, end.reason, end.message)
    if not succeeded and not may_retry(spec, end, retries=run.attempts[-1].number - 1):
        return failure
    at_ns = end.ended_ns + pause_ns(run)
    deadline = deadline_ns(run)
    if deadline is not None and end.ended_ns >= deadline:
        return Finish(Phase.FAILED, Reason.TIMED_OUT, end.message)
    return Retry(at_ns)


def goes_on_after_shutdown(run: Run) -> bool:
    """Whether a run whose attempt the daemon's own shutdown stopped gets another one from the next daemon.

    As after the loss of the host: its exit code says how it took the stop, not how it would have ended.
    """
    cut_short = End(Unknown(""), Reason.SHUTDOWN, 0)
    return may_retry(run.manifest.spec, cut_short, retries=run.attempts[-1].number - 1)


def may_retry(spec: JobSpec, end: End, *, retries: int) -> bool:
    """Whether the rules allow another attempt after this failure.

    Without an exit code (the host was started anew, the attempt was lost) a service goes on; other jobs do unless they named the
    codes after which they may: then nobody said that it is safe.
    """
    if end.reason in (Reason.LIMIT_NOT_ENFORCEABLE, Reason.NOT_ALLOWED):
        return False
    code = exit_code_of(end.outcome)
    if code is None and spec.restart is not Restart.NEVER:
        return True
    if code in spec.retry.never_on_exit_codes:
        return False
    if spec.retry.on_exit_codes and code not in spec.retry.on_exit_codes:
        return False
    return spec.restart is not Restart.NEVER or retries < spec.retry.limit


def pause_ns(run: Run) -> int:
    """initial, doubled with each further attempt, at most max; a service that was healthy for 10 minutes begins anew."""
    retry = run.manifest.spec.retry
    attempts = 0
    for attempt in reversed(run.attempts):
        attempts += 1
        if run.manifest.spec.restart is not Restart.NEVER and _was_healthy(attempt.end):
            break
    seconds = min(retry.initial_seconds * 2 ** min(max(attempts - 1, 0), 40), retry.max_seconds)
    return int(seconds * SECOND_NS)


def _was_healthy(end: End | None) -> bool:
    return end is not None and end.started_ns is not None and end.ended_ns - end.started_ns >= HEALTHY_NS


def wait_ns(run: Run, now_ns: int) -> int:
    """How long until the next attempt may begin; 0: it may now.

    More than the longest pause there is means that the wall clock was set back since: then it has waited enough.
    """
    if run.next_attempt_ns is None or run.next_attempt_ns <= now_ns:
        return 0
    wait = run.next_attempt_ns - now_ns
    return wait if wait <= run.manifest.spec.retry.max_seconds * SECOND_NS else 0


def phase_of(run: Run, end: End) -> Phase:
    """The phase in which an attempt ends."""
    if end.reason is Reason.COMPLETED:
        return Phase.COMPLETED
    return Phase.STOPPED if run.stop is not None or end.reason is Reason.STOPPED else Phase.FAILED


def deadline_ns(run: Run) -> int | None:
    """When the run's time is used up: ``timeout`` after its first attempt was begun."""
    timeout = run.manifest.spec.timeout_seconds
    if timeout is None or not run.attempts:
        return None
    return run.attempts[0].created_ns + int(timeout * SECOND_NS)


def exit_code_of(outcome: Outcome | None) -> int | None:
    """As a shell gives it: 128 + n for a signal; None where it is not known."""
    match outcome:
        case Exited(code):
            return code
        case Killed(name):
            return 128 + signal_number(name)
        case NotStarted(code, _):
            return code
        case Unknown() | None:
            return None


def signal_number(name: str) -> int:
    """The number of a signal named as in signal(7)."""
    if name.startswith("SIGRTMIN+"):
        return signal.SIGRTMIN + int(name.removeprefix("SIGRTMIN+"))
    return int(signal.Signals[name])

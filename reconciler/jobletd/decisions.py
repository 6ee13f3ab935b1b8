"""What is to happen to a run: pure functions of what is on record and the time."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from joblet.clock import Moment
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
    """Another attempt, not before so many nanoseconds from now. reason: why not now."""

    wait_ns: int
    reason: Reason = Reason.BACK_OFF


def after_attempt(run: Run, end: End, now: Moment) -> Finish | Retry:
    """What follows the end of the run's last attempt, which is put on record now."""
    spec = run.manifest.spec
    succeeded = end.outcome == Exited(0) and end.reason is Reason.COMPLETED
    if succeeded and spec.restart is not Restart.ALWAYS:
        # Also if its stop had been asked for: it was done before that reached it, and is not to run again.
        return Finish(Phase.COMPLETED, Reason.COMPLETED, end.message)
    if run.stop is not None:
        if run.stop is Reason.SHUTDOWN and goes_on_after_shutdown(run):
            return Retry(0, Reason.SHUTDOWN)
        return Finish(Phase.STOPPED, run.stop, end.message)
    failure = Finish(Phase.FAILED, end.reason, end.message)
    if not succeeded and not may_retry(spec, end, retries=run.attempts[-1].number - 1):
        return failure
    left = left_ns(run, now)
    if left is not None and left <= 0:
        return Finish(Phase.FAILED, Reason.TIMED_OUT, end.message)
    pause = pause_ns(run)
    # Since its end, which its init has from the wall clock: at most all of the pause is over, at least nothing.
    return Retry(pause - min(max(now.wall_ns - end.ended_ns, 0), pause))


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


def wait_ns(run: Run, now: Moment) -> int:
    """How long until the next attempt may begin; 0: it may now.

    After another boot only the wall clock can tell. Then more than the longest pause there is means that it was set back since:
    that is waiting enough.
    """
    if run.next_attempt_ns is None:
        return 0
    if run.next_attempt_boot is not None and run.next_attempt_boot.boot_id == now.boot.boot_id:
        return max(run.next_attempt_boot.ns - now.boot.ns, 0)
    wait = max(run.next_attempt_ns - now.wall_ns, 0)
    return wait if wait <= run.manifest.spec.retry.max_seconds * SECOND_NS else 0


def phase_of(run: Run, end: End) -> Phase:
    """The phase in which an attempt ends."""
    if end.reason is Reason.COMPLETED:
        return Phase.COMPLETED
    return Phase.STOPPED if run.stop is not None or end.reason is Reason.STOPPED else Phase.FAILED


def left_ns(run: Run, now: Moment) -> int | None:
    """What is left of the run's time, which is ``timeout`` from its first attempt on; None: it has no end."""
    timeout = run.manifest.spec.timeout_seconds
    if timeout is None or not run.attempts:
        return None
    first = run.attempts[0]
    return int(timeout * SECOND_NS) - now.since_ns(first.created_ns, first.created_boot)


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

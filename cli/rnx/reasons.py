"""Why a job does not run, or why it ended, in a few sentences: a pure function of what the daemon tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnx.output.documents import stamp
from rnx.output.words import duration, moment, seconds_between, size

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2

FINAL = ("COMPLETED", "FAILED", "STOPPED")
LONGEST_LINE = 200
_STOPPED_BY = {
    "Stopped": "somebody stopped it",
    "Superseded": "its manifest was changed, and a newer run took its place",
    "Deleted": "its manifest was deleted",
    "Suspended": "spec.suspend is true",
    "Shutdown": "the daemon was shut down, and its policy is to stop what runs",
}
_NEXT_STEP = {
    "OOMKilled": "Raise spec.limits.memory, or let it use less.",
    "TimedOut": "Raise spec.timeout or spec.attemptTimeout, or find out what it waited for.",
    "NotAllowed": "Ask for less in spec.isolation, or allow it in the daemon's configuration.",
    "LimitNotEnforceable": "Leave that limit out, or set spec.limits.enforcement: best-effort.",
    "DependencyFailed": "Once that job has ended as it should, rnx run --job or a changed manifest starts this one anew.",
    "Lost": "Nobody knows its exit code; the daemon's log tells what happened to its init.",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """events: oldest first. lines: the last ones of its output. waited_for: the jobs that it depends on."""

    job: job_pb2.Job
    events: Sequence[job_pb2.Event] = ()
    lines: Sequence[str] = ()
    waited_for: Sequence[job_pb2.Job] = ()


def paragraph(facts: Facts) -> str:
    """One paragraph of plain sentences."""
    job = facts.job
    run = job.runs[0] if job.runs else None
    if run is None:
        return " ".join(_no_run(job))
    sentences = _ended(facts, run) if run.phase in FINAL else _open(facts, run)
    return " ".join([*sentences, *_conditions(job)])


def _no_run(job: job_pb2.Job) -> Iterator[str]:
    if job.suspend:
        yield f"Job {job.name} has not run, because spec.suspend is true."
    else:
        yield f"Job {job.name} has no run: nothing has asked for one since its generation {job.generation}."
    yield from _conditions(job)


def _open(facts: Facts, run: job_pb2.Run) -> Iterator[str]:
    job = facts.job
    since = duration(seconds_between(stamp(run, "created"), None))
    if run.phase == "RUNNING":
        age = duration(seconds_between(stamp(run, "started"), None))
        yield f"Job {job.name} runs: its command has been running for {age} (run {run.id}, attempt {_number(run)})."
        yield from _usage(run)
        yield from _earlier_attempts(run)
        return
    if run.phase == "INITIALIZING":
        yield f"Job {job.name} is being started: its sandbox is made just now (run {run.id})."
        return
    if run.phase == "SCHEDULED":
        yield f"Job {job.name} does not run just now: attempt {_number(run)} ended ({run.reason}: {run.message}),"
        yield f"and the next one comes at {moment(stamp(run, 'next_attempt')) or 'once it may'}."
        yield from _earlier_attempts(run)
        yield from _output(facts.lines)
        return
    yield f"Job {job.name} does not run yet: its run {run.id} has been waiting for {since}."
    if run.reason == "Waiting":
        yield f"The reason: {run.message}."
        yield from (_state_of(other) for other in facts.waited_for if f"job {other.name} " in f"{run.message} ")
    elif run.reason == "Cordoned":
        yield f"{run.message}."
    elif run.queue_position:
        yield f"All places for running jobs are taken; it is number {run.queue_position} in the line (spec.priority decides)."
    else:
        yield from (f"The last event says: {event.message}." for event in facts.events[-1:])


def _ended(facts: Facts, run: job_pb2.Run) -> Iterator[str]:
    job = facts.job
    took = duration(seconds_between(stamp(run, "started"), stamp(run, "ended")))
    when = moment(stamp(run, "ended"))
    after = f" after {took}" if took else " without having been started"
    if run.phase == "COMPLETED":
        yield f"Job {job.name} ended well at {when}{after}: its command exited with code 0 (run {run.id})."
        yield from _usage(run)
        yield from _earlier_attempts(run)
        return
    if run.phase == "STOPPED":
        yield f"Job {job.name} was stopped at {when}{after}, because {_STOPPED_BY.get(run.reason, run.reason)} (run {run.id})."
        yield from (f"Its command {run.message.removesuffix(' when stopped')}." for _ in [0] if run.message)
        return
    yield f"Job {job.name} failed at {when}{after} (run {run.id}): {run.reason}{f', {run.message}' if run.message else ''}."
    yield from _usage(run)
    yield from _earlier_attempts(run)
    yield from _output(facts.lines)
    if step := _NEXT_STEP.get(run.reason):
        yield step


def _state_of(other: job_pb2.Job) -> str:
    run = other.runs[0] if other.runs else None
    if run is None:
        return f"(rnx why {other.name} tells about that one.)"
    reason = f", {run.reason}" if run.reason else ""
    more = f": {run.message}" if run.message else ""
    return f"That run is {run.phase}{reason}{more}."


def _usage(run: job_pb2.Run) -> Iterator[str]:
    """The kernel's figures, beside the limits that they are measured by."""
    if not run.attempts or not run.attempts[-1].HasField("usage"):
        return
    attempt = run.attempts[-1]
    usage, limits = attempt.usage, {limit.name: limit.asked for limit in attempt.limits}
    parts = []
    if usage.HasField("memory_peak_bytes"):
        limit = f" of {limits['memory']}" if "memory" in limits else ""
        parts.append(f"at most {size(usage.memory_peak_bytes)}{limit} of memory")
    if usage.HasField("cpu_seconds"):
        parts.append(f"{usage.cpu_seconds:.3f} s of CPU time")
    if usage.HasField("throttled_seconds") and usage.throttled_seconds >= 0.01:
        parts.append(f"held back by its CPU limit for {usage.throttled_seconds:.1f} s")
    if usage.HasField("oom_kills") and usage.oom_kills:
        parts.append(f"with {usage.oom_kills} process(es) killed by the kernel for want of memory")
    if parts:
        yield f"It used {', '.join(parts)}."


def _earlier_attempts(run: job_pb2.Run) -> Iterator[str]:
    ended = [attempt for attempt in run.attempts[:-1] if attempt.reason]
    if ended:
        last = ended[-1]
        yield f"It was attempt {_number(run)}; the one before ended with {last.reason} ({last.message})."


def _output(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        quoted = " / ".join(line[:LONGEST_LINE] for line in lines)
        yield f'The last it wrote: "{quoted}".'
    else:
        yield "It wrote nothing."


def _conditions(job: job_pb2.Job) -> Iterator[str]:
    """What is not as it should be beside the run."""
    for one in job.conditions:
        good = "False" if one.type in ("Conflict", "Drifted") else "True"
        if one.type != "Progressing" and one.status != good:
            yield f"Besides, {one.type} is {one.status} ({one.reason}): {one.message}."
    if job.deleting:
        yield "It is being deleted."


def _number(run: job_pb2.Run) -> int:
    return run.attempts[-1].number if run.attempts else 0

"""Why a job does not run, or why it ended, in a few sentences: a pure function of what the daemon tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnx.output.arrays import summary
from rnx.output.documents import stamp
from rnx.output.words import duration, moment, seconds_between, size

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2, resource_pb2

FINAL = ("COMPLETED", "FAILED", "STOPPED")
LONGEST_LINE = 200
_STOPPED_BY = {
    "Stopped": "somebody stopped it",
    "Superseded": "its manifest was changed, and a newer run took its place",
    "Deleted": "its manifest was deleted",
    "Suspended": "spec.suspend is true",
    "NotNeeded": "the outcome of its array was sure without it",
    "Replaced": "the next run of its schedule took its place (overlap: Replace)",
    "Missed": "its startingDeadline was over before it could begin",
    "Shutdown": "the daemon was shut down, and its policy is to stop what runs",
}
_NEXT_STEP = {
    "OOMKilled": "Raise spec.limits.memory, or let it use less.",
    "TimedOut": "Raise spec.timeout or spec.attemptTimeout, or find out what it waited for.",
    "NotAllowed": "Ask for less in spec.isolation, or allow it in the daemon's configuration.",
    "LimitNotEnforceable": "Leave that limit out, or set spec.limits.enforcement: best-effort.",
    "DependencyFailed": "Once that job has ended as it should, rnx run --job or a changed manifest starts this one anew.",
    "NodeLost": "spec.retry lets such a run begin anew on another node; rnx get nodes shows how the nodes are.",
    "Lost": "Nobody knows its exit code; the daemon's log tells what happened to its init.",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """events: oldest first. lines: the last ones of its output, or of the first of the failed indexes. waited_for: the jobs that
    it depends on."""

    job: job_pb2.Job
    events: Sequence[job_pb2.Event] = ()
    lines: Sequence[str] = ()
    failed: Sequence[job_pb2.Index] = ()
    waited_for: Sequence[job_pb2.Job] = ()


def paragraph(facts: Facts) -> str:
    """One paragraph of plain sentences."""
    job = facts.job
    run = job.runs[0] if job.runs else None
    if run is None:
        return " ".join(_no_run(job))
    if run.HasField("array") and (run.phase in FINAL or run.phase == "RUNNING"):
        sentences = _array(facts, run)
    else:
        sentences = _ended(facts, run) if run.phase in FINAL else _open(facts, run)
    return " ".join([*sentences, *_to_come(job), *_conditions(job)])


def workflow_paragraph(workflow: resource_pb2.Resource) -> str:
    """The same of a workflow, from how its steps stand."""
    return " ".join(_workflow(workflow))


def _workflow(workflow: resource_pb2.Resource) -> Iterator[str]:
    status, name = workflow.status, workflow.name
    phase, number = status.get("phase", ""), status.get("run", "")
    states = {
        "Running": "runs",
        "Succeeded": "ended well",
        "Failed": "failed",
        "Stopping": "is being stopped",
        "Stopped": "was stopped",
        "Suspended": "does not run, because spec.suspend is true",
    }
    if not number:
        why = f" {states[phase]}" if phase == "Suspended" else " has not run yet"
        yield f"Workflow {name}{why}."
    else:
        yield f"Workflow {name} {states.get(phase, phase)} (run {number}, {status.get('steps', '')} steps over)."
    for step in workflow.steps:
        if step.phase in ("COMPLETED", "WAITING"):
            continue
        told = ": ".join(filter(None, (step.reason, step.message)))
        more = (
            f"; rnx why {step.job} tells more" if step.phase in ("FAILED", "STOPPED", "PENDING") and step.run_id else ""
        )
        yield f"Step {step.name} is {step.phase}{f' ({told})' if told else ''}{more}."
    if status.get("waiting"):
        yield f"{status['waiting']} more runs wait for its end."
    if status.get("next"):
        yield f"Its schedule runs it next at {status['next']}."
    for one in workflow.conditions:
        if one.status != "True":
            yield f"Besides, {one.type} is {one.status} ({one.reason}): {one.message}."


def _to_come(job: job_pb2.Job) -> Iterator[str]:
    if job.HasField("next_tick"):
        yield f"Its schedule runs it next at {moment(job.next_tick)}."


def _no_run(job: job_pb2.Job) -> Iterator[str]:
    if job.suspend:
        yield f"Job {job.name} has not run, because spec.suspend is true."
    elif job.HasField("next_tick"):
        yield f"Job {job.name} has not run yet."
        yield from _to_come(job)
    else:
        yield f"Job {job.name} has no run: nothing has asked for one since its generation {job.generation}."
    yield from _conditions(job)


def _open(facts: Facts, run: job_pb2.Run) -> Iterator[str]:
    name = _name(facts.job, run)
    since = duration(seconds_between(stamp(run, "created"), None))
    if run.phase == "RUNNING":
        age = duration(seconds_between(stamp(run, "started"), None))
        yield f"{name} runs: its command has been running for {age} (run {run.id}, attempt {_number(run)})."
        yield from _usage(run)
        yield from _earlier_attempts(run)
        return
    if run.phase == "INITIALIZING" and (run.message or (run.attempts and run.attempts[-1].engine)):
        where = f"{run.attempts[-1].engine}'s" if run.attempts[-1].engine else "its executor's"
        yield f"{name} has been in {where} hands for {since} (run {run.id}) and does not run yet."
        if run.message:
            yield f"It {run.message}." if run.message.startswith("waits") else f"The reason: {run.message}."
        return
    if run.phase == "INITIALIZING":
        yield f"{name} is being started: its sandbox is made just now (run {run.id})."
        return
    if run.phase == "SCHEDULED":
        yield f"{name} does not run just now: attempt {_number(run)} ended ({run.reason}: {run.message}),"
        yield f"and the next one comes at {moment(stamp(run, 'next_attempt')) or 'once it may'}."
        yield from _earlier_attempts(run)
        yield from _output(facts.lines)
        return
    yield f"{name} does not run yet: its run {run.id} has been waiting for {since}."
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
    name = _name(facts.job, run)
    took = duration(seconds_between(stamp(run, "started"), stamp(run, "ended")))
    when = moment(stamp(run, "ended"))
    after = f" after {took}" if took else " without having been started"
    if run.phase == "COMPLETED":
        yield f"{name} ended well at {when}{after}: its command exited with code 0 (run {run.id})."
        yield from _usage(run)
        yield from _earlier_attempts(run)
        return
    if run.phase == "STOPPED":
        yield f"{name} was stopped at {when}{after}, because {_STOPPED_BY.get(run.reason, run.reason)} (run {run.id})."
        yield from (f"Its command {run.message.removesuffix(' when stopped')}." for _ in [0] if run.message)
        return
    yield f"{name} failed at {when}{after} (run {run.id}): {run.reason}{f', {run.message}' if run.message else ''}."
    yield from _usage(run)
    yield from _earlier_attempts(run)
    yield from _output(facts.lines)
    if step := _NEXT_STEP.get(run.reason):
        yield step


def _array(facts: Facts, run: job_pb2.Run) -> Iterator[str]:
    """Of an array that has begun: how many indexes came to what, and which ones failed, why."""
    job, array = facts.job, run.array
    told = summary(array)
    if run.phase == "RUNNING":
        age = duration(seconds_between(stamp(run, "started"), None))
        yield f"Job {job.name} has been running its {array.count} indexes for {age} (run {run.id}): {told}."
        if array.waiting and not array.running:
            yield f"None of them runs just now: {run.message or 'they wait for a free place, or for their next attempt'}."
    else:
        when, took = moment(stamp(run, "ended")), duration(seconds_between(stamp(run, "started"), stamp(run, "ended")))
        how = {"COMPLETED": "ended well", "FAILED": "failed"}.get(run.phase, "was stopped")
        why = f", because {_STOPPED_BY.get(run.reason, run.reason)}" if run.phase == "STOPPED" else ""
        yield f"Job {job.name} {how} at {when}{f' after {took}' if took else ''}{why} (run {run.id}): {told}."
    if array.needed < array.count:
        yield f"It needs {array.needed} of them."
    if array.skipped and run.phase == "COMPLETED":
        yield "What was not needed any more was stopped, or never began."
    if array.failed_indexes:
        yield f"Failed: {array.failed_indexes}."
        for one in facts.failed:
            message = f", {one.run.message}" if one.run.message else ""
            yield f"Index {one.index} (run {one.run.id}): {one.run.reason}{message}."
        yield from _output(facts.lines)
    if array.stopped_indexes:
        yield f"Stopped: {array.stopped_indexes}."
    if run.phase in ("FAILED", "STOPPED"):
        yield f"rnx retry {job.name} runs anew what did not succeed."


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
        count = "1 process" if usage.oom_kills == 1 else f"{usage.oom_kills} processes"
        parts.append(f"with {count} killed by the kernel for want of memory")
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


def _name(job: job_pb2.Job, run: job_pb2.Run) -> str:
    return f"Index {run.index} of job {job.name}" if run.HasField("index") else f"Job {job.name}"


def _number(run: job_pb2.Run) -> int:
    return run.attempts[-1].number if run.attempts else 0

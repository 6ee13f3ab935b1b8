"""A run as ``Key: value`` lines: the form that people read and scripts have grepped since Go Joblet."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rnx.output.arrays import array_lines
from rnx.output.documents import stamp
from rnx.output.table import aligned
from rnx.output.terminal import PHASE_STYLES, printable, styled
from rnx.output.words import duration, moment, seconds_between, size

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2

_WIDTH = 14
NO_PRESSURE = "unavailable: the host tells it only with cgroup v2 and PSI"


def line(key: str, value: str) -> str:
    """``Key:          value``."""
    return f"{key + ':':<{_WIDTH}} {value}".rstrip()


def command_text(run: job_pb2.Run) -> str:
    """The command as one would type it; a script as the daemon names it."""
    words = list(run.command)
    return printable(" ".join(words) if words[:1] == ["script:"] else shlex.join(words))


def accepted_lines(run: job_pb2.Run) -> Iterator[str]:
    """What ``rnx run`` answers with."""
    yield line("ID", run.id)
    yield line("Command", command_text(run))
    yield line("Status", run.phase)
    yield line("StartTime", moment(stamp(run, "started") or stamp(run, "created")))


def awaited_lines(job: job_pb2.Job) -> Iterator[str]:
    """What ``rnx run --schedule`` answers with: the job has no run yet."""
    yield line("ID", job.name)
    yield line("Status", phase_of(job))
    yield line("StartTime", moment(stamp(job, "next_tick")))


def phase_of(job: job_pb2.Job) -> str:
    """That of its latest run; without one SCHEDULED, if there is a tick to come."""
    if job.runs:
        return job.runs[0].phase
    return "SCHEDULED" if job.HasField("next_tick") else ""


def status_lines(job: job_pb2.Job, run: job_pb2.Run | None) -> Iterator[str]:
    """All about a run and what its job says beside it."""
    yield line("ID", run.id if run else "-")
    yield line("Job", job.name)
    if run is None:
        phase = phase_of(job) or "-"
        yield line("Status", styled(phase, PHASE_STYLES.get(phase, "")))
        if phase == "-":
            yield line("Reason", "Suspended" if job.suspend else "NoRun")
    else:
        yield from _run_lines(run)
    if job.HasField("next_tick"):
        yield line("Next Run", moment(job.next_tick))
    generation = str(run.generation if run else job.generation)
    if run is not None and run.generation != job.generation:
        generation += f" (the job's is {job.generation})"
    yield line("Generation", generation)
    yield line("Source", printable(job.source))
    if run is not None and run.trace_id:
        yield line("Trace", run.trace_id)
    if run is not None and run.attempts:
        yield from attempt_lines(run.attempts[-1])
    for condition in job.conditions:
        if is_remarkable(condition):
            yield line(
                "Condition", printable(f"{condition.type}={condition.status} {condition.reason}: {condition.message}")
            )


def is_remarkable(condition: job_pb2.Condition) -> bool:
    """Whether a condition tells of something that is not as it should be."""
    good = "False" if condition.type in ("Conflict", "Drifted") else "True"
    return condition.status != good and condition.type != "Progressing"


def _run_lines(run: job_pb2.Run) -> Iterator[str]:
    started, ended = stamp(run, "started"), stamp(run, "ended")
    if run.HasField("index"):
        yield line("Index", f"{run.index} of run {run.array_run}")
    yield line("Command", command_text(run))
    yield line("Status", styled(run.phase, PHASE_STYLES.get(run.phase, "")))
    if run.reason:
        yield line("Reason", run.reason)
    if run.message:
        yield line("Message", printable(run.message))
    if run.queue_position:
        yield line("Queue", f"place {run.queue_position}")
    if run.HasField("tick"):
        yield line("Scheduled", moment(run.tick))
    yield line("Created", moment(stamp(run, "created")))
    yield line("Started", moment(started))
    yield line("Ended", moment(ended))
    yield line("Duration", duration(seconds_between(started, ended)))
    if run.HasField("array"):
        yield from (line(key, value) for key, value in array_lines(run.array))
        return
    yield line("Exit Code", str(run.exit_code) if run.HasField("exit_code") else "")
    if run.signal:
        yield line("Signal", run.signal)
    yield line("Attempts", str(len(run.attempts)))
    for name, text in sorted(run.outputs.items()):
        yield line("Output", printable(f"{name}={text}"))
    if run.HasField("next_attempt"):
        yield line("Next Attempt", moment(run.next_attempt))


def usage_lines(attempt: job_pb2.Attempt, usage: job_pb2.Usage) -> Iterator[str]:
    """What it uses, or used."""
    if usage.HasField("memory_bytes") and not attempt.HasField("ended"):
        yield line("Memory", size(usage.memory_bytes))
    if attempt.HasField("usage_read"):
        yield line("Usage Read", moment(stamp(attempt, "usage_read")))
    if usage.HasField("memory_peak_bytes"):
        yield line("Memory Peak", size(usage.memory_peak_bytes))
    if usage.HasField("cpu_seconds"):
        yield line("CPU Time", f"{usage.cpu_seconds:.3f}s")
    if usage.HasField("throttled_seconds") and usage.throttled_seconds:
        yield line("Throttled", f"{usage.throttled_seconds:.3f}s")
    if usage.HasField("cpu_seconds"):  # where nothing is known, this is not either
        yield line("Pressure", waits(usage) or NO_PRESSURE)
    if usage.HasField("pids") and not attempt.HasField("ended"):
        yield line("Processes", str(usage.pids))
    if usage.HasField("io_read_bytes") and usage.HasField("io_write_bytes"):
        yield line("I/O", f"{size(usage.io_read_bytes)} read, {size(usage.io_write_bytes)} written")
    if usage.HasField("oom_kills") and usage.oom_kills:
        yield line("OOM Kills", str(usage.oom_kills))


def attempt_lines(attempt: job_pb2.Attempt) -> Iterator[str]:
    """Where it is, use and limits of an attempt."""
    if attempt.engine:
        yield line("Node", printable(attempt.node) or "-")
        yield line(f"{attempt.engine.capitalize()} Job", printable(attempt.engine_job) or "-")
    if attempt.HasField("usage"):
        yield from usage_lines(attempt, attempt.usage)
    if attempt.limits:
        yield "Limits:"
        rows = [
            [one.name, f"asked {one.asked}", f"effective {one.effective or '-'}", _enforcement(one)]
            for one in attempt.limits
        ]
        yield from (f"  {printable(text)}" for text in aligned(rows))


def waits(usage: job_pb2.Usage) -> str:
    """How long something of it had to wait for what; nothing if the host does not tell."""
    told = {"cpu": "cpu_pressure_seconds", "memory": "memory_pressure_seconds", "I/O": "io_pressure_seconds"}
    return ", ".join(f"{name} {getattr(usage, field):.3f}s" for name, field in told.items() if usage.HasField(field))


def _enforcement(limit: job_pb2.Limit) -> str:
    if limit.enforced:
        return limit.message
    return f"NOT ENFORCED: {limit.message}" if limit.message else "NOT ENFORCED"

"""The daemon's types as messages of the API."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from joblet.api.v1 import job_pb2
from joblet.manifest import RecentTexts, indexes_of, needed_of, to_yaml
from jobletd import model
from jobletd.arrays.index_names import as_written
from jobletd.arrays.index_runs import job_part
from jobletd.arrays.progress import Mark, named
from jobletd.arrays.requests import ShownIndex
from jobletd.decisions import exit_code_of

_recent = RecentTexts(to_yaml)  # each change of a job is told with all of it


def timestamp(nanoseconds: int | None) -> Timestamp | None:
    if nanoseconds is None:
        return None
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def job(view: model.JobView) -> job_pb2.Job:
    return job_pb2.Job(
        name=view.name,
        uid=view.uid,
        labels=view.manifest.metadata.labels,
        annotations=view.manifest.metadata.annotations,
        generation=view.generation,
        observed_generation=view.observed_generation,
        source=str(view.source),
        suspend=view.manifest.spec.suspend,
        deleting=view.deleting,
        created=timestamp(view.created_ns),
        updated=timestamp(view.updated_ns),
        manifest=_recent.of(view.manifest),
        conditions=[condition(one) for one in view.conditions],
        runs=[run(one) for one in view.runs],
        next_tick=timestamp(view.next_tick_ns),
    )


def condition(one: model.Condition) -> job_pb2.Condition:
    return job_pb2.Condition(
        type=one.type, status=one.status, reason=one.reason, message=one.message, since=timestamp(one.since_ns)
    )


def run(one: model.Run) -> job_pb2.Run:
    return job_pb2.Run(
        id=one.id,
        job=job_part(one.job),
        generation=one.generation,
        trigger=one.trigger,
        phase=one.phase,
        reason=one.reason or "",
        message=one.message,
        created=timestamp(one.created_ns),
        started=timestamp(one.started_ns),
        ended=timestamp(one.ended_ns),
        exit_code=exit_code_of(one.outcome) if one.phase.is_final else None,
        signal=signal_of(one.outcome),
        queue_position=one.queue_position,
        command=command_of(one),
        attempts=[attempt(each) for each in one.attempts],
        next_attempt=timestamp(one.next_attempt_ns),
        tick=timestamp(None if one.tick_seconds is None else one.tick_seconds * 10**9),
        outputs=outputs_of(one),
        trace_id=one.trace.context.trace_id if one.trace is not None and one.trace.context.sampled else "",
        array=array_status(one) if one.marks else None,
        index=one.index,
        array_run=one.job_uid if one.index is not None else "",
    )


def array_status(one: model.Run) -> job_pb2.ArrayStatus:
    spec, marks = one.manifest.spec, one.marks
    indexes = indexes_of(spec)
    assert indexes is not None and spec.array is not None
    return job_pb2.ArrayStatus(
        first=indexes.first,
        count=len(marks),
        **{mark.name.lower(): marks.count(mark) for mark in Mark},
        needed=needed_of(spec, len(marks)),
        parallel=spec.array.parallel,
        failed_indexes=named(marks, indexes.first, Mark.FAILED),
        stopped_indexes=named(marks, indexes.first, Mark.STOPPED),
    )


def index(shown: ShownIndex) -> job_pb2.Index:
    return job_pb2.Index(
        index=shown.index,
        state=shown.mark.name,
        values=shown.values,
        run=None if shown.run is None else run(shown.run),
    )


def outputs_of(one: model.Run) -> Mapping[str, str]:
    end = one.attempts[-1].end if one.attempts else None
    return {} if end is None else end.outputs


def command_of(one: model.Run) -> list[str]:
    """For people: the argv; of a script its first line that says something."""
    spec = one.manifest.spec
    if spec.script is None:
        return list(spec.command or ())
    lines = (line.strip() for line in spec.script.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return ["script:", first[:60]]


def attempt(each: model.Attempt) -> job_pb2.Attempt:
    end = each.end
    used = end.usage if end is not None else each.usage
    place = (end.place if end is not None else each.place) or model.Place("")
    return job_pb2.Attempt(
        id=each.id,
        number=each.number,
        phase=each.phase,
        reason=end.reason if end else "",
        message=end.message if end else "",
        started=timestamp(each.started_ns),
        ended=timestamp(end.ended_ns) if end else None,
        exit_code=exit_code_of(end.outcome) if end else None,
        signal=signal_of(end.outcome) if end else "",
        usage=usage(used) if used is not None else None,
        usage_read=timestamp(each.usage_ns) if end is None else None,
        limits=[
            job_pb2.Limit(
                name=limit.name,
                asked=limit.asked,
                effective=limit.effective,
                enforced=limit.enforced,
                message=limit.message,
            )
            for limit in each.limits
        ],
        engine=place.engine,
        engine_job=place.job,
        node=place.node,
    )


def usage(used: model.Usage) -> job_pb2.Usage:
    return job_pb2.Usage(
        memory_bytes=used.memory_bytes,
        memory_peak_bytes=used.memory_peak_bytes,
        cpu_seconds=used.cpu_seconds,
        throttled_seconds=used.throttled_seconds,
        pids=used.pids,
        io_read_bytes=used.io_read_bytes,
        io_write_bytes=used.io_write_bytes,
        oom_kills=used.oom_kills,
        cpu_pressure_seconds=used.cpu_pressure_seconds,
        memory_pressure_seconds=used.memory_pressure_seconds,
        io_pressure_seconds=used.io_pressure_seconds,
    )


def signal_of(outcome: model.Outcome | None) -> str:
    return outcome.signal if isinstance(outcome, model.Killed) else ""


def apply_result(result: model.ApplyResult, *, dry_run: bool) -> job_pb2.ApplyResult:
    """run_id: a dry run that would start a run cannot name it."""
    return job_pb2.ApplyResult(
        name=result.desired.metadata.name,
        kind=result.desired.kind,
        action=result.action,
        generation=result.generation,
        consequence=result.consequence,
        run_id="" if dry_run and result.action is not model.Action.UNCHANGED else result.run_id or "",
        current_manifest=to_yaml(result.current) if result.current else "",
        desired_manifest=to_yaml(result.desired),
    )


def event(one: model.Event) -> job_pb2.Event:
    return job_pb2.Event(
        id=one.id,
        job=as_written(one.job),
        run_id=one.run_id,
        type=one.type,
        reason=one.reason,
        message=one.message,
        count=one.count,
        first=timestamp(one.first_ns),
        last=timestamp(one.last_ns),
    )


def log_entry(entry: model.LogEntry) -> job_pb2.LogEntry:
    return job_pb2.LogEntry(
        time_ns=entry.time_ns,
        stream=entry.stream,
        data=entry.data,
        partial=entry.partial,
        attempt=entry.attempt,
    )

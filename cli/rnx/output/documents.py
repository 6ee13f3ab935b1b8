"""Jobs, runs, events and nodes as plain data for ``-o json`` and ``-o yaml``. The keys are a contract with scripts.

Every key is always there; what is not known or does not apply is null. Times are RFC 3339 in UTC, sizes are bytes.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rnx.output.words import exact_moment, seconds_between

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from joblet.api.v1 import job_pb2, node_pb2


def print_json(data: Any) -> None:
    """One JSON document, indented."""
    print(json.dumps(data, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf")))


def print_yaml(data: Any) -> None:
    """One YAML document; of a list one document an item."""
    from joblet.manifest.yaml_writer import yaml_text

    for index, item in enumerate(data if isinstance(data, list) else [data]):
        print("---\n" * (index > 0) + yaml_text(item), end="")


def job_data(job: job_pb2.Job) -> dict[str, Any]:
    """A job: its manifest as it was written, and ``status`` beside it."""
    return {
        **(manifest_data(job.manifest) if job.manifest else {"metadata": {"name": job.name}}),
        "status": {
            "uid": job.uid,
            "source": job.source,
            "generation": job.generation,
            "observedGeneration": job.observed_generation,
            "suspended": job.suspend,
            "nextTick": time_of(job, "next_tick"),
            "deleting": job.deleting,
            "created": time_of(job, "created"),
            "updated": time_of(job, "updated"),
            "conditions": [
                {
                    "type": one.type,
                    "status": one.status,
                    "reason": one.reason,
                    "message": one.message,
                    "since": time_of(one, "since"),
                }
                for one in job.conditions
            ],
            "runs": [run_data(run) for run in job.runs],
        },
    }


def manifest_data(text: str) -> dict[str, Any]:
    """A manifest that the daemon sent, as it is, so that fields which only a newer daemon knows pass."""
    import yaml

    data: dict[str, Any] = yaml.safe_load(text)  # what to_yaml() wrote means the same in every version of YAML
    return data


def listed_data(job: job_pb2.Job) -> dict[str, Any]:
    """One line of ``rnx list``: the latest run with the job's name and labels."""
    awaited = "SCHEDULED" if job.HasField("next_tick") else None
    run = run_data(job.runs[0]) if job.runs else {"id": None, "status": awaited}
    run.pop("attempts", None)
    return {
        **run,
        "nextTick": time_of(job, "next_tick"),
        "name": job.name,
        "labels": dict(job.labels),
        "suspended": job.suspend,
        "source": job.source,
    }


def run_data(run: job_pb2.Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "job": run.job,
        "generation": run.generation,
        "trigger": run.trigger,
        "command": list(run.command),
        "status": run.phase,
        "reason": run.reason or None,
        "message": run.message or None,
        "created": time_of(run, "created"),
        "started": time_of(run, "started"),
        "ended": time_of(run, "ended"),
        "durationSeconds": seconds_between(stamp(run, "started"), stamp(run, "ended")),
        "exitCode": run.exit_code if run.HasField("exit_code") else None,
        "signal": run.signal or None,
        "queuePosition": run.queue_position or None,
        "nextAttempt": time_of(run, "next_attempt"),
        "tick": time_of(run, "tick"),
        "outputs": dict(sorted(run.outputs.items())),
        "traceId": run.trace_id or None,
        "array": array_data(run.array) if run.HasField("array") else None,
        "index": run.index if run.HasField("index") else None,
        "arrayRun": run.array_run or None,
        "attempts": [attempt_data(attempt) for attempt in run.attempts],
    }


def array_data(array: job_pb2.ArrayStatus) -> dict[str, Any]:
    return {
        "first": array.first,
        "count": array.count,
        "needed": array.needed,
        "parallel": array.parallel,
        "succeeded": array.succeeded,
        "running": array.running,
        "waiting": array.waiting,
        "notBegun": array.not_begun,
        "failed": array.failed,
        "stopped": array.stopped,
        "skipped": array.skipped,
        "failedIndexes": array.failed_indexes,
        "stoppedIndexes": array.stopped_indexes,
    }


def attempt_data(attempt: job_pb2.Attempt) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "number": attempt.number,
        "status": attempt.phase,
        "reason": attempt.reason or None,
        "message": attempt.message or None,
        "started": time_of(attempt, "started"),
        "ended": time_of(attempt, "ended"),
        "exitCode": attempt.exit_code if attempt.HasField("exit_code") else None,
        "signal": attempt.signal or None,
        "executor": attempt.engine or None,
        "executorJob": attempt.engine_job or None,
        "node": attempt.node or None,
        "usage": usage_data(attempt.usage) if attempt.HasField("usage") else None,
        "usageRead": time_of(attempt, "usage_read"),
        "limits": [
            {
                "name": one.name,
                "asked": one.asked,
                "effective": one.effective,
                "enforced": one.enforced,
                "message": one.message or None,
            }
            for one in attempt.limits
        ],
    }


def usage_data(usage: job_pb2.Usage) -> dict[str, Any]:
    names = {
        "memoryBytes": "memory_bytes",
        "memoryPeakBytes": "memory_peak_bytes",
        "cpuSeconds": "cpu_seconds",
        "throttledSeconds": "throttled_seconds",
        "pids": "pids",
        "ioReadBytes": "io_read_bytes",
        "ioWriteBytes": "io_write_bytes",
        "oomKills": "oom_kills",
        "cpuPressureSeconds": "cpu_pressure_seconds",
        "memoryPressureSeconds": "memory_pressure_seconds",
        "ioPressureSeconds": "io_pressure_seconds",
    }
    return {key: getattr(usage, field) if usage.HasField(field) else None for key, field in names.items()}


def event_data(event: job_pb2.Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "job": event.job,
        "run": event.run_id or None,
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "count": event.count,
        "first": time_of(event, "first"),
        "last": time_of(event, "last"),
    }


def node_data(node: node_pb2.Node) -> dict[str, Any]:
    return {
        "hostname": node.hostname,
        "version": node.version,
        "labels": dict(node.labels),
        "kernel": node.kernel,
        "architecture": node.architecture,
        "started": time_of(node, "started"),
        "cpus": node.cpus,
        "memoryBytes": node.memory_bytes,
        "memoryAvailableBytes": node.memory_available_bytes,
        "cgroupMode": node.cgroup_mode,
        "cordon": {"since": time_of(node.cordon, "since"), "by": node.cordon.by, "reason": node.cordon.reason}
        if node.HasField("cordon")
        else None,
        "maxConcurrentJobs": node.max_concurrent_jobs or None,
        "maxConcurrentPerSource": node.max_concurrent_per_source or None,
        "runningJobs": node.running_jobs,
        "queuedJobs": node.queued_jobs,
        "certificateExpires": time_of(node, "certificate_expires"),
        "conditions": [
            {"type": one.type, "status": one.status, "reason": one.reason, "message": one.message}
            for one in node.conditions
        ],
        "features": [{"name": one.name, "available": one.available, "detail": one.detail} for one in node.features],
        "executors": [
            {
                "name": one.name,
                "available": one.available,
                "reason": one.reason or None,
                "pending": one.pending,
                "running": one.running,
            }
            for one in node.executors
        ],
    }


def engine_node_data(one: node_pb2.EngineNode) -> dict[str, Any]:
    return {
        "name": one.name,
        "executor": one.engine,
        "state": one.state,
        "reason": one.reason or None,
        "partitions": list(one.partitions),
        "cpus": one.cpus,
        "cpusUsed": one.cpus_used,
        "load": one.load if one.HasField("load") else None,
        "memoryBytes": one.memory_bytes,
        "memoryUsedBytes": one.memory_used_bytes,
    }


def stamp(message: Message, field: str) -> Timestamp | None:
    """A timestamp of a message, or None if it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def time_of(message: Message, field: str) -> str | None:
    found = stamp(message, field)
    return exact_moment(found.seconds * 1_000_000_000 + found.nanos) if found is not None else None

"""``joblet report``: how the daemon and its jobs are doing, as text for people or as JSON."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from joblet.api.v1 import operation_pb2
from joblet.config.server import load_server_config
from joblet.errors import JobletError
from joblet.manifest.quantities import parse_duration
from jobletd.local_call import is_running, report_of_daemon
from jobletd.logging_setup import escaped

OK, NOT_RUNNING = 0, 3  # 3 as systemctl status says it


class BadTime(JobletError):
    """--since is no duration."""


def report(config: str | None, env: Mapping[str, str], *, json_output: bool, since: str) -> int:
    """Print it; returns the exit status. Raises JobletError."""
    try:
        seconds = int(parse_duration(since))
    except ValueError as error:
        raise BadTime(str(error), where="--since") from error
    socket_path = load_server_config(config, env).socket_path
    if not is_running(socket_path):
        print(json.dumps({"service": {"state": "not running"}}, indent=2) if json_output else "service: not running")
        return NOT_RUNNING
    found = report_of_daemon(socket_path, max(seconds, 1))
    print(json.dumps(as_json(found), indent=2) if json_output else "\n".join(as_text(found)))
    return OK


def as_json(found: operation_pb2.ReportResponse) -> dict[str, Any]:
    """Sizes in bytes, times in RFC 3339, durations in seconds; null: the host cannot tell."""
    node = found.node
    daemon = found.processes[0] if found.processes else operation_pb2.ProcessUse()
    return {
        "time": moment(found.time),
        "service": {
            "state": "running",
            "pid": daemon.pid,
            "version": node.version,
            "hostname": node.hostname,
            "started": moment(node.started),
            "uptime_seconds": found.time.seconds - node.started.seconds,
            "log_level": found.log_level,
            "cordoned": node.HasField("cordon"),
            "certificate_expires": moment(node.certificate_expires),
            "conditions": [
                {"type": one.type, "status": one.status, "reason": one.reason, "message": one.message}
                for one in node.conditions
            ],
        },
        "memory_bytes": sum(one.memory_bytes for one in found.processes),
        "tasks": sum(one.tasks for one in found.processes),
        "processes": [
            {
                "pid": one.pid,
                "name": one.name,
                "memory_bytes": one.memory_bytes,
                "tasks": one.tasks,
                "cpu_seconds": round(one.cpu_seconds, 3),
            }
            for one in found.processes
        ],
        "host": {
            "cpus": node.cpus,
            "memory_bytes": node.memory_bytes,
            "memory_available_bytes": node.memory_available_bytes,
            "state_free_bytes": found.state_free_bytes,
            "database_bytes": found.database_bytes,
        },
        "jobs": {
            "declared": found.declared_jobs,
            "running": node.running_jobs,
            "queued": node.queued_jobs,
            "active": [active_job(one, found.time) for one in found.jobs],
        },
        "ended": {
            "since_seconds": found.since_seconds,
            "runs": [
                {
                    "phase": one.phase,
                    "reason": one.reason,
                    "count": one.count,
                    "mean_seconds": round(one.mean_seconds, 3),
                }
                for one in found.ended
            ],
        },
        "connections": [
            {"client": one.client, "role": one.role or None, "address": one.address} for one in found.connections
        ],
        "errors": [{"time": one.time, "level": one.level, "text": one.text} for one in found.errors],
    }


def active_job(one: operation_pb2.ActiveJob, now: Timestamp) -> dict[str, Any]:
    def told(field: str) -> Any:
        return getattr(one, field) if one.HasField(field) else None

    return {
        "job": one.job,
        "run": one.run_id,
        "seconds": max(now.seconds - one.started.seconds, 0),
        "memory_bytes": told("memory_bytes"),
        "memory_peak_bytes": told("memory_peak_bytes"),
        "cpu_seconds": told("cpu_seconds"),
        "tasks": told("pids"),
    }


def as_text(found: operation_pb2.ReportResponse) -> Iterator[str]:
    """Lines for people; the same facts as in ``as_json``."""
    data = as_json(found)
    service, host, jobs, ended = data["service"], data["host"], data["jobs"], data["ended"]
    yield f"Report of {service['hostname']}, {data['time']}"
    yield ""
    yield f"service:     running since {service['started']}, pid {service['pid']}, version {service['version']}"
    free = size(host["memory_available_bytes"])
    yield f"memory:      {size(data['memory_bytes'])} of {size(host['memory_bytes'])}, of which {free} are free"
    yield f"tasks:       {data['tasks']}"
    yield f"disk:        {size(host['state_free_bytes'])} free, database {size(host['database_bytes'])}"
    yield f"log level:   {service['log_level']}"
    yield f"certificate: until {service['certificate_expires']}"
    yield f"jobs:        {jobs['running']} running, {jobs['queued']} queued, {jobs['declared']} declared" + (
        "; cordoned" if service["cordoned"] else ""
    )
    wrong = [one for one in service["conditions"] if one["reason"] not in ("", "Fine") and one["message"]]
    for one in wrong:
        yield f"condition:   {one['type']} {one['reason']}: {escaped(one['message'])}"
    yield from table(
        "Processes of the daemon",
        ("NAME", "PID", "MEMORY", "TASKS", "CPU"),
        [
            (one["name"], one["pid"], size(one["memory_bytes"]), one["tasks"], f"{one['cpu_seconds']:.1f}s")
            for one in data["processes"]
        ],
    )
    yield from table(
        "Active jobs",
        ("JOB", "RUN", "FOR", "MEMORY", "PEAK", "CPU", "TASKS"),
        [
            (
                *(one["job"], one["run"], str(datetime.timedelta(seconds=one["seconds"]))),
                *(size(one["memory_bytes"]), size(one["memory_peak_bytes"])),
                "?" if one["cpu_seconds"] is None else f"{one['cpu_seconds']:.1f}s",
                "?" if one["tasks"] is None else one["tasks"],
            )
            for one in jobs["active"]
        ],
    )
    yield from table(
        f"Runs that ended within {datetime.timedelta(seconds=ended['since_seconds'])}",
        ("PHASE", "REASON", "RUNS", "MEAN"),
        [(one["phase"], one["reason"], one["count"], f"{one['mean_seconds']:.2f}s") for one in ended["runs"]],
    )
    yield from table(
        "Connections",
        ("CLIENT", "ROLE", "ADDRESS"),
        [(escaped(one["client"]), one["role"] or "none", one["address"]) for one in data["connections"]],
    )
    yield from table(
        "Recent warnings and errors",
        ("TIME", "LEVEL", "WHAT"),
        [(one["time"], one["level"], escaped(one["text"])) for one in data["errors"]],
    )


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield ""
    yield f"{title}: {len(rows) or 'none'}"
    if not rows:
        return
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def moment(stamp: Timestamp) -> str:
    return datetime.datetime.fromtimestamp(stamp.seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def size(count: int | None) -> str:
    if count is None:
        return "?"
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"

"""What a node and its jobs use: as lines for people, as data for programs."""

from __future__ import annotations

from typing import Any

from joblet.api.v1 import monitor_pb2
from rnx.output.bars import fullness, share
from rnx.output.documents import time_of
from rnx.output.table import aligned
from rnx.output.terminal import printable
from rnx.output.words import duration, moment, seconds_between, size

JOBS_HEADER = ("JOB", "RUN", "CPU", "MEMORY", "LIMIT", "PIDS", "READ/S", "WRITE/S", "THROTTLED", "PRESSURE", "AGE")


def usage_lines(reading: monitor_pb2.NodeUsage) -> list[str]:
    """The node first, then its jobs."""
    memory = share(reading.memory_used_bytes, reading.memory_bytes)
    counts = f"{reading.running_jobs} running, {reading.queued_jobs} waiting"
    load = " ".join(f"{one:.2f}" for one in reading.load)
    cpu = f"of {reading.cpus}; load {load}; {reading.processes} processes"
    lines = [
        f"{moment(reading.time)}  up {duration(reading.uptime_seconds)}  {counts}",
        f"CPU      {fullness(reading.cpu_percent)} {reading.cpu_percent:5.1f}%  {cpu}",
        f"Memory   {fullness(memory)} {memory:5.1f}%  {size(reading.memory_used_bytes)} of {size(reading.memory_bytes)}",
    ]
    if reading.swap_bytes:
        swap = share(reading.swap_used_bytes, reading.swap_bytes)
        lines.append(
            f"Swap     {fullness(swap)} {swap:5.1f}%  {size(reading.swap_used_bytes)} of {size(reading.swap_bytes)}"
        )
    for disk in reading.disks:
        used = share(disk.used_bytes, disk.size_bytes)
        lines.append(
            f"Disk     {fullness(used)} {used:5.1f}%  {size(disk.used_bytes)} of {size(disk.size_bytes)}: {printable(disk.path)}"
        )
    lines += [
        f"Disks    read {rate(reading.disk_read_rate)}, write {rate(reading.disk_write_rate)}",
        f"Network  receive {rate(reading.network_receive_rate)}, send {rate(reading.network_send_rate)}",
    ]
    if waits := pressure(reading):
        lines.append(f"Pressure {waits}")
    if reading.jobs:
        rows = [[cell or "-" for cell in job_row(one)] for one in reading.jobs]
        lines += ["", *aligned([list(JOBS_HEADER), *rows])]
    return lines


def pressure(reading: monitor_pb2.NodeUsage) -> str:
    """How much of the last ten seconds somebody had to wait for what; nothing if the kernel does not tell."""
    told = {"cpu": "cpu_pressure", "memory": "memory_pressure", "I/O": "io_pressure"}
    return ", ".join(
        f"{name} {getattr(reading, field):.0f}%" for name, field in told.items() if reading.HasField(field)
    )


def job_pressure(one: monitor_pb2.JobUsage) -> str:
    """The same of a job, in the order CPU, memory, I/O; nothing if the kernel does not tell of cgroups."""
    fields = ("cpu_pressure", "memory_pressure", "io_pressure")
    if not any(one.HasField(field) for field in fields):
        return ""
    return "/".join(f"{getattr(one, field):.0f}" if one.HasField(field) else "-" for field in fields)


def job_row(one: monitor_pb2.JobUsage) -> list[str]:
    usage = one.usage
    return [
        one.name,
        one.run_id,
        f"{one.cpu_percent:.1f}%" if one.HasField("cpu_percent") else "",
        size(usage.memory_bytes) if usage.HasField("memory_bytes") else "",
        size(one.memory_limit_bytes) if one.memory_limit_bytes else "",
        str(usage.pids) if usage.HasField("pids") else "",
        rate(one.io_read_rate) if one.HasField("io_read_rate") else "",
        rate(one.io_write_rate) if one.HasField("io_write_rate") else "",
        f"{one.throttled_percent:.0f}%" if one.HasField("throttled_percent") else "",
        job_pressure(one),
        duration(seconds_between(one.started, None)),
    ]


def told(message: Any, field: str, digits: int | None = None) -> Any:
    """None: it is not said."""
    return round(getattr(message, field), digits) if message.HasField(field) else None


def usage_data(reading: monitor_pb2.NodeUsage) -> dict[str, Any]:
    """Sizes in bytes, rates in bytes a second, shares in percent; null: the host does not tell, or not yet."""
    return {
        "time": time_of(reading, "time"),
        "intervalSeconds": round(reading.interval_seconds, 3),
        "uptimeSeconds": reading.uptime_seconds,
        "cpus": reading.cpus,
        "cpuPercent": round(reading.cpu_percent, 2),
        "cpuPercentEach": [round(one, 2) for one in reading.cpu_percent_each],
        "load": [round(one, 2) for one in reading.load],
        "memoryBytes": reading.memory_bytes,
        "memoryUsedBytes": reading.memory_used_bytes,
        "swapBytes": reading.swap_bytes,
        "swapUsedBytes": reading.swap_used_bytes,
        "disks": [
            {"path": disk.path, "sizeBytes": disk.size_bytes, "usedBytes": disk.used_bytes} for disk in reading.disks
        ],
        "diskReadRate": round(reading.disk_read_rate),
        "diskWriteRate": round(reading.disk_write_rate),
        "networkReceiveRate": round(reading.network_receive_rate),
        "networkSendRate": round(reading.network_send_rate),
        "cpuPressurePercent": told(reading, "cpu_pressure", 2),
        "memoryPressurePercent": told(reading, "memory_pressure", 2),
        "ioPressurePercent": told(reading, "io_pressure", 2),
        "processes": reading.processes,
        "runningJobs": reading.running_jobs,
        "queuedJobs": reading.queued_jobs,
        "jobs": [job_data(one) for one in reading.jobs],
    }


def job_data(one: monitor_pb2.JobUsage) -> dict[str, Any]:
    usage = one.usage
    return {
        "job": one.name,
        "run": one.run_id,
        "attempt": one.attempt,
        "started": time_of(one, "started"),
        "cpuPercent": told(one, "cpu_percent", 2),
        "throttledPercent": told(one, "throttled_percent", 2),
        "cpuSeconds": told(usage, "cpu_seconds", 6),
        "memoryBytes": told(usage, "memory_bytes"),
        "memoryPeakBytes": told(usage, "memory_peak_bytes"),
        "memoryLimitBytes": one.memory_limit_bytes or None,
        "pids": told(usage, "pids"),
        "oomKills": told(usage, "oom_kills"),
        "cpuPressurePercent": told(one, "cpu_pressure", 2),
        "memoryPressurePercent": told(one, "memory_pressure", 2),
        "ioPressurePercent": told(one, "io_pressure", 2),
        "cpuPressureSeconds": told(usage, "cpu_pressure_seconds", 6),
        "memoryPressureSeconds": told(usage, "memory_pressure_seconds", 6),
        "ioPressureSeconds": told(usage, "io_pressure_seconds", 6),
        "ioReadRate": told(one, "io_read_rate"),
        "ioWriteRate": told(one, "io_write_rate"),
    }


def rate(bytes_a_second: float) -> str:
    return f"{size(round(bytes_a_second))}/s"

"""Limits of attempts: which of them this host can enforce, and readings of the cgroup package in the daemon's words."""

from __future__ import annotations

from collections.abc import Iterable

from joblet.cgroup import CgroupError, CgroupLimits, CgroupUsage, Hierarchy, LimitReading, device_of
from joblet.cgroup.hierarchy import readable_percent, readable_size
from joblet.errors import JobletError
from joblet.manifest import Enforcement, Limits
from jobletd.executor.local.attempt_files import AttemptNotes
from jobletd.executor.local.launch_spec import cgroup_limits, without
from jobletd.model import LimitStatus, Usage


class LimitNotEnforceable(JobletError):
    """A limit that this host cannot enforce was asked for strictly."""


def asked_text(limits: Limits, name: str) -> str:
    """A limit as the manifest has it."""
    match name:
        case "cpu":
            return readable_percent(limits.cpu_percent or 0)
        case "cpus":
            return str(limits.cpus)
        case "memory":
            return readable_size(limits.memory_bytes)
        case "pids":
            return str(limits.pids)
        case _:
            return "set"


def enforceable(
    asked: Limits, hierarchy: Hierarchy, directory: str
) -> tuple[CgroupLimits, tuple[tuple[str, str, str], ...]]:
    """The limits to set, and those left out with the reason. directory: on the disk whose use is limited.

    Raises LimitNotEnforceable when strict.
    """
    problems: list[tuple[str, str]] = []
    device = None
    if asked.io is not None:
        try:
            device = device_of(directory)
        except CgroupError as error:
            problems.append(("io", error.what))
    limits = cgroup_limits(asked, device)
    problems += hierarchy.unenforceable(limits)
    if not problems:
        return limits, ()
    if asked.enforcement is Enforcement.STRICT:
        name, why = problems[0]
        raise LimitNotEnforceable(
            f"limit not enforceable: {why}",
            where=f"spec.limits.{name}",
            todo="leave it out, or set spec.limits.enforcement: best-effort",
        )
    left_out = tuple((name, asked_text(asked, name), why) for name, why in problems)
    return without(limits, frozenset(name for name, _ in problems)), left_out


def statuses(readings: Iterable[LimitReading], notes: AttemptNotes) -> tuple[LimitStatus, ...]:
    """All limits of an attempt: read back, left out, and the size of the workspace."""
    found = [
        LimitStatus(reading.name, reading.asked, reading.effective, reading.enforced, reading.message)
        for reading in readings
    ]
    found += [LimitStatus(name, asked, "max", False, why) for name, asked, why in notes.left_out]
    if notes.disk:
        how = "in memory" if notes.disk_in_memory else "a file system of its own"
        found.append(LimitStatus("disk", notes.disk, notes.disk, True, how))
    return (*found, *notes.given)


def usage_of(usage: CgroupUsage) -> Usage:
    return Usage(
        memory_bytes=usage.memory_bytes,
        memory_peak_bytes=usage.memory_peak_bytes,
        cpu_seconds=usage.cpu_seconds,
        throttled_seconds=usage.throttled_seconds,
        pids=usage.pids,
        io_read_bytes=usage.io_read_bytes,
        io_write_bytes=usage.io_write_bytes,
        oom_kills=usage.oom_kills,
        cpu_pressure=usage.cpu_pressure,
        memory_pressure=usage.memory_pressure,
        io_pressure=usage.io_pressure,
        cpu_pressure_seconds=usage.cpu_pressure_seconds,
        memory_pressure_seconds=usage.memory_pressure_seconds,
        io_pressure_seconds=usage.io_pressure_seconds,
    )

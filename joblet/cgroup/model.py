"""What is asked of a cgroup and what is read back: bytes, seconds, counts. No raw file text leaves this package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict


class Mode(StrEnum):
    """Which hierarchy the host has. hybrid: limits in v1, tracking in a v2 tree beside it."""

    V2 = "v2"
    HYBRID = "hybrid"
    V1 = "v1"


@dataclass(frozen=True, slots=True)
class IoLimits:
    """A second, on one disk. device: ``major:minor`` of the whole disk."""

    device: str
    read_bytes: int | None = None
    write_bytes: int | None = None
    read_ops: int | None = None
    write_ops: int | None = None


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What is asked. cpu_percent: of one core. cpus: a list as ``0-1,3``. None: no limit. swap counts beside memory."""

    cpu_percent: float | None = None
    cpus: str | None = None
    memory_bytes: int | None = None
    swap_bytes: int = 0
    pids: int | None = None
    io: IoLimits | None = None


@dataclass(frozen=True, slots=True)
class LimitReading:
    """One limit as asked and as read back from the kernel. name: as in ``spec.limits``."""

    name: str
    asked: str
    effective: str
    enforced: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class CgroupUsage:
    """What was used, and how long something of it had to wait for what it lacked. None: this host does not tell.

    _pressure: percent of the last ten seconds; _pressure_seconds: in all.
    """

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_seconds: float | None = None
    throttled_seconds: float | None = None
    pids: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    oom_kills: int | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    io_pressure: float | None = None
    cpu_pressure_seconds: float | None = None
    memory_pressure_seconds: float | None = None
    io_pressure_seconds: float | None = None


class CgroupPlan(TypedDict):
    """How to make an attempt's cgroup, as plain data: launcher and init carry it out without this package.

    mkdir: directories in order. write: (file, value, limit). init_into, command_into: directories for CLONE_INTO_CGROUP.
    join: files by which the command moves itself in, writing 0. usage: what the exit record quotes. oom: where kills are told.
    """

    mkdir: list[str]
    write: list[tuple[str, str, str]]
    init_into: str | None
    command_into: str | None
    join: list[str]
    usage: dict[str, str]
    oom: dict[str, str] | None

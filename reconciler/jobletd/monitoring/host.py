"""What the host uses, from the kernel by psutil. A reading is two looks with time between them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

LOOPBACK = "lo"
PRESSURE = "/proc/pressure"
_SOME = re.compile(r"^some avg10=(\d+\.\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HostLook:
    """Counters since boot at one moment. busy, total: CPU seconds of each core."""

    at: float
    busy: tuple[float, ...]
    total: tuple[float, ...]
    disk_read: int
    disk_written: int
    received: int
    sent: int

    @classmethod
    def take(cls) -> HostLook:
        cores = psutil.cpu_times(percpu=True)
        # guest time is in user time already, as proc(5) tells
        total = tuple(sum(core) - getattr(core, "guest", 0.0) - getattr(core, "guest_nice", 0.0) for core in cores)
        idle = tuple(core.idle + getattr(core, "iowait", 0.0) for core in cores)
        disks = psutil.disk_io_counters()
        interfaces = {name: one for name, one in psutil.net_io_counters(pernic=True).items() if name != LOOPBACK}
        return cls(
            at=time.monotonic(),
            busy=tuple(all_of - free for all_of, free in zip(total, idle, strict=True)),
            total=total,
            disk_read=disks.read_bytes if disks else 0,
            disk_written=disks.write_bytes if disks else 0,
            received=sum(one.bytes_recv for one in interfaces.values()),
            sent=sum(one.bytes_sent for one in interfaces.values()),
        )


@dataclass(frozen=True, slots=True)
class HostRates:
    """Between two looks. cpu_percent_each: of each core, 0 to 100. The others: bytes a second."""

    seconds: float
    cpu_percent_each: tuple[float, ...]
    disk_read: float
    disk_written: float
    received: float
    sent: float

    @classmethod
    def between(cls, before: HostLook, after: HostLook) -> HostRates:
        seconds = max(after.at - before.at, 1e-9)

        def rate(earlier: int, later: int) -> float:
            return max(later - earlier, 0) / seconds  # a disk or an interface may have gone in between

        each = tuple(
            min(max(busy, 0.0) / total * 100, 100.0) if total > 0 else 0.0
            for busy, total in zip(
                (late - early for early, late in zip(before.busy, after.busy, strict=False)),
                (late - early for early, late in zip(before.total, after.total, strict=False)),
                strict=True,
            )
        )
        return cls(
            seconds=seconds,
            cpu_percent_each=each,
            disk_read=rate(before.disk_read, after.disk_read),
            disk_written=rate(before.disk_written, after.disk_written),
            received=rate(before.received, after.received),
            sent=rate(before.sent, after.sent),
        )

    @property
    def cpu_percent(self) -> float:
        return sum(self.cpu_percent_each) / len(self.cpu_percent_each) if self.cpu_percent_each else 0.0


def pressures(directory: str = PRESSURE) -> dict[str, float]:
    """Of cpu, memory and io: percent of the last ten seconds in which somebody had to wait for it. Less what is not told."""
    found = {}
    for name in ("cpu", "memory", "io"):
        try:
            with open(f"{directory}/{name}") as file:
                match = _SOME.search(file.read())
        except OSError:  # an older kernel, or one that was told not to measure: reading fails then
            continue
        if match is not None:
            found[name] = float(match[1])
    return found


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, by a path on it."""

    path: str
    size_bytes: int
    used_bytes: int


def disks(paths: Iterable[str]) -> list[Disk]:
    """The file systems that these lie on, each once, by the first path that is on it."""
    found: dict[int, Disk] = {}
    for path in paths:
        device = os.stat(path).st_dev
        if device not in found:
            space = os.statvfs(path)
            size = space.f_blocks * space.f_frsize
            found[device] = Disk(path, size, size - space.f_bfree * space.f_frsize)
    return list(found.values())

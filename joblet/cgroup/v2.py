"""The unified hierarchy, cgroups(7) and the kernel's cgroup-v2 document."""

from __future__ import annotations

import os
from collections.abc import Mapping

from joblet.cgroup import files
from joblet.cgroup.errors import CgroupError
from joblet.cgroup.hierarchy import (
    CPU_PERIOD_US,
    INITS,
    ROOT,
    Hierarchy,
    cpu_quota_us,
    parse_cpus,
    readable_percent,
    size_reading,
)
from joblet.cgroup.model import CgroupLimits, CgroupPlan, CgroupUsage, LimitReading, Mode

WANTED = ("cpu", "cpuset", "memory", "pids", "io")
DAEMON = "daemon"
_USAGE = ("memory.current", "memory.peak", "memory.events", "cpu.stat", "pids.current", "io.stat")
_IO_KEYS = {"rbps": "read_bytes", "wbps": "write_bytes", "riops": "read_ops", "wiops": "write_ops"}
IO_NAMES = {"read_bytes": "io.read", "write_bytes": "io.write", "read_ops": "io.readOps", "write_ops": "io.writeOps"}


class V2Hierarchy(Hierarchy):
    """All controllers in one tree."""

    mode = Mode.V2

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self._base = f"{ROOT}/{self.relative}"
        self._controllers = frozenset((files.read(f"{ROOT}/cgroup.controllers") or "").split()) & frozenset(WANTED)
        self._usage: tuple[str, ...] = _USAGE

    @property
    def controllers(self) -> frozenset[str]:
        return self._controllers

    @property
    def bases(self) -> tuple[str, ...]:
        return (self._base,)

    def prepare(self) -> None:
        os.makedirs(f"{self._base}/{INITS}", exist_ok=True)
        self._leave_inner_node()
        path = ROOT
        for part in (*self.relative.split("/"), ""):
            self._enable(path)
            path = f"{path}/{part}" if part else path
        enabled = (files.read(f"{self._base}/cgroup.subtree_control") or "").split()
        self._controllers = frozenset(enabled) & frozenset(WANTED)
        probe = f"{self._base}/{INITS}"
        self._usage = tuple(name for name in _USAGE if os.path.exists(f"{probe}/{name}"))

    def _leave_inner_node(self) -> None:
        """A cgroup with processes can't have controllers for its children: where it is we who are in it, go into a leaf."""
        if str(os.getpid()) in (files.read(f"{self._base}/cgroup.procs") or "").split():
            os.makedirs(f"{self._base}/{DAEMON}", exist_ok=True)
            files.write(f"{self._base}/{DAEMON}/cgroup.procs", str(os.getpid()))

    def _enable(self, path: str) -> None:
        """Switch on for the children of ``path`` what is not on yet. One that is refused stays off, and is then not offered."""
        present = (files.read(f"{path}/cgroup.controllers") or "").split()
        enabled = (files.read(f"{path}/cgroup.subtree_control") or "").split()
        for name in WANTED:
            if name in present and name not in enabled:
                try:
                    files.write(f"{path}/cgroup.subtree_control", f"+{name}")
                except CgroupError:
                    continue

    def limit_files(self, attempt_id: str, limits: CgroupLimits, *, only_set: bool) -> list[tuple[str, str, str]]:
        (directory,) = self.directories(attempt_id)
        found: list[tuple[str, str, str]] = []

        def add(controller: str, name: str, value: str | None, limit: str, lifted: str) -> None:
            if controller in self.controllers and (value is not None or not only_set):
                found.append((f"{directory}/{name}", lifted if value is None else value, limit))

        quota = None if limits.cpu_percent is None else f"{cpu_quota_us(limits.cpu_percent)} {CPU_PERIOD_US}"
        add("cpu", "cpu.max", quota, "cpu", f"max {CPU_PERIOD_US}")
        add("cpuset", "cpuset.cpus", limits.cpus, "cpus", "\n")
        add("memory", "memory.max", _text(limits.memory_bytes), "memory", "max")
        if "memory" in self.controllers and os.path.exists(f"{self._base}/{INITS}/memory.swap.max"):
            swap = None if limits.memory_bytes is None else str(limits.swap_bytes)
            add("memory", "memory.swap.max", swap, "swap", "max")
        if only_set:
            add("memory", "memory.oom.group", "1", "memory", "1")
        add("pids", "pids.max", _text(limits.pids), "pids", "max")
        if limits.io is not None:
            values = " ".join(
                f"{key}={'max' if (value := getattr(limits.io, name)) is None else value}"
                for key, name in _IO_KEYS.items()
            )
            add("io", "io.max", f"{limits.io.device} {values}", "io", "")
        elif not only_set and "io" in self.controllers:
            for line in (files.read(f"{directory}/io.max") or "").splitlines():
                lifted = " ".join(f"{key}=max" for key in _IO_KEYS)
                found.append((f"{directory}/io.max", f"{line.split()[0]} {lifted}", "io"))
        return found

    def plan(self, attempt_id: str, limits: CgroupLimits) -> CgroupPlan:
        (directory,) = self.directories(attempt_id)
        return {
            "mkdir": [directory],
            "write": self.limit_files(attempt_id, limits, only_set=True),
            "init_into": f"{self._base}/{INITS}",
            "command_into": directory,
            "join": [],
            "usage": self.usage_files(attempt_id),
            "oom": None,  # memory.oom.group kills all; the count is in memory.events
        }

    def read_limits(self, attempt_id: str, limits: CgroupLimits) -> tuple[LimitReading, ...]:
        (directory,) = self.directories(attempt_id)
        missing = dict(self.unenforceable(limits))
        readings: list[LimitReading] = []
        if limits.cpu_percent is not None:
            quota, _, period = (files.read(f"{directory}/cpu.max") or "max 1").partition(" ")
            effective = None if quota == "max" else int(quota) * 100 / int(period)
            readings.append(percent_reading(limits.cpu_percent, effective, missing.get("cpu", "")))
        if limits.cpus is not None:
            readings.append(
                cpus_reading(limits.cpus, files.read(f"{directory}/cpuset.cpus.effective"), missing.get("cpus", ""))
            )
        if limits.memory_bytes is not None:
            memory = files.number(files.read(f"{directory}/memory.max"))
            readings.append(size_reading("memory", limits.memory_bytes, memory))
            swap = files.number(files.read(f"{directory}/memory.swap.max"))
            readings.append(swap_reading(limits.swap_bytes, swap))
        if limits.pids is not None:
            readings.append(count_reading("pids", limits.pids, files.number(files.read(f"{directory}/pids.max"))))
        if limits.io is not None:
            effective_io = self._read_io(directory, limits.io.device)
            for name, label in IO_NAMES.items():
                if (asked := getattr(limits.io, name)) is not None:
                    readings.append(io_reading(label, name, asked, effective_io.get(name), missing.get("io", "")))
        return tuple(readings)

    def _read_io(self, directory: str, device: str) -> dict[str, int]:
        for line in (files.read(f"{directory}/io.max") or "").splitlines():
            number, _, rest = line.partition(" ")
            if number == device:
                items = (item.partition("=") for item in rest.split())
                return {_IO_KEYS[key]: int(value) for key, _, value in items if value.isdigit()}
        return {}

    def usage_files(self, attempt_id: str) -> dict[str, str]:
        (directory,) = self.directories(attempt_id)
        return {name: f"{directory}/{name}" for name in self._usage}

    def parse_usage(self, raw: Mapping[str, str]) -> CgroupUsage:
        cpu = files.pairs(raw.get("cpu.stat"))
        read_bytes = write_bytes = None
        if "io.stat" in raw:
            read_bytes = write_bytes = 0
            for item in raw["io.stat"].split():
                key, _, value = item.partition("=")
                read_bytes += int(value) if key == "rbytes" else 0
                write_bytes += int(value) if key == "wbytes" else 0
        return CgroupUsage(
            memory_bytes=files.number(raw.get("memory.current")),
            memory_peak_bytes=files.number(raw.get("memory.peak")),
            cpu_seconds=cpu["usage_usec"] / 1e6 if "usage_usec" in cpu else None,
            throttled_seconds=cpu["throttled_usec"] / 1e6 if "throttled_usec" in cpu else None,
            pids=files.number(raw.get("pids.current")),
            io_read_bytes=read_bytes,
            io_write_bytes=write_bytes,
            oom_kills=files.pairs(raw.get("memory.events")).get("oom_kill"),
        )

    def _freeze(self, attempt_id: str, *, frozen: bool) -> None:
        (directory,) = self.directories(attempt_id)
        files.write(f"{directory}/cgroup.freeze", "1" if frozen else "0")


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def percent_reading(asked: float, effective: float | None, missing: str) -> LimitReading:
    """The kernel's least quota is 1 % of a core."""
    enforced = effective is not None and abs(effective - max(asked, 1)) < 0.01
    shown = "max" if effective is None else readable_percent(effective)
    return LimitReading("cpu", readable_percent(asked), shown, enforced, missing)


def cpus_reading(asked: str, effective: str | None, missing: str) -> LimitReading:
    enforced = bool(effective) and parse_cpus(effective or "") == parse_cpus(asked)
    return LimitReading("cpus", asked, effective or "all", enforced, missing)


def count_reading(name: str, asked: int, effective: int | None, missing: str = "") -> LimitReading:
    return LimitReading(name, str(asked), "max" if effective is None else str(effective), effective == asked, missing)


def io_reading(label: str, name: str, asked: int, effective: int | None, missing: str) -> LimitReading:
    if name.endswith("_bytes") and not missing:
        return size_reading(label, asked, effective)
    return count_reading(label, asked, effective, missing)


def swap_reading(asked: int, effective: int | None) -> LimitReading:
    """Where the kernel does not account for swap there is nothing to read; without any swap that is as good as none."""
    if effective is not None:
        return size_reading("swap", asked, effective)
    with open("/proc/swaps") as file:
        has_swap = len(file.readlines()) > 1
    message = "this kernel does not account for swap" if has_swap else "this host has no swap"
    return LimitReading("swap", str(asked), "max" if has_swap else "0", not has_swap, message)

"""The unified hierarchy, cgroups(7) and the kernel's cgroup-v2 document."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from joblet.cgroup import files, unit
from joblet.cgroup.errors import CgroupError
from joblet.cgroup.hierarchy import CONTROLLERS, DAEMON, INITS, ROOT, Hierarchy, job_directory
from joblet.cgroup.model import CgroupLimits, CgroupPlan, CgroupUsage, LimitReading, Mode
from joblet.cgroup.quota import PERIOD_US, cpu_bandwidth, cpu_percent
from joblet.cgroup.readings import (
    count_reading,
    cpus_reading,
    host_has_swap,
    io_reading,
    parse_cpus,
    percent_reading,
    size_reading,
    swap_reading,
)

WANTED = ("cpu", "cpuset", "memory", "pids", "io")
CPU_STAT = "cpu.stat"
PRESSURE = ("cpu.pressure", "memory.pressure", "io.pressure")
USAGE = ("memory.current", "memory.peak", "memory.events", CPU_STAT, "pids.current", "io.stat", *PRESSURE)
IO_NAMES = {"read_bytes": "io.read", "write_bytes": "io.write", "read_ops": "io.readOps", "write_ops": "io.writeOps"}
_IO_KEYS = {"rbps": "read_bytes", "wbps": "write_bytes", "riops": "read_ops", "wiops": "write_ops"}
_LOOP = "7:"
_SOME = re.compile(r"^some avg10=(\d+\.\d+) .*total=(\d+)$", re.MULTILINE)


class V2Hierarchy(Hierarchy):
    """All controllers in one tree."""

    mode = Mode.V2

    def __init__(self, base: str, root: str = ROOT, enabled: frozenset[str] = CONTROLLERS) -> None:
        super().__init__(base, enabled)
        self._root = root
        self._base = f"{root}/{self.relative}"
        self._controllers = frozenset((files.read(f"{root}/cgroup.controllers") or "").split()) & enabled
        self._refused: dict[str, str] = {}
        self._usage: tuple[str, ...] = USAGE
        self._limits_swap = True

    @property
    def controllers(self) -> frozenset[str]:
        return self._controllers

    @property
    def inits_directory(self) -> str | None:
        return f"{self._base}/{INITS}"

    @property
    def bases(self) -> tuple[str, ...]:
        return (self._base,)

    def missing_controller(self, controller: str) -> str:
        return self._refused.get(controller) or f"this host has no {controller} controller (cgroup {self.mode})"

    def usable_cpus(self) -> frozenset[int]:
        text = files.read(f"{self._base}/cpuset.cpus.effective") or files.read(f"{self._root}/cpuset.cpus.effective")
        return parse_cpus(text) if text else frozenset(os.sched_getaffinity(0))

    def limits_swap(self) -> bool:
        return self._limits_swap

    def _unlimited_swap(self, limits: CgroupLimits) -> str:  # noqa: ARG002
        return "this kernel does not account for swap" if not self._limits_swap and host_has_swap() else ""

    def prepare(self) -> None:
        leaf = f"{self._base}/{INITS}"
        self._make(leaf)
        if unit.own_path() in (self.relative, f"{self.relative}/{INITS}"):
            self._make(f"{self._base}/{DAEMON}")
            unit.go_into_leaf(self._base)
        self._refused.clear()
        path = self._root
        for part in (*self.relative.split("/"), ""):
            self._enable(path)
            path = f"{path}/{part}"
        enabled = (files.read(f"{self._base}/cgroup.subtree_control") or "").split()
        self._controllers = frozenset(enabled) & self.enabled
        self._usage = tuple(name for name in USAGE if files.read(f"{leaf}/{name}") is not None)
        self._limits_swap = os.path.exists(f"{leaf}/memory.swap.max")

    def remove_base(self) -> None:
        super().remove_base()
        if not os.path.isdir(f"{self._base}/{INITS}"):
            self.close_door()

    def close_door(self) -> None:
        unit.close_door(self._base)

    def _enable(self, path: str) -> None:
        """Switch on for the children of ``path`` what is not on yet. One that is refused stays off, and is then not offered;
        ``missing_controller`` tells why."""
        present = (files.read(f"{path}/cgroup.controllers") or "").split()
        enabled = (files.read(f"{path}/cgroup.subtree_control") or "").split()
        for name in WANTED:
            if name in self.enabled and name in present and name not in enabled:
                try:
                    files.write(f"{path}/cgroup.subtree_control", f"+{name}")
                except CgroupError as error:
                    self._refused[name] = f"the {name} controller cannot be switched on: {error}"

    def limit_files(self, attempt_id: str, limits: CgroupLimits, *, only_set: bool) -> list[tuple[str, str, str]]:
        directory = f"{self._base}/{job_directory(attempt_id)}"
        found: list[tuple[str, str, str]] = []

        def add(controller: str, name: str, value: object, limit: str, lifted: str) -> None:
            if controller in self._controllers and (value is not None or not only_set):
                found.append((f"{directory}/{name}", lifted if value is None else str(value), limit))

        quota = None if limits.cpu_percent is None else "{} {}".format(*cpu_bandwidth(limits.cpu_percent))
        add("cpu", "cpu.max", quota, "cpu", f"max {PERIOD_US}")
        add("cpuset", "cpuset.cpus", limits.cpus, "cpus", "\n")
        add("memory", "memory.max", limits.memory_bytes, "memory", "max")
        if self._limits_swap:
            add("memory", "memory.swap.max", None if limits.memory_bytes is None else limits.swap_bytes, "swap", "max")
        if only_set:
            add("memory", "memory.oom.group", 1, "memory", "1")
        add("pids", "pids.max", limits.pids, "pids", "max")
        if "io" in self._controllers:
            found += self._io_files(directory, limits, only_set=only_set)
        return found

    def _io_files(self, directory: str, limits: CgroupLimits, *, only_set: bool) -> list[tuple[str, str, str]]:
        file = f"{directory}/io.max"
        if limits.io is not None:
            asked = {key: getattr(limits.io, name) for key, name in _IO_KEYS.items()}
            values = " ".join(f"{key}={'max' if value is None else value}" for key, value in asked.items())
            return [(file, f"{limits.io.device} {values}", "io")]
        if only_set:
            return []
        lifted = " ".join(f"{key}=max" for key in _IO_KEYS)
        return [(file, f"{line.split()[0]} {lifted}", "io") for line in (files.read(file) or "").splitlines()]

    def plan(self, attempt_id: str, limits: CgroupLimits) -> CgroupPlan:
        directory = f"{self._base}/{job_directory(attempt_id)}"
        return {
            "mkdir": [directory],
            "write": self.limit_files(attempt_id, limits, only_set=True),
            "init_into": f"{self._base}/{INITS}",
            "command_into": directory,
            "join": [],
            "usage": self.usage_files(attempt_id),
            # memory.oom.group kills all at once; the count is here.
            "oom": {"events": f"{directory}/memory.events"} if "memory" in self._controllers else None,
        }

    def view(self, plan: CgroupPlan) -> dict[str, str]:
        return {"": plan["mkdir"][0]}

    def read_limits(self, attempt_id: str, limits: CgroupLimits) -> tuple[LimitReading, ...]:
        (directory,) = self.directories(attempt_id)
        missing = dict(self.unenforceable(limits))
        readings: list[LimitReading] = []
        if limits.cpu_percent is not None:
            quota, _, period = (files.read(f"{directory}/cpu.max") or "").partition(" ")
            readings.append(percent_reading(limits.cpu_percent, cpu_percent(quota, period), missing.get("cpu", "")))
        if limits.cpus is not None:
            effective = files.read(f"{directory}/cpuset.cpus.effective")
            readings.append(cpus_reading(limits.cpus, effective, missing.get("cpus", "")))
        if limits.memory_bytes is not None:
            why = missing.get("memory", "")
            memory = files.number(files.read(f"{directory}/memory.max"))
            readings.append(size_reading("memory", limits.memory_bytes, memory, why))
            swap = files.number(files.read(f"{directory}/memory.swap.max"))
            readings.append(swap_reading(limits.swap_bytes, swap, missing=why or missing.get("swap", "")))
        if limits.pids is not None:
            pids = files.number(files.read(f"{directory}/pids.max"))
            readings.append(count_reading("pids", limits.pids, pids, missing.get("pids", "")))
        if limits.io is not None:
            effective_io = self._read_io(directory, limits.io.device)
            for name, label in IO_NAMES.items():
                if (asked := getattr(limits.io, name)) is not None:
                    readings.append(io_reading(label, asked, effective_io.get(name), missing.get("io", "")))
        return tuple(readings)

    def _read_io(self, directory: str, device: str) -> dict[str, int]:
        for line in (files.read(f"{directory}/io.max") or "").splitlines():
            number, _, rest = line.partition(" ")
            if number == device:
                items = (item.partition("=") for item in rest.split())
                return {_IO_KEYS[key]: int(value) for key, _, value in items if key in _IO_KEYS and value.isdigit()}
        return {}

    def usage_files(self, attempt_id: str) -> dict[str, str]:
        directory = f"{self._base}/{job_directory(attempt_id)}"
        return {name: f"{directory}/{name}" for name in self._usage}

    def cpu_seconds(self, attempt_id: str) -> float | None:
        return _cpu_seconds(files.pairs(files.read(f"{self._base}/{job_directory(attempt_id)}/{CPU_STAT}")))

    def parse_usage(self, raw: Mapping[str, str]) -> CgroupUsage:
        cpu = files.pairs(raw.get(CPU_STAT))
        io_read, io_write = io_bytes(raw.get("io.stat"))
        waits = {name: waited(raw.get(name)) for name in PRESSURE}
        return CgroupUsage(
            memory_bytes=files.number(raw.get("memory.current")),
            memory_peak_bytes=files.number(raw.get("memory.peak")),
            cpu_seconds=_cpu_seconds(cpu),
            throttled_seconds=cpu["throttled_usec"] / 1e6 if "throttled_usec" in cpu else None,
            pids=files.number(raw.get("pids.current")),
            io_read_bytes=io_read,
            io_write_bytes=io_write,
            oom_kills=files.pairs(raw.get("memory.events")).get("oom_kill"),
            cpu_pressure=waits["cpu.pressure"][0],
            memory_pressure=waits["memory.pressure"][0],
            io_pressure=waits["io.pressure"][0],
            cpu_pressure_seconds=waits["cpu.pressure"][1],
            memory_pressure_seconds=waits["memory.pressure"][1],
            io_pressure_seconds=waits["io.pressure"][1],
        )

    def _freeze(self, attempt_id: str, *, frozen: bool) -> None:
        (directory,) = self.directories(attempt_id)
        files.write(f"{directory}/cgroup.freeze", "1" if frozen else "0")

    def _is_frozen(self, attempt_id: str) -> bool:
        (directory,) = self.directories(attempt_id)
        return files.pairs(files.read(f"{directory}/cgroup.events")).get("frozen") == 1


def _cpu_seconds(cpu_stat: Mapping[str, int]) -> float | None:
    return cpu_stat["usage_usec"] / 1e6 if "usage_usec" in cpu_stat else None


def waited(text: str | None) -> tuple[float | None, float | None]:
    """(percent of the last ten seconds, seconds in all) in which at least one process waited, of a pressure file of PSI."""
    match = _SOME.search(text or "")
    return (float(match[1]), int(match[2]) / 1e6) if match else (None, None)


def io_bytes(text: str | None) -> tuple[int | None, int | None]:
    """(read, written) in io.stat. A loop device's bytes are counted again on the disk below it: it counts only if there is no
    other."""
    if text is None:
        return None, None
    lines = [line.split() for line in text.splitlines() if line]
    disks = [line for line in lines if not line[0].startswith(_LOOP)] or lines
    items = [item.partition("=") for line in disks for item in line[1:]]
    return (
        sum(int(value) for key, _, value in items if key == "rbytes"),
        sum(int(value) for key, _, value in items if key == "wbytes"),
    )

"""The legacy hierarchies, cgroups(7) "Cgroups version 1": one tree a controller; in hybrid mode a v2 tree beside them tracks."""

from __future__ import annotations

import os
from collections.abc import Mapping

from joblet.cgroup import files
from joblet.cgroup.errors import CgroupError
from joblet.cgroup.hierarchy import CPU_PERIOD_US, INITS, Hierarchy, cpu_quota_us, size_reading
from joblet.cgroup.model import CgroupLimits, CgroupPlan, CgroupUsage, LimitReading, Mode
from joblet.cgroup.v2 import IO_NAMES, count_reading, cpus_reading, io_reading, percent_reading, swap_reading

# v2's names on the left; cpuacct and freezer have none.
V1_NAMES = {"cpu": "cpu", "cpuset": "cpuset", "memory": "memory", "pids": "pids", "io": "blkio"}
ALWAYS = ("memory", "cpu", "cpuacct", "pids")
UNLIMITED_BYTES = 1 << 60  # the kernel shows "no limit" as the largest number of pages
_BLKIO = {
    "read_bytes": "blkio.throttle.read_bps_device",
    "write_bytes": "blkio.throttle.write_bps_device",
    "read_ops": "blkio.throttle.read_iops_device",
    "write_ops": "blkio.throttle.write_iops_device",
}


class V1Hierarchy(Hierarchy):
    """Limits in the v1 trees. mounts: controller to mount point. unified: the v2 tree's mount point in hybrid mode."""

    def __init__(self, base: str, mounts: Mapping[str, str], unified: str | None) -> None:
        super().__init__(base)
        self.mode = Mode.V1 if unified is None else Mode.HYBRID
        self._unified = unified
        self._trees = {name: f"{mount}/{self.relative}" for name, mount in mounts.items()}
        self._has_memsw = os.path.exists(f"{mounts.get('memory', '')}/memory.memsw.limit_in_bytes")

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(name for name, v1_name in V1_NAMES.items() if v1_name in self._trees)

    @property
    def bases(self) -> tuple[str, ...]:
        tracking = f"{self._unified}/{self.relative}" if self._unified else self._trees.get("freezer", "")
        used = ("memory", "cpu", "cpuacct", "pids", "cpuset", "blkio")
        trees = (self._trees[name] for name in used if name in self._trees)
        return tuple(dict.fromkeys(path for path in (tracking, *trees) if path))

    def prepare(self) -> None:
        for base in self.bases:
            os.makedirs(base, exist_ok=True)
        if self._unified:
            os.makedirs(f"{self.bases[0]}/{INITS}", exist_ok=True)
        if "cpuset" in self._trees:
            path = self._trees["cpuset"].removesuffix(f"/{self.relative}")
            for part in self.relative.split("/"):
                inherit_cpuset(path, f"{path}/{part}")
                path = f"{path}/{part}"

    def _directory(self, controller: str, attempt_id: str) -> str:
        return f"{self._trees[controller]}/job-{attempt_id}"

    def _controllers_for(self, limits: CgroupLimits) -> list[str]:
        """The controllers whose trees an attempt needs a directory in: a join costs time, so only these."""
        wanted = [*ALWAYS]
        if self.mode is Mode.V1:
            wanted.insert(0, "freezer")
        if limits.cpus is not None:
            wanted.append("cpuset")
        if limits.io is not None:
            wanted.append("blkio")
        return [name for name in wanted if name in self._trees]

    def limit_files(self, attempt_id: str, limits: CgroupLimits, *, only_set: bool) -> list[tuple[str, str, str]]:
        found: list[tuple[str, str, str]] = []

        def add(controller: str, name: str, value: object, limit: str, lifted: str) -> None:
            if controller in self._trees and (value is not None or not only_set):
                path = f"{self._directory(controller, attempt_id)}/{name}"
                found.append((path, lifted if value is None else str(value), limit))

        if limits.cpu_percent is not None:
            add("cpu", "cpu.cfs_period_us", CPU_PERIOD_US, "cpu", "")
        quota = None if limits.cpu_percent is None else cpu_quota_us(limits.cpu_percent)
        add("cpu", "cpu.cfs_quota_us", quota, "cpu", "-1")
        if limits.cpus is not None:
            if only_set and "cpuset" in self._trees:
                add("cpuset", "cpuset.mems", files.read(f"{self._trees['cpuset']}/cpuset.mems"), "cpus", "")
            add("cpuset", "cpuset.cpus", limits.cpus, "cpus", "")
        found.extend(self._memory_files(attempt_id, limits, only_set=only_set))
        add("pids", "pids.max", limits.pids, "pids", "max")
        if limits.io is not None:
            for name, file in _BLKIO.items():
                value = getattr(limits.io, name)
                text = None if value is None else f"{limits.io.device} {value}"
                add("blkio", file, text, "io", f"{limits.io.device} 0")
        return found

    def _memory_files(self, attempt_id: str, limits: CgroupLimits, *, only_set: bool) -> list[tuple[str, str, str]]:
        """memory and memory+swap. The kernel wants the first never above the second: the order depends on the direction."""
        if "memory" not in self._trees or (limits.memory_bytes is None and only_set):
            return []
        directory = self._directory("memory", attempt_id)
        if limits.memory_bytes is None:
            both = [(f"{directory}/memory.limit_in_bytes", "-1", "memory")]
            return [(f"{directory}/memory.memsw.limit_in_bytes", "-1", "swap"), *both] if self._has_memsw else both
        memory = (f"{directory}/memory.limit_in_bytes", str(limits.memory_bytes), "memory")
        if not self._has_memsw:
            swappiness = (f"{directory}/memory.swappiness", "0", "swap")
            return [memory, swappiness] if only_set and limits.swap_bytes == 0 else [memory]
        total = limits.memory_bytes + limits.swap_bytes
        memsw = (f"{directory}/memory.memsw.limit_in_bytes", str(total), "swap")
        present = files.number(files.read(memsw[0])) or UNLIMITED_BYTES * 8
        return [memsw, memory] if total > present else [memory, memsw]

    def plan(self, attempt_id: str, limits: CgroupLimits) -> CgroupPlan:
        tracking = self.directories(attempt_id)[0]
        trees = list(dict.fromkeys(self._directory(name, attempt_id) for name in self._controllers_for(limits)))
        hybrid = self.mode is Mode.HYBRID
        memory = self._directory("memory", attempt_id) if "memory" in self._trees else None
        return {
            "mkdir": [*([tracking] if hybrid else []), *trees],
            "write": self.limit_files(attempt_id, limits, only_set=True),
            "init_into": f"{self.bases[0]}/{INITS}" if hybrid else None,
            "command_into": tracking if hybrid else None,
            "join": [f"{tree}/cgroup.procs" for tree in trees],
            "usage": {
                key: path for key, path in self.usage_files(attempt_id).items() if os.path.dirname(path) in trees
            },
            "oom": None
            if memory is None
            else {"control": f"{memory}/memory.oom_control", "event_control": f"{memory}/cgroup.event_control"},
        }

    def apply_limits(self, attempt_id: str, limits: CgroupLimits) -> None:
        self._add_directories(attempt_id, limits)
        for path, value, _ in self.limit_files(attempt_id, limits, only_set=False):
            if os.path.exists(os.path.dirname(path)):
                files.write(path, value)
        if limits.cpus is None and "cpuset" in self._trees:
            directory = self._directory("cpuset", attempt_id)
            if os.path.isdir(directory):
                files.write(f"{directory}/cpuset.cpus", files.read(f"{self._trees['cpuset']}/cpuset.cpus") or "0")
        if limits.io is None and "blkio" in self._trees:
            self._lift_io(self._directory("blkio", attempt_id))

    def _add_directories(self, attempt_id: str, limits: CgroupLimits) -> None:
        """A controller that the attempt did without so far: make its directory and move the processes there."""
        for name in self._controllers_for(limits):
            directory = self._directory(name, attempt_id)
            if os.path.isdir(directory):
                continue
            os.mkdir(directory)
            if name == "cpuset":
                inherit_cpuset(self._trees["cpuset"], directory)
            moved: set[int] = set()
            while new := set(self.processes(attempt_id)) - moved:
                for pid in new:
                    try:
                        files.write(f"{directory}/cgroup.procs", str(pid))
                    except CgroupError as error:
                        if not isinstance(error.__cause__, ProcessLookupError):
                            raise
                moved |= new

    def _lift_io(self, directory: str) -> None:
        for file in _BLKIO.values():
            for line in (files.read(f"{directory}/{file}") or "").splitlines():
                files.write(f"{directory}/{file}", f"{line.split()[0]} 0")

    def read_limits(self, attempt_id: str, limits: CgroupLimits) -> tuple[LimitReading, ...]:
        missing = dict(self.unenforceable(limits))
        readings: list[LimitReading] = []

        def value(controller: str, name: str) -> str | None:
            return (
                files.read(f"{self._directory(controller, attempt_id)}/{name}") if controller in self._trees else None
            )

        if limits.cpu_percent is not None:
            quota, period = value("cpu", "cpu.cfs_quota_us"), value("cpu", "cpu.cfs_period_us")
            effective = int(quota) * 100 / int(period) if quota and period and int(quota) > 0 else None
            readings.append(percent_reading(limits.cpu_percent, effective, missing.get("cpu", "")))
        if limits.cpus is not None:
            readings.append(cpus_reading(limits.cpus, value("cpuset", "cpuset.cpus"), missing.get("cpus", "")))
        if limits.memory_bytes is not None:
            memory = bounded(value("memory", "memory.limit_in_bytes"))
            readings.append(size_reading("memory", limits.memory_bytes, memory))
            memsw = bounded(value("memory", "memory.memsw.limit_in_bytes"))
            swap = memsw - memory if memsw is not None and memory is not None else None
            readings.append(swap_reading(limits.swap_bytes, swap))
        if limits.pids is not None:
            readings.append(count_reading("pids", limits.pids, files.number(value("pids", "pids.max"))))
        if limits.io is not None:
            for name, label in IO_NAMES.items():
                if (asked := getattr(limits.io, name)) is not None:
                    effective_io = files.pairs(value("blkio", _BLKIO[name])).get(limits.io.device)
                    readings.append(io_reading(label, name, asked, effective_io, missing.get("io", "")))
        return tuple(readings)

    def usage_files(self, attempt_id: str) -> dict[str, str]:
        wanted = {
            "memory": ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
            "cpuacct": ("cpuacct.usage",),
            "cpu": ("cpu.stat",),
            "pids": ("pids.current",),
            "blkio": ("blkio.throttle.io_service_bytes",),
        }
        return {
            file: f"{self._directory(controller, attempt_id)}/{file}"
            for controller, names in wanted.items()
            if controller in self._trees
            for file in names
        }

    def parse_usage(self, raw: Mapping[str, str]) -> CgroupUsage:
        cpu = files.pairs(raw.get("cpu.stat"))
        cpu_ns = files.number(raw.get("cpuacct.usage"))
        io = raw.get("blkio.throttle.io_service_bytes")
        return CgroupUsage(
            memory_bytes=files.number(raw.get("memory.usage_in_bytes")),
            memory_peak_bytes=files.number(raw.get("memory.max_usage_in_bytes")),
            cpu_seconds=None if cpu_ns is None else cpu_ns / 1e9,
            throttled_seconds=cpu["throttled_time"] / 1e9 if "throttled_time" in cpu else None,
            pids=files.number(raw.get("pids.current")),
            io_read_bytes=_service_bytes(io, "Read"),
            io_write_bytes=_service_bytes(io, "Write"),
            oom_kills=files.pairs(raw.get("memory.oom_control")).get("oom_kill"),
        )

    def _freeze(self, attempt_id: str, *, frozen: bool) -> None:
        directory = self.directories(attempt_id)[0]
        if self.mode is Mode.HYBRID:
            files.write(f"{directory}/cgroup.freeze", "1" if frozen else "0")
        else:
            files.write(f"{directory}/freezer.state", "FROZEN" if frozen else "THAWED")


def inherit_cpuset(parent: str, child: str) -> None:
    """A new v1 cpuset is empty and takes no process: give it what its parent has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(f"{child}/{name}"):
            files.write(f"{child}/{name}", files.read(f"{parent}/{name}") or "0")


def bounded(text: str | None) -> int | None:
    value = files.number(text)
    return None if value is None or value >= UNLIMITED_BYTES else value


def _service_bytes(text: str | None, kind: str) -> int | None:
    if text is None:
        return None
    return sum(int(line.split()[2]) for line in text.splitlines() if len(line.split()) == 3 and line.split()[1] == kind)

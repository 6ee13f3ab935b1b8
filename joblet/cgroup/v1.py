"""The legacy hierarchies, cgroups(7) "Cgroups version 1": one tree a controller.

In hybrid mode the v2 tree beside them has a leaf for all inits and their commands. Attempts have no cgroup of their own there: a
process cannot move itself into one without a grace period of RCU, and what v1 offers for killing does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from joblet.cgroup import files
from joblet.cgroup.errors import CgroupError
from joblet.cgroup.hierarchy import CONTROLLERS, INITS, SPARE, Hierarchy, job_directory
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
from joblet.cgroup.v2 import IO_NAMES

# v2's names on the left; cpuacct and freezer have none.
V1_NAMES = {"cpu": "cpu", "cpuset": "cpuset", "memory": "memory", "pids": "pids", "io": "blkio"}
UNLIMITED_BYTES = 1 << 60  # the kernel shows "no limit" as the largest number of pages
CPU_USAGE = "cpuacct.usage"
UNIFIED_CPU_STAT = "unified.cpu.stat"  # in hybrid mode, of attempts that an earlier version launched
DIRECT_IO_ONLY = "direct I/O only: cgroup v1 does not slow down writes that go through the page cache"
_BLKIO = {
    "read_bytes": "blkio.throttle.read_bps_device",
    "write_bytes": "blkio.throttle.write_bps_device",
    "read_ops": "blkio.throttle.read_iops_device",
    "write_ops": "blkio.throttle.write_iops_device",
}
_USAGE = {
    "memory": ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    "cpuacct": (CPU_USAGE,),
    "cpu": ("cpu.stat",),
    "pids": ("pids.current",),
    "blkio": ("blkio.throttle.io_service_bytes",),
}


class V1Hierarchy(Hierarchy):
    """Limits in the v1 trees. mounts: controller to mount point. unified: the v2 tree's mount point in hybrid mode."""

    def __init__(
        self, base: str, mounts: Mapping[str, str], unified: str | None, enabled: frozenset[str] = CONTROLLERS
    ) -> None:
        super().__init__(base, enabled)
        left_out = {V1_NAMES[name] for name in CONTROLLERS - enabled}
        mounts = {name: mount for name, mount in mounts.items() if name not in left_out}
        self.mode = Mode.V1 if unified is None else Mode.HYBRID
        self._trees = {name: f"{mount}/{self.relative}" for name, mount in mounts.items()}
        self._has_memsw = os.path.exists(f"{mounts.get('memory', '')}/memory.memsw.limit_in_bytes")
        # A tree costs each launch a directory and a join: the freezer is for killing where pids.max cannot stop the forks.
        stop = () if "pids" in mounts else ("freezer",)
        self._always = tuple(name for name in ("pids", *stop, "memory", "cpu", "cpuacct", "blkio") if name in mounts)
        # The freezer is among the bases of pure v1 for attempts that an earlier version launched, which had a cgroup there.
        others = ("cpuset",) if unified else ("cpuset", "freezer")
        trees = [self._trees[name] for name in (*self._always, *others) if name in self._trees]
        self._unified = f"{unified}/{self.relative}" if unified else ""
        self._bases = tuple(dict.fromkeys(path for path in (*trees, self._unified) if path))
        self._mems = ""
        self._usage = _USAGE

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(name for name, v1_name in V1_NAMES.items() if v1_name in self._trees)

    @property
    def inits_directory(self) -> str | None:
        return f"{self._unified}/{INITS}" if self._unified else None

    @property
    def bases(self) -> tuple[str, ...]:
        return self._bases

    @property
    def spare_directories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f"{self._trees[name]}/{SPARE}" for name in self._always))

    def missing_controller(self, controller: str) -> str:
        return f"this host has no {V1_NAMES[controller]} controller (cgroup {self.mode})"

    def usable_cpus(self) -> frozenset[int]:
        tree = self._trees.get("cpuset", "")
        text = files.read(f"{tree}/cpuset.cpus") or files.read(f"{tree.removesuffix(self.relative)}cpuset.cpus")
        return parse_cpus(text) if text else frozenset(os.sched_getaffinity(0))

    def limits_swap(self) -> bool:
        return self._has_memsw

    def _unlimited_swap(self, limits: CgroupLimits) -> str:
        """No swap at all can be had without accounting, by memory.swappiness."""
        unlimited = limits.swap_bytes > 0 and not self._has_memsw and host_has_swap()
        return "this kernel does not account for swap (boot it with swapaccount=1)" if unlimited else ""

    def prepare(self) -> None:
        for base in self._bases:
            self._make(base)
        if inits := self.inits_directory:
            self._make(inits)
        if "cpuset" in self._trees:
            path = self._trees["cpuset"].removesuffix(f"/{self.relative}")
            for part in self.relative.split("/"):
                inherit_cpuset(path, f"{path}/{part}")
                path = f"{path}/{part}"
            self._mems = files.read(f"{path}/cpuset.mems") or "0"
        self._usage = {
            controller: tuple(file for file in names if os.path.exists(f"{self._trees[controller]}/{file}"))
            for controller, names in _USAGE.items()
            if controller in self._trees
        }

    def _directory(self, controller: str, attempt_id: str) -> str:
        return f"{self._trees[controller]}/{job_directory(attempt_id)}"

    def _trees_for(self, attempt_id: str, limits: CgroupLimits) -> list[str]:
        """The attempt's directories for its controllers; those mounted together are one."""
        names = (*self._always, *(("cpuset",) if limits.cpus is not None and "cpuset" in self._trees else ()))
        return list(dict.fromkeys(self._directory(name, attempt_id) for name in names))

    def limit_files(self, attempt_id: str, limits: CgroupLimits, *, only_set: bool) -> list[tuple[str, str, str]]:
        found: list[tuple[str, str, str]] = []
        if (
            "memory" in self._trees
        ):  # first: the one that is refused to a running attempt, before anything else has changed
            directory = self._directory("memory", attempt_id)
            found += self._new_memory(directory, limits) if only_set else self._changed_memory(directory, limits)

        def add(controller: str, name: str, value: object, limit: str, lifted: str) -> None:
            if controller in self._trees and (value is not None or not only_set):
                path = f"{self._directory(controller, attempt_id)}/{name}"
                found.append((path, lifted if value is None else str(value), limit))

        if limits.cpu_percent is None:
            add("cpu", "cpu.cfs_quota_us", None, "cpu", "-1")
        else:
            quota, period = cpu_bandwidth(limits.cpu_percent)
            add("cpu", "cpu.cfs_period_us", None if only_set and period == PERIOD_US else period, "cpu", "")
            add("cpu", "cpu.cfs_quota_us", quota, "cpu", "")
        if limits.cpus is not None:
            if only_set:
                add("cpuset", "cpuset.mems", self._mems, "cpus", "")
            add("cpuset", "cpuset.cpus", limits.cpus, "cpus", "")
        add("pids", "pids.max", limits.pids, "pids", "max")
        if limits.io is not None:
            for name, file in _BLKIO.items():
                value = getattr(limits.io, name)
                text = None if value is None else f"{limits.io.device} {value}"
                add("blkio", file, text, "io", f"{limits.io.device} 0")
        return found

    def _new_memory(self, directory: str, limits: CgroupLimits) -> list[tuple[str, str, str]]:
        """memory first: the kernel wants it never above memory and swap together, and both are unlimited yet."""
        if limits.memory_bytes is None:
            return []
        memory = (f"{directory}/memory.limit_in_bytes", str(limits.memory_bytes), "memory")
        if self._has_memsw:
            total = str(limits.memory_bytes + limits.swap_bytes)
            return [memory, (f"{directory}/memory.memsw.limit_in_bytes", total, "swap")]
        return [memory, *([(f"{directory}/memory.swappiness", "0", "swap")] if limits.swap_bytes == 0 else [])]

    def _changed_memory(self, directory: str, limits: CgroupLimits) -> list[tuple[str, str, str]]:
        """As above; which of the two goes first depends on the direction."""
        asked = limits.memory_bytes
        memory = (f"{directory}/memory.limit_in_bytes", "-1" if asked is None else str(asked), "memory")
        if not self._has_memsw:
            off = asked is not None and limits.swap_bytes == 0
            usual = files.read(f"{os.path.dirname(directory)}/memory.swappiness") or "60"
            return [memory, (f"{directory}/memory.swappiness", "0" if off else usual, "swap")]
        total = None if asked is None else asked + limits.swap_bytes
        memsw = (f"{directory}/memory.memsw.limit_in_bytes", "-1" if total is None else str(total), "swap")
        present = bounded(files.read(memsw[0]))
        rises = total is None or (present is not None and total > present)
        return [memsw, memory] if rises else [memory, memsw]

    def plan(self, attempt_id: str, limits: CgroupLimits) -> CgroupPlan:
        trees = self._trees_for(attempt_id, limits)
        memory = self._directory("memory", attempt_id) if "memory" in self._trees else ""
        return {
            "mkdir": trees,
            "write": self.limit_files(attempt_id, limits, only_set=True),
            "init_into": self.inits_directory,
            "command_into": None,
            # Not cgroup.procs: to move whole thread groups, the kernel waits for a grace period of RCU, some 10 ms.
            "join": [f"{tree}/tasks" for tree in trees],
            "usage": self.usage_files(attempt_id),
            "oom": {"control": f"{memory}/memory.oom_control", "event_control": f"{memory}/cgroup.event_control"}
            if memory
            else None,
        }

    def view(self, plan: CgroupPlan) -> dict[str, str]:
        """By the names of the mount points, such as ``memory``; ``cpu,cpuacct`` where these are one."""
        below = len(self.relative.split("/")) + 1
        return {path.split("/")[-1 - below]: path for path in plan["mkdir"]}

    def apply_limits(self, attempt_id: str, limits: CgroupLimits) -> None:
        self.require(attempt_id)
        if limits.cpus is not None and "cpuset" in self._trees:
            self._join_cpuset(attempt_id)
        for path, value, _ in self.limit_files(attempt_id, limits, only_set=False):
            files.write(path, value)
        if limits.cpus is None and "cpuset" in self._trees:
            directory = self._directory("cpuset", attempt_id)
            if os.path.isdir(directory):
                files.write(f"{directory}/cpuset.cpus", files.read(f"{self._trees['cpuset']}/cpuset.cpus") or "0")
        if limits.io is None and "blkio" in self._trees:
            self._lift_io(self._directory("blkio", attempt_id))

    def _join_cpuset(self, attempt_id: str) -> None:
        """An attempt that did without this controller so far: make its directory and move the processes there."""
        directory = self._directory("cpuset", attempt_id)
        if os.path.isdir(directory):
            return
        self._make_cpuset(directory)
        moved: set[int] = set()
        while new := set(self.processes(attempt_id)) - moved:  # again, for what was forked meanwhile
            for pid in new:
                try:
                    files.write(f"{directory}/cgroup.procs", str(pid))
                except CgroupError as error:
                    if not isinstance(error.__cause__, ProcessLookupError):
                        raise
            moved |= new

    def _make_cpuset(self, directory: str) -> None:
        files.make_directories(directory)
        inherit_cpuset(self._trees["cpuset"], directory)

    def _lift_io(self, directory: str) -> None:
        for file in _BLKIO.values():
            for line in (files.read(f"{directory}/{file}") or "").splitlines():
                files.write(f"{directory}/{file}", f"{line.split()[0]} 0")

    def read_limits(self, attempt_id: str, limits: CgroupLimits) -> tuple[LimitReading, ...]:
        missing = dict(self.unenforceable(limits))
        readings: list[LimitReading] = []

        def value(controller: str, name: str) -> str | None:
            tree = controller in self._trees
            return files.read(f"{self._directory(controller, attempt_id)}/{name}") if tree else None

        if limits.cpu_percent is not None:
            share = cpu_percent(value("cpu", "cpu.cfs_quota_us"), value("cpu", "cpu.cfs_period_us"))
            readings.append(percent_reading(limits.cpu_percent, share, missing.get("cpu", "")))
        if limits.cpus is not None:
            readings.append(cpus_reading(limits.cpus, value("cpuset", "cpuset.cpus"), missing.get("cpus", "")))
        if limits.memory_bytes is not None:
            why = missing.get("memory", "")
            memory = bounded(value("memory", "memory.limit_in_bytes"))
            readings.append(size_reading("memory", limits.memory_bytes, memory, why))
            memsw = bounded(value("memory", "memory.memsw.limit_in_bytes"))
            swap = memsw - memory if memsw is not None and memory is not None else None
            swappiness = files.number(value("memory", "memory.swappiness"))
            readings.append(
                swap_reading(limits.swap_bytes, swap, swappiness=swappiness, missing=why or missing.get("swap", ""))
            )
        if limits.pids is not None:
            pids = files.number(value("pids", "pids.max"))
            readings.append(count_reading("pids", limits.pids, pids, missing.get("pids", "")))
        if limits.io is not None:
            for name, label in IO_NAMES.items():
                if (asked := getattr(limits.io, name)) is not None:
                    effective = files.pairs(value("blkio", _BLKIO[name])).get(limits.io.device)
                    note = DIRECT_IO_ONLY if name.startswith("write") else ""
                    readings.append(io_reading(label, asked, effective, missing.get("io", ""), note))
        return tuple(readings)

    def usage_files(self, attempt_id: str) -> dict[str, str]:
        name = job_directory(attempt_id)
        return {
            file: f"{self._trees[controller]}/{name}/{file}"
            for controller in self._always
            for file in self._usage.get(controller, ())
        }

    def cpu_seconds(self, attempt_id: str) -> float | None:
        if "cpuacct" not in self._trees:
            return None
        return _cpu_seconds({CPU_USAGE: files.read(f"{self._directory('cpuacct', attempt_id)}/{CPU_USAGE}")})

    def parse_usage(self, raw: Mapping[str, str]) -> CgroupUsage:
        cpu = files.pairs(raw.get("cpu.stat"))
        io = raw.get("blkio.throttle.io_service_bytes")
        return CgroupUsage(
            memory_bytes=files.number(raw.get("memory.usage_in_bytes")),
            memory_peak_bytes=files.number(raw.get("memory.max_usage_in_bytes")),
            cpu_seconds=_cpu_seconds(raw),
            throttled_seconds=cpu["throttled_time"] / 1e9 if "throttled_time" in cpu else None,
            pids=files.number(raw.get("pids.current")),
            io_read_bytes=_service_bytes(io, "Read"),
            io_write_bytes=_service_bytes(io, "Write"),
            oom_kills=files.pairs(raw.get("memory.oom_control")).get("oom_kill"),
        )

    def _freeze(self, attempt_id: str, *, frozen: bool) -> None:
        """By pids.max, which stops all forks for good, or else by the freezer; without either the killing goes on until no new
        process is found."""
        directory = self.directories(attempt_id)[0]
        if "pids" in self._trees:
            if frozen:
                files.write(f"{directory}/pids.max", "0")
        elif "freezer" in self._trees:
            files.write(f"{directory}/freezer.state", "FROZEN" if frozen else "THAWED")

    def _is_frozen(self, attempt_id: str) -> bool:
        return files.read(f"{self.directories(attempt_id)[0]}/freezer.state") in ("FROZEN", None)


def inherit_cpuset(parent: str, child: str) -> None:
    """A new v1 cpuset is empty and takes no process: give it what its parent has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(f"{child}/{name}"):
            files.write(f"{child}/{name}", files.read(f"{parent}/{name}") or "0")


def bounded(text: str | None) -> int | None:
    """A limit in bytes; None: unlimited."""
    value = files.number(text)
    return None if value is None or value >= UNLIMITED_BYTES else value


def _cpu_seconds(raw: Mapping[str, str | None]) -> float | None:
    unified_us = files.pairs(raw.get(UNIFIED_CPU_STAT)).get("usage_usec")
    if unified_us is not None:
        return unified_us / 1e6
    cpu_ns = files.number(raw.get(CPU_USAGE))
    return None if cpu_ns is None else cpu_ns / 1e9


def _service_bytes(text: str | None, kind: str) -> int | None:
    """Of all disks; a loop device's bytes are counted again on the disk below it, so it counts only if there is no other."""
    if text is None:
        return None
    lines = [line.split() for line in text.splitlines()]
    counts = [(words[0], int(words[2])) for words in lines if len(words) == 3 and words[1] == kind]
    disks = [count for device, count in counts if not device.startswith("7:")]
    return sum(disks or [count for _, count in counts])

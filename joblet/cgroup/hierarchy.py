"""The one interface to cgroups, and what both hierarchies share: names, killing, removal.

An attempt's cgroup ``<base>/job-<attempt id>`` holds the command's processes alone and carries the limits; all inits sit in the
leaf ``<base>/inits`` beside it, so that neither an OOM kill nor a CPU quota of the job reaches them.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

from joblet.cgroup import files
from joblet.cgroup.errors import CgroupError
from joblet.cgroup.model import CgroupLimits, CgroupPlan, CgroupUsage, LimitReading, Mode

ROOT = "/sys/fs/cgroup"
JOB_PREFIX = "job-"
INITS = "inits"
EMPTY_WITHIN_SECONDS = 10.0
CPU_PERIOD_US = 100_000
_ATTEMPT = re.compile(r"[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?")


class Hierarchy(ABC):
    """cgroups of attempts below one base."""

    mode: Mode

    def __init__(self, base: str) -> None:
        """base: as the unified path, ``/sys/fs/cgroup/joblet.slice/joblet.service``; v1 uses the same path below each
        controller. Raises CgroupError if it does not lie below /sys/fs/cgroup."""
        relative = os.path.relpath(os.path.normpath(base), ROOT)
        if relative.startswith("..") or relative == ".":
            raise CgroupError("not a cgroup", where=base, todo=f"cgroup.baseDir is a path below {ROOT}")
        self.relative = relative

    @property
    @abstractmethod
    def controllers(self) -> frozenset[str]:
        """The controllers that can be used, by their v2 names: cpu, cpuset, memory, pids, io."""

    @property
    @abstractmethod
    def bases(self) -> tuple[str, ...]:
        """The base directory in each mounted hierarchy in use; the one that tracks processes comes first."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the base, switch on its controllers. Idempotent. Raises CgroupError."""

    @abstractmethod
    def limit_files(self, attempt_id: str, limits: CgroupLimits, *, only_set: bool) -> list[tuple[str, str, str]]:
        """(file, value, limit) in the order in which they are written. only_set: leave out what is not limited."""

    @abstractmethod
    def plan(self, attempt_id: str, limits: CgroupLimits) -> CgroupPlan:
        """How to make the attempt's cgroup with its limits."""

    @abstractmethod
    def read_limits(self, attempt_id: str, limits: CgroupLimits) -> tuple[LimitReading, ...]:
        """Each limit that was asked for, as the kernel has it now."""

    @abstractmethod
    def usage_files(self, attempt_id: str) -> dict[str, str]:
        """key: file, for everything that ``parse_usage`` knows."""

    @abstractmethod
    def parse_usage(self, raw: Mapping[str, str]) -> CgroupUsage:
        """Figures from the texts of ``usage_files``."""

    def usage(self, attempt_id: str) -> CgroupUsage:
        """What the attempt uses now; all None once its cgroup is gone."""
        texts = {key: files.read(path) for key, path in self.usage_files(attempt_id).items()}
        return self.parse_usage({key: text for key, text in texts.items() if text is not None})

    def unenforceable(self, limits: CgroupLimits) -> tuple[tuple[str, str], ...]:
        """(limit, why) of each that is asked for and that this host cannot enforce."""
        asked = {
            "cpu": ("cpu", limits.cpu_percent),
            "cpus": ("cpuset", limits.cpus),
            "memory": ("memory", limits.memory_bytes),
            "pids": ("pids", limits.pids),
            "io": ("io", limits.io),
        }
        return tuple(
            (name, f"this host has no {controller} controller (cgroup {self.mode})")
            for name, (controller, value) in asked.items()
            if value is not None and controller not in self.controllers
        )

    def apply_limits(self, attempt_id: str, limits: CgroupLimits) -> None:
        """Change the limits of a running attempt. What is None is lifted. Raises CgroupError."""
        for path, value, _ in self.limit_files(attempt_id, limits, only_set=False):
            files.write(path, value)

    def directories(self, attempt_id: str) -> list[str]:
        """The attempt's directory in each hierarchy. Raises CgroupError for an id that is none."""
        if not _ATTEMPT.fullmatch(attempt_id):
            raise CgroupError("not an attempt id", where=attempt_id)
        return [f"{base}/{JOB_PREFIX}{attempt_id}" for base in self.bases]

    def list_attempts(self) -> list[str]:
        """The ids of all attempts that have a cgroup in any hierarchy."""
        found: set[str] = set()
        for base in self.bases:
            if os.path.isdir(base):
                found.update(name.removeprefix(JOB_PREFIX) for name in os.listdir(base) if name.startswith(JOB_PREFIX))
        return sorted(found)

    def processes(self, attempt_id: str) -> list[int]:
        """The pids in the attempt's cgroup and below."""
        directory = self.directories(attempt_id)[0]
        pids: list[int] = []
        for path in (*files.directories_below(directory), directory):
            pids.extend(int(line) for line in (files.read(f"{path}/cgroup.procs") or "").split())
        return pids

    def kill(self, attempt_id: str) -> None:
        """Kill all processes of the attempt, with cgroup.kill (Linux 5.14) or else frozen, killed one by one and thawed."""
        directory = self.directories(attempt_id)[0]
        try:
            files.write(f"{directory}/cgroup.kill", "1")
        except CgroupError as error:
            if isinstance(error.__cause__, FileNotFoundError) and not os.path.isdir(directory):
                return
            self._kill_frozen(attempt_id)

    def _kill_frozen(self, attempt_id: str) -> None:
        """None can fork while they are frozen; the signals work once they thaw."""
        self._freeze(attempt_id, frozen=True)
        try:
            for pid in self.processes(attempt_id):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        finally:
            self._freeze(attempt_id, frozen=False)

    @abstractmethod
    def _freeze(self, attempt_id: str, *, frozen: bool) -> None: ...

    def remove(self, attempt_id: str) -> None:
        """Remove the attempt's cgroup everywhere, once it is empty; waits for that, bounded. Raises CgroupError."""
        for directory in self.directories(attempt_id):
            if os.path.isdir(directory):
                remove_tree(directory)

    def remove_base(self) -> None:
        """Remove the base and what is ours above it, where it is empty."""
        for base in self.bases:
            for directory in (f"{base}/{INITS}", base):
                try:
                    os.rmdir(directory)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                        raise


def remove_tree(directory: str) -> None:
    """Remove a cgroup with all below it. Dying processes linger: wait for the kernel's word that it is empty."""
    deadline = time.monotonic() + EMPTY_WITHIN_SECONDS
    while True:
        try:
            for path in (*files.directories_below(directory), directory):
                os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise CgroupError(f"cannot remove it: {error.strerror}", where=directory) from error
        left = deadline - time.monotonic()
        if left <= 0:
            raise CgroupError("still has processes", where=directory, todo="see its cgroup.procs")
        wait_for_change(f"{directory}/cgroup.events", left)


def wait_for_change(events: str, seconds: float) -> None:
    """Wait for a change of cgroup.events, at most so long; v1 has no such file, there it is a short pause."""
    try:
        fd = os.open(events, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        time.sleep(min(seconds, 0.005))
        return
    try:
        if b"populated 0" in os.read(fd, 256):
            time.sleep(min(seconds, 0.001))  # empty, yet busy: its last process is being reaped
            return
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        poll.poll(min(seconds, 1.0) * 1000)
    finally:
        os.close(fd)


def cpu_quota_us(percent: float) -> int:
    """The quota of one period; the kernel's least is 1 ms."""
    return max(round(CPU_PERIOD_US * percent / 100), 1000)


def readable_size(value: int | None) -> str:
    """Bytes as people write them: the largest binary unit that is exact."""
    if value is None:
        return "max"
    for unit, factor in (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def readable_percent(value: float) -> str:
    return f"{value:.10g}%"


def parse_cpus(text: str) -> frozenset[int]:
    """The CPUs of a list such as ``0-1,3``."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def size_reading(name: str, asked: int, effective: int | None) -> LimitReading:
    """Compare sizes; the kernel rounds down to pages."""
    enforced = effective is not None and 0 <= asked - effective < 65536
    return LimitReading(
        name,
        readable_size(asked),
        readable_size(effective),
        enforced,
        "" if enforced else "the kernel has another value",
    )

"""The one interface to cgroups, and what both hierarchies share: names, killing, removal.

An attempt's cgroup ``<base>/job-<attempt id>`` holds the command's processes alone and carries the limits; all inits sit in the
leaf ``<base>/inits`` beside it, so that neither an OOM kill nor a CPU quota of the job reaches them.

What can be enforced is decided once, by ``prepare``; ``plan`` is pure, so that a launch costs no questions to the kernel.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

from joblet.cgroup import files
from joblet.cgroup.errors import CgroupError
from joblet.cgroup.model import CgroupLimits, CgroupPlan, CgroupUsage, LimitReading, Mode
from joblet.cgroup.readings import parse_cpus
from joblet.cgroup.readings import readable_percent as readable_percent
from joblet.cgroup.readings import readable_size as readable_size
from joblet.cgroup.removal import EMPTY_WITHIN_SECONDS, remove_if_empty, remove_tree

ROOT = "/sys/fs/cgroup"
CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids", "io"})
JOB_PREFIX = "job-"
INITS = "inits"
SPARE = "spare"  # made beforehand, to be named after the attempt that takes it
DAEMON = "daemon"
FROZEN_WITHIN_SECONDS = 2.0
_ATTEMPT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?")
_DEVICE = re.compile(r"[0-9]+:[0-9]+")


class Hierarchy(ABC):
    """cgroups of attempts below one base."""

    mode: Mode
    empty_within_seconds = EMPTY_WITHIN_SECONDS

    def __init__(self, base: str, enabled: frozenset[str] = CONTROLLERS) -> None:
        """base: as the unified path, ``/sys/fs/cgroup/joblet.slice/joblet.service``; v1 uses the same path below each
        controller. enabled: the controllers that may be used. Raises CgroupError if base does not lie below /sys/fs/cgroup."""
        relative = os.path.relpath(os.path.normpath(base), ROOT)
        if relative.startswith("..") or relative == ".":
            raise CgroupError("not a cgroup", where=base, todo=f"cgroup.baseDir is a path below {ROOT}")
        self.relative = relative
        self.enabled = enabled
        self._lock_fd: int | None = None
        self.made: list[str] = []
        """What ``prepare`` made above the base, and may be removed with it; an owner that comes back adds what it knows."""

    @property
    @abstractmethod
    def controllers(self) -> frozenset[str]:
        """The controllers that can be used, by their v2 names: cpu, cpuset, memory, pids, io."""

    @property
    @abstractmethod
    def bases(self) -> tuple[str, ...]:
        """The base directory in each mounted hierarchy in use; the one that tracks processes comes first."""

    @property
    def entered_by_thread(self) -> bool:
        """Whether a process enters an attempt's cgroups at once, by itself, by ``tasks``. Into those of v2 it has to be born."""
        return self.mode is not Mode.V2

    @property
    @abstractmethod
    def inits_directory(self) -> str | None:
        """The leaf of all inits, for CLONE_INTO_CGROUP; None in pure v1, where inits stay where the launcher is."""

    @property
    def spare_directories(self) -> tuple[str, ...]:
        """What may be made before it is known for which attempt, and is renamed then: only v1 knows how."""
        return ()

    @abstractmethod
    def prepare(self) -> None:
        """Make the base, switch on its controllers. Idempotent. Raises CgroupError."""

    @abstractmethod
    def limit_files(self, attempt_id: str, limits: CgroupLimits, *, only_set: bool) -> list[tuple[str, str, str]]:
        """(file, value, limit) in the order in which they are written. only_set: for a new cgroup, leave out what is not
        limited; else what is not limited is lifted."""

    @abstractmethod
    def plan(self, attempt_id: str, limits: CgroupLimits) -> CgroupPlan:
        """How to make the attempt's cgroup with its limits. Raises CgroupError for an id that is none."""

    @abstractmethod
    def view(self, plan: CgroupPlan) -> dict[str, str]:
        """The attempt's own directories by the name under which programs look for each; the unified one has none, ``""``."""

    @abstractmethod
    def read_limits(self, attempt_id: str, limits: CgroupLimits) -> tuple[LimitReading, ...]:
        """Each limit that was asked for, as the kernel has it now."""

    @abstractmethod
    def usage_files(self, attempt_id: str) -> dict[str, str]:
        """key: file, for everything that ``parse_usage`` knows."""

    @abstractmethod
    def parse_usage(self, raw: Mapping[str, str]) -> CgroupUsage:
        """Figures from the texts of ``usage_files``."""

    @abstractmethod
    def cpu_seconds(self, attempt_id: str) -> float | None:
        """What the attempt has used so far, as in ``usage``, from one file."""

    @abstractmethod
    def missing_controller(self, controller: str) -> str:
        """Why a controller cannot be used."""

    @abstractmethod
    def usable_cpus(self) -> frozenset[int]:
        """The CPUs that jobs may be given."""

    @abstractmethod
    def limits_swap(self) -> bool:
        """Whether the kernel accounts for swap by cgroup."""

    def lock(self) -> None:
        """Make the base ours alone until ``unlock`` or our end: everything in it counts as our attempts. Raises CgroupError."""
        fd = os.open(self.bases[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise CgroupError(
                "another daemon uses it", where=self.bases[0], todo="stop that one, or give each its own cgroup.baseDir"
            ) from None
        self._lock_fd = fd

    def unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def restore(self) -> None:
        """Make the base again if somebody removed it while it was empty."""
        if not all(os.path.isdir(base) for base in self.bases):
            self.prepare()
            self.unlock()
            self.lock()

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
        found = [
            (name, self._why_missing(controller))
            for name, (controller, value) in asked.items()
            if value is not None and controller not in self.controllers
        ]
        missing = {name for name, _ in found}
        if limits.cpus is not None and "cpus" not in missing and (absent := self._absent_cpus(limits.cpus)):
            found.append(("cpus", absent))
        if limits.io is not None and "io" not in missing and (why := _unfit_device(limits.io.device)):
            found.append(("io", why))
        if limits.memory_bytes is not None and "memory" not in missing and (why := self._unlimited_swap(limits)):
            found.append(("swap", why))
        return tuple(found)

    def _why_missing(self, controller: str) -> str:
        if controller not in self.enabled:
            return f"cgroup.enableControllers in the daemon's configuration does not name {controller}"
        return self.missing_controller(controller)

    def _absent_cpus(self, cpus: str) -> str:
        usable = self.usable_cpus()
        try:
            absent = parse_cpus(cpus) - usable
        except ValueError:
            return f"{cpus!r} is not a list of CPUs such as 0-1,3"
        if not absent:
            return ""
        return f"CPU {min(absent)} is not there: jobs can use {','.join(map(str, sorted(usable)))}"

    @abstractmethod
    def _unlimited_swap(self, limits: CgroupLimits) -> str:
        """Why the swap limit beside a memory limit cannot be enforced, or an empty string."""

    def apply_limits(self, attempt_id: str, limits: CgroupLimits) -> None:
        """Change the limits of a running attempt. What is None is lifted. Raises CgroupError, also if it has no cgroup."""
        self.require(attempt_id)
        for path, value, _ in self.limit_files(attempt_id, limits, only_set=False):
            files.write(path, value)

    def require(self, attempt_id: str) -> None:
        """Raises CgroupError if the attempt has no cgroup."""
        directory = self.directories(attempt_id)[0]
        if not os.path.isdir(directory):
            raise CgroupError("has no cgroup: it has ended", where=attempt_id)

    def directories(self, attempt_id: str) -> list[str]:
        """The attempt's directory in each hierarchy. Raises CgroupError for an id that is none."""
        name = job_directory(attempt_id)
        return [f"{base}/{name}" for base in self.bases]

    def list_attempts(self) -> list[str]:
        """The ids of all attempts that have a cgroup in any hierarchy."""
        found: set[str] = set()
        for base in self.bases:
            try:
                names = os.listdir(base)
            except FileNotFoundError:
                continue
            found.update(name.removeprefix(JOB_PREFIX) for name in names if name.startswith(JOB_PREFIX))
        return sorted(name for name in found if _ATTEMPT.fullmatch(name))

    def processes(self, attempt_id: str) -> list[int]:
        """The pids in the attempt's cgroup and below."""
        directory = self.directories(attempt_id)[0]
        pids: list[int] = []
        for path in (*files.directories_below(directory), directory):
            pids.extend(int(line) for line in (files.read(f"{path}/cgroup.procs") or "").split())
        return pids

    def kill(self, attempt_id: str) -> None:
        """Kill all processes of the attempt, with cgroup.kill (Linux 5.14) or else frozen, killed one by one and thawed.

        Does not wait for their end: ``remove`` does. An attempt without a cgroup has nothing to kill. Raises CgroupError.
        """
        directory = self.directories(attempt_id)[0]
        try:
            files.write(f"{directory}/cgroup.kill", "1")
        except CgroupError as error:
            if not os.path.isdir(directory):
                return
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            self.kill_frozen(attempt_id)

    def kill_frozen(self, attempt_id: str) -> None:
        """As ``kill``, without cgroup.kill. None can fork while all are frozen; the signals work once they thaw.

        Looks again afterwards, for what was forked while the freezer was not yet through.
        """
        signalled: set[int] = set()
        while new := set(self.processes(attempt_id)) - signalled:
            self._freeze(attempt_id, frozen=True)
            try:
                self._wait_until_frozen(attempt_id)
                for pid in new | set(self.processes(attempt_id)) - signalled:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    finally:
                        signalled.add(pid)
            finally:
                self._freeze(attempt_id, frozen=False)

    def _wait_until_frozen(self, attempt_id: str) -> None:
        """Bounded: a process that waits in the kernel can't freeze, and can't fork either."""
        deadline = time.monotonic() + FROZEN_WITHIN_SECONDS
        while not self._is_frozen(attempt_id) and time.monotonic() < deadline:
            time.sleep(0.001)

    @abstractmethod
    def _freeze(self, attempt_id: str, *, frozen: bool) -> None: ...

    @abstractmethod
    def _is_frozen(self, attempt_id: str) -> bool: ...

    def remove(self, attempt_id: str) -> None:
        """Remove the attempt's cgroup everywhere, once it is empty; waits for that, bounded. Raises CgroupError."""
        for directory in self.directories(attempt_id):
            remove_tree(directory, self.empty_within_seconds)

    def remove_base(self) -> None:
        """Remove the base where it is empty, and those above it that ``prepare`` made. Raises CgroupError."""
        leaves = [f"{base}/{leaf}" for base in self.bases for leaf in (INITS, DAEMON, SPARE)]
        for directory in (*leaves, *self.bases, *reversed(self.made)):
            remove_if_empty(directory)
        self.made = [directory for directory in self.made if os.path.isdir(directory)]

    def close_door(self) -> None:  # noqa: B027  only v2 has one
        """Undo what lets systemd start a daemon among running jobs (see ``unit``), where that was needed. Raises OSError."""

    def _make(self, directory: str) -> None:
        self.made += files.make_directories(directory)


def job_directory(attempt_id: str) -> str:
    """The name of an attempt's cgroup. Raises CgroupError for an id that is none: it must not lead elsewhere."""
    if not _ATTEMPT.fullmatch(attempt_id):
        raise CgroupError("not an attempt id", where=repr(attempt_id))
    return f"{JOB_PREFIX}{attempt_id}"


def _unfit_device(device: str) -> str:
    if not _DEVICE.fullmatch(device):
        return f"{device!r} is not a disk's major:minor"
    return "" if os.path.exists(f"/sys/dev/block/{device}") else f"this host has no disk {device}"

"""Emergency recovery: find and remove all that daemon, launcher and jobs have on this host, while no daemon runs.

What is ours is told by place and name alone (cgroups below the base, mounts and loop devices of our directories, interfaces with
our mark), so that it works whatever state the database is in. Records and files of attempts stay: the next daemon reads from them
how its jobs ended, and removes them itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from joblet.cgroup import CgroupError, Hierarchy, files, open_hierarchy
from joblet.cgroup.removal import remove_if_empty, remove_tree
from joblet.errors import JobletError
from joblet.sandbox import syscalls
from jobletd.executor.local import attempt_files
from jobletd.executor.local.networking.host_networks import HostNetworks, NetworkSettings

RECORDED_WITHIN_SECONDS = 5.0
GONE_WITHIN_SECONDS = 10.0
LOOK_SECONDS = 0.02
LOOP_CLR_FD = 0x4C01


class Kind(StrEnum):
    """In the order in which they go."""

    PROCESS = "process"
    CGROUP = "cgroup"
    MOUNT = "mount"
    LOOP = "loop device"
    INTERFACE = "interface"
    RULES = "packet filter"


@dataclass(frozen=True, slots=True)
class Thing:
    """Something of ours. name: a pid, a path, or the interface's name."""

    kind: Kind
    name: str
    detail: str = ""


class Cleanup:
    """For one configuration. state, run: its directories."""

    def __init__(self, *, state: str, run: str, cgroup_base: str, networks: NetworkSettings) -> None:
        self._directories = tuple(os.path.realpath(path) for path in (run, state))
        self._state, self._run = state, run
        self._networks = HostNetworks(networks)
        try:
            self._hierarchy: Hierarchy | None = open_hierarchy(cgroup_base)
        except CgroupError:
            self._hierarchy = None  # none is mounted: then there is nothing of ours in it

    async def find(self) -> list[Thing]:
        """All that is there, in the order in which it would go."""
        networks = await self._networks.remains()
        return [
            *(Thing(Kind.PROCESS, str(pid), _command(pid)) for pid in sorted(self._pids())),
            *(Thing(Kind.CGROUP, path) for base in self._bases() for path in (*files.directories_below(base), base)),
            *(Thing(Kind.MOUNT, path) for path in self._mounts()),
            *(Thing(Kind.LOOP, device, image) for device, image in self._loops()),
            *(Thing(Kind.INTERFACE, name) for name in networks.interfaces),
            *(Thing(Kind.RULES, table) for table in networks.tables),
        ]

    async def remove(self) -> list[str]:
        """Take all of it away. Returns what could not be done, in words."""
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("jobs", self._end_jobs),
            ("processes", self._end_processes),
            ("cgroups", self._remove_cgroups),
            ("mounts", self._unmount),
            ("loop devices", self._detach_loops),
        )
        failures = []
        for what, step in steps:  # one that fails must not keep the others from being done
            try:
                await asyncio.to_thread(step)
            except (JobletError, OSError) as error:
                failures.append(f"{what}: {error}")
        try:
            await self._networks.remove_all()
        except (JobletError, OSError) as error:
            failures.append(f"networks: {error}")
        return failures

    # --- processes ----------------------------------------------------------------------------------------------------

    def _end_jobs(self) -> None:
        """The commands first: then their inits record the end, and follow."""
        if self._hierarchy is not None:
            for attempt in self._hierarchy.list_attempts():
                self._hierarchy.kill(attempt)
        deadline = time.monotonic() + RECORDED_WITHIN_SECONDS
        while self._inits() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def _end_processes(self) -> None:
        """Launcher, spare init, inits that hang; whoever is forked meanwhile."""
        deadline = time.monotonic() + GONE_WITHIN_SECONDS
        while pids := self._pids():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise JobletError("do not end", where=f"pids {' '.join(map(str, sorted(pids)))}", todo="reboot")
            time.sleep(LOOK_SECONDS)

    def _pids(self) -> set[int]:
        """In our cgroups, and inits of attempts on record wherever they are."""
        found = set(self._inits())
        for base in self._bases()[:1]:
            for path in (*files.directories_below(base), base):
                found.update(int(line) for line in (files.read(f"{path}/cgroup.procs") or "").split())
        return found - {os.getpid()}

    def _inits(self) -> list[int]:
        found = []
        for directory in Path(self._state, "attempts").glob("*/"):
            state = attempt_files.read_state(str(directory)) if attempt_files.lock_is_held(str(directory)) else None
            if state and state.pid and attempt_files.start_time_of(state.pid) == state.start_time:
                found.append(state.pid)
        return found

    # --- cgroups ------------------------------------------------------------------------------------------------------

    def _bases(self) -> list[str]:
        """Those that are there; what tracks processes comes first."""
        return [] if self._hierarchy is None else [base for base in self._hierarchy.bases if os.path.isdir(base)]

    def _remove_cgroups(self) -> None:
        if self._hierarchy is None:
            return
        self._hierarchy.close_door()
        for base in self._bases():
            remove_tree(base)
        record = Path(self._run, "cgroups-made")
        if record.exists():
            for path in reversed(record.read_text().splitlines()):
                remove_if_empty(path)

    # --- mounts and loop devices --------------------------------------------------------------------------------------

    def _mounts(self) -> list[str]:
        """Below our directories: memory, and file systems in images. The deepest first. What an administrator mounted is
        something else, or is one of the directories itself."""
        found = []
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            target, (kind, source, *_) = _unescaped(before.split()[4]), after.split()
            ours = any(target.startswith(f"{directory}/") for directory in self._directories)
            if ours and (kind == "tmpfs" or source.startswith("/dev/loop")):
                found.append(target)
        return sorted(found, key=len, reverse=True)

    def _unmount(self) -> None:
        for target in self._mounts():
            syscalls.umount2(target, syscalls.MNT_DETACH)

    def _loops(self) -> Iterator[tuple[str, str]]:
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                image = path.read_text().strip()
            except OSError:
                continue  # it has let go just now
            if any(image.startswith(f"{directory}/") for directory in self._directories):
                yield f"/dev/{path.parts[3]}", image

    def _detach_loops(self) -> None:
        for device, _ in self._loops():
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, LOOP_CLR_FD, 0)  # at once, or when its last user is gone
            finally:
                os.close(fd)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"


def _unescaped(path: str) -> str:
    """As mountinfo writes blanks and backslashes."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path

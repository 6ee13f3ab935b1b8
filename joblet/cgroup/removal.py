"""Removing cgroups: bottom-up, once the kernel says that they are empty, for a bounded time."""

from __future__ import annotations

import errno
import os
import select
import time

from joblet.cgroup import files
from joblet.cgroup.errors import CgroupError

EMPTY_WITHIN_SECONDS = 10.0
REAPED_WITHIN_SECONDS = 2.0


def remove_tree(directory: str, seconds: float = EMPTY_WITHIN_SECONDS) -> None:
    """Remove a cgroup with all below it; one that is gone is fine. Dying processes linger: wait for the kernel's word that
    it is empty, at most so many seconds. Raises CgroupError."""
    if _removed(directory):
        return
    deadline = time.monotonic() + seconds
    while True:
        for path in files.directories_below(directory):
            _removed(path)
        if _removed(directory):
            return
        left = deadline - time.monotonic()
        if left <= 0:
            pids = (files.read(f"{directory}/cgroup.procs") or "").split()
            raise CgroupError(
                f"still has processes after {seconds:g} s: {' '.join(pids[:10]) or 'in a cgroup below it'}",
                where=directory,
                todo="a process that SIGKILL does not end waits in the kernel, most often for a disk or network file system",
            )
        wait_for_change(directory, left)


def remove_if_empty(directory: str, seconds: float = REAPED_WITHIN_SECONDS) -> None:
    """Remove a cgroup unless it has processes or cgroups below it. The last process to leave is shown no more some time before
    the kernel lets go of its cgroup: wait for that. Raises CgroupError."""
    deadline = time.monotonic() + seconds
    while not _removed(directory):
        left = deadline - time.monotonic()
        if left <= 0 or files.read(f"{directory}/cgroup.procs") or files.directories_below(directory):
            return
        wait_for_change(directory, left)


def _removed(directory: str) -> bool:
    """Try once. False: it has processes or cgroups below it."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise CgroupError(f"cannot be removed: {error.strerror}", where=directory) from error
        return False
    return True


def wait_for_change(directory: str, seconds: float) -> None:
    """Wait until a process left the cgroup, at most so long (and at most a second: the caller looks again).

    v2 tells by cgroup.events, which becomes readable with POLLPRI when it changes. v1 has no such file: there a pidfd of one
    of its processes says the same.
    """
    limit = min(seconds, 1.0)
    try:
        fd, event = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI
    except OSError:
        fd, event = _pidfd_of_one(directory), select.POLLIN
    if fd < 0:
        time.sleep(min(limit, 0.001))  # empty, yet busy: its last process is being reaped
        return
    try:
        if event == select.POLLPRI and b"populated 0" in os.read(fd, 256):
            time.sleep(min(limit, 0.001))
            return
        poll = select.poll()
        poll.register(fd, event)
        poll.poll(limit * 1000)
    finally:
        os.close(fd)


def _pidfd_of_one(directory: str) -> int:
    for path in (directory, *files.directories_below(directory)):
        for pid in (files.read(f"{path}/cgroup.procs") or "").split():
            try:
                return os.pidfd_open(int(pid))
            except OSError:
                continue  # ended meanwhile
    return -1

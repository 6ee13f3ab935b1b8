"""The one place that reads and writes cgroup files."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from joblet.cgroup.errors import CgroupError

# Not there, its cgroup removed while it was open, or not supported by this kernel: nothing to tell.
_NOTHING_TO_READ = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.ENOTDIR)
_TODO = {
    errno.EBUSY: "it is in use: memory already taken cannot be taken back on cgroup v1, and a v2 cgroup with processes of "
    "its own cannot have controllers for its children",
    errno.EACCES: "joblet needs root, and cgroups that are not mounted read-only",
    errno.EROFS: "the cgroup file system is mounted read-only: a container needs it writable",
    errno.EPERM: "joblet needs root",
    errno.ENODEV: "no such disk, or one that takes no limits",
}


def read(path: str) -> str | None:
    """The file's text without the last newline, or None if the file (or its cgroup) is not there. Raises CgroupError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(fd, 65536):
                parts.append(part)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NOTHING_TO_READ:
            return None
        raise CgroupError(f"cannot be read: {error.strerror}", where=path) from error
    return b"".join(parts).decode().rstrip("\n")


def write(path: str, value: str) -> None:
    """Write one value. Raises CgroupError with the kernel's reason."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        todo = _TODO.get(error.errno or 0, "")
        raise CgroupError(f"the kernel refuses {value!r}: {error.strerror}", where=path, todo=todo) from error


def make_directories(path: str) -> list[str]:
    """Make a cgroup and those above it that are missing; returns the made ones, top first. Raises CgroupError."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    missing.reverse()
    made = []
    for directory in missing:
        try:
            os.mkdir(directory)
        except FileExistsError:
            continue  # somebody else was faster; then it is theirs
        except OSError as error:
            todo = _TODO.get(error.errno or 0, "")
            raise CgroupError(f"cannot be made: {error.strerror}", where=directory, todo=todo) from error
        made.append(directory)
    return made


def number(text: str | None) -> int | None:
    """A file that holds one number; ``max`` and absence are None."""
    return int(text) if text and text.strip().isdigit() else None


def pairs(text: str | None) -> Mapping[str, int]:
    """A flat keyed file: ``key value`` lines."""
    found = {}
    for line in (text or "").splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[key] = int(value)
    return found


def directories_below(path: str) -> list[str]:
    """All cgroups below one, deepest first; not itself."""
    return [entry for entry, _, _ in os.walk(path, topdown=False) if entry != path]

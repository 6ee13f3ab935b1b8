"""The one place that reads and writes cgroup files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from joblet.cgroup.errors import CgroupError


def read(path: str) -> str | None:
    """The file's text without the last newline, or None if the file (or its cgroup) is not there."""
    try:
        return Path(path).read_text().rstrip("\n")
    except (FileNotFoundError, OSError) as error:
        if isinstance(error, FileNotFoundError) or error.errno in (19, 95):  # ENODEV: removed meanwhile; EOPNOTSUPP
            return None
        raise


def write(path: str, value: str) -> None:
    """Write one value. Raises CgroupError with the kernel's reason."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise CgroupError(f"the kernel refuses {value!r}: {error.strerror}", where=path) from error


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

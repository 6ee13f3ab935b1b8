"""What is left of the memory that our own process may use: by its cgroup, and by those above."""

from __future__ import annotations

import os
from dataclasses import dataclass

from joblet.cgroup import files
from joblet.cgroup.detect import mounted

UNLIMITED = 1 << 60  # v1 says "no limit" by a number near 2**63


@dataclass(frozen=True, slots=True)
class OwnMemory:
    """The tightest bound on us. used_bytes: without what the kernel gives back at once. where: its directory."""

    used_bytes: int
    limit_bytes: int
    where: str


def own_memory() -> OwnMemory | None:
    """None: nothing bounds us but the host."""
    found = [bound for directory in _own_directories() if (bound := _bound_of(directory)) is not None]
    return min(found, key=lambda bound: bound.limit_bytes - bound.used_bytes, default=None)


def _own_directories() -> list[str]:
    """Ours, and each one above it below the mount point."""
    v1, v2 = mounted()
    point, prefix = (v1["memory"], "memory") if "memory" in v1 else (v2, "")
    if point is None:
        return []
    with open("/proc/self/cgroup") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    path = next((path for _, names, path in lines if prefix in names.split(",")), "/")
    parts = [part for part in path.split("/") if part and part != ".."]
    return [os.path.join(point, *parts[:count]) for count in range(len(parts), 0, -1)]


def _bound_of(directory: str) -> OwnMemory | None:
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit_bytes = files.number(files.read(f"{directory}/{limit}"))
        used_bytes = files.number(files.read(f"{directory}/{usage}"))
        if limit_bytes is None or used_bytes is None or limit_bytes >= UNLIMITED:
            continue
        given_back = files.pairs(files.read(f"{directory}/memory.stat")).get(cache, 0)
        return OwnMemory(max(used_bytes - given_back, 0), limit_bytes, directory)
    return None

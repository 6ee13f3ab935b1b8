"""Which hierarchy this host has: decided once, at the start."""

from __future__ import annotations

import os

from joblet.cgroup.errors import CgroupError
from joblet.cgroup.hierarchy import CONTROLLERS, ROOT, Hierarchy
from joblet.cgroup.v1 import V1Hierarchy
from joblet.cgroup.v2 import V2Hierarchy

DEFAULT_BASE = f"{ROOT}/joblet.slice/joblet.service"
_V1_CONTROLLERS = frozenset({"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"})


def open_hierarchy(base: str = DEFAULT_BASE, enabled: frozenset[str] = CONTROLLERS) -> Hierarchy:
    """The host's cgroups below ``base``, with these controllers. Nothing is made yet: see ``prepare``.

    Raises CgroupError where there are none.
    """
    v1, v2 = mounted()
    if v2 == ROOT:
        return V2Hierarchy(base, enabled=enabled)
    if v1:
        return V1Hierarchy(base, v1, v2, enabled)
    raise CgroupError(
        "no cgroup hierarchy is mounted", where=ROOT, todo=f"mount -t cgroup2 cgroup2 {ROOT}, or boot with systemd"
    )


def mounted() -> tuple[dict[str, str], str | None]:
    """({v1 controller: mount point}, the v2 tree's mount point), from /proc/self/mountinfo."""
    v1: dict[str, str] = {}
    v2: str | None = None
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            point, kind, options = before.split()[4], after.split()[0], after.split()[2]
            if not point.startswith(ROOT) or not os.path.isdir(point):
                continue
            if kind == "cgroup2" and v2 is None:
                v2 = point
            elif kind == "cgroup":
                v1.update({name: point for name in options.split(",") if name in _V1_CONTROLLERS})
    return v1, v2

"""Which disk a path lies on: I/O limits are set on whole disks."""

from __future__ import annotations

import os

from joblet.cgroup.errors import CgroupError


def device_of(path: str) -> str:
    """``major:minor`` of the whole disk below a path. Raises CgroupError where there is none (tmpfs, network)."""
    number = os.stat(path).st_dev
    sys_path = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    if not os.path.exists(sys_path):
        # btrfs and overlayfs give an anonymous device: look at what is mounted there.
        source = _mount_source(number)
        if source is None or not os.path.exists(source):
            raise CgroupError(
                "lies on no disk of this host",
                where=path,
                todo="put the state directory on a disk, or leave spec.limits.io out",
            )
        rdev = os.stat(source).st_rdev
        sys_path = f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}"
    sys_path = os.path.realpath(sys_path)
    if os.path.exists(f"{sys_path}/partition"):
        sys_path = os.path.dirname(sys_path)
    with open(f"{sys_path}/dev") as file:
        return file.read().strip()


def _mount_source(device: int) -> str | None:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                source = after.split()[1]
                return source if source.startswith("/dev/") else None
    return None

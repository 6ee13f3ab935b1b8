"""Which disk a path lies on: I/O limits are set on whole disks, by ``major:minor``."""

from __future__ import annotations

import os
from typing import NamedTuple

from joblet.cgroup.errors import CgroupError

_MAX_LAYERS = 8
_TODO = "put the state directory on a disk, or leave spec.limits.io out"


class _Mount(NamedTuple):
    point: str
    kind: str
    source: str
    options: dict[str, str]


def device_of(path: str) -> str:
    """``major:minor`` of the disk below a path, which must exist.

    A partition's is its whole disk. Device-mapper, md and loop devices are disks of their own, with limits of their own.
    btrfs and the like show an anonymous device: what they are mounted from is asked; an overlay's is its upper directory's.
    Raises CgroupError where there is none (tmpfs, network file systems), and if the path does not exist.
    """
    looked_at = path
    for _ in range(_MAX_LAYERS):
        try:
            number = os.stat(looked_at).st_dev
        except OSError as error:
            raise CgroupError(f"cannot be looked at: {error.strerror}", where=looked_at) from error
        if disk := _whole_disk(number):
            return disk
        mount = _mount_of(os.path.realpath(looked_at))
        if mount is None:
            break
        upper = mount.options.get("upperdir", "") if mount.kind == "overlay" else ""
        if os.path.isdir(upper):  # it may lie in a mount namespace that is not ours
            looked_at = upper
            continue
        on_disk = mount.source.startswith("/dev/") and os.path.exists(mount.source)
        if on_disk and (disk := _whole_disk(os.stat(mount.source).st_rdev)):
            return disk
        raise CgroupError(f"lies on no disk of this host but on {mount.kind}", where=path, todo=_TODO)
    raise CgroupError("lies on no disk of this host", where=path, todo=_TODO)


def _whole_disk(number: int) -> str | None:
    sys_path = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    if not os.path.exists(sys_path):
        return None
    sys_path = os.path.realpath(sys_path)
    if os.path.exists(f"{sys_path}/partition"):
        sys_path = os.path.dirname(sys_path)
    with open(f"{sys_path}/dev") as file:
        return file.read().strip()


def _mount_of(path: str) -> _Mount | None:
    """The mount that a real path lies in: the longest mount point, and of those that cover each other the last."""
    best: _Mount | None = None
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            point = _unescape(before.split(" ")[4])
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and (best is None or len(point) >= len(best.point)):
                kind, source, options = after.split(" ", 2)
                items = (item.partition("=") for item in options.split(","))
                best = _Mount(point, kind, _unescape(source), {key: _unescape(value) for key, _, value in items})
    return best


def _unescape(text: str) -> str:
    """mountinfo writes blanks, tabs, newlines and backslashes as octal."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text

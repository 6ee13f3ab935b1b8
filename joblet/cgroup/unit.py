"""Our own place where the base is the cgroup of a systemd unit that was delegated to us.

A cgroup with controllers for its children can have no processes, so the daemon lives in a leaf. While jobs of an earlier daemon
run, systemd cannot even start a new one in the unit's cgroup: the kernel says EBUSY. systemd 254 has ``DelegateSubgroup=`` for
that. For earlier ones we leave a door: the inits' ``cgroup.procs``, bound over the unit's, so that whoever is put into the unit
gets in there. As long as jobs run that leaf has processes, and systemd does not remove it.
"""

from __future__ import annotations

import errno
import os

from joblet.cgroup import files
from joblet.cgroup.hierarchy import DAEMON, INITS
from joblet.sandbox import syscalls

_MARKS = ("user.delegate", "trusted.delegate")  # by systemd 251 and later, and by those before
PROCS = "cgroup.procs"


def own_path() -> str:
    """Where we are in the v2 tree, from its root on; empty if there is none."""
    with open("/proc/self/cgroup") as file:
        return next((line[3:].rstrip("\n").strip("/") for line in file if line.startswith("0::")), "")


def go_into_leaf(base: str) -> None:
    """Into the one that is ours; both leaves are there. Raises CgroupError, OSError."""
    by_the_door = own_path().endswith(f"/{INITS}")
    files.write(f"{base}/{DAEMON}/{PROCS}", str(os.getpid()))
    if not by_the_door and is_delegated(base):
        syscalls.mount(f"{base}/{INITS}/{PROCS}", f"{base}/{PROCS}", flags=syscalls.MS_BIND)


def is_delegated(directory: str) -> bool:
    """Whether systemd has made it for a unit with Delegate=."""
    for mark in _MARKS:
        try:
            if os.getxattr(directory, mark) == b"1":
                return True
        except OSError:
            continue
    return False


def close_door(base: str) -> None:
    """Nothing runs that a next daemon would find. Raises OSError."""
    try:
        syscalls.umount2(f"{base}/{PROCS}", syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # no mount, no base
            raise

"""A job's secrets as files: on a ramfs of its own, which unlike tmpfs is never swapped out, read-only once it is filled."""

from __future__ import annotations

import errno
import os
import stat

from joblet.sandbox.syscalls import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT, mount
from joblet.sandbox.workspace_files import write_all

DIRECTORY = "run/secrets"
FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC


def place(root: str, secrets: list[tuple[str, bytes]], uid: int, gid: int) -> None:
    """Write them below /run/secrets of the new root, for that user alone. Raises OSError."""
    top = root
    for name in DIRECTORY.split("/"):
        top = f"{top}/{name}"
        _real_directory(top)
    mount("ramfs", top, "ramfs", FLAGS, "mode=0500")
    os.chown(top, uid, gid)
    for path, data in secrets:
        *parents, name = path.split("/")
        directory = top
        for parent in parents:
            directory = f"{directory}/{parent}"
            if not os.path.isdir(directory):
                os.mkdir(directory, 0o500)
                os.chown(directory, uid, gid)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(f"{directory}/{name}", flags, 0o400)
        write_all(fd, data)
        os.fchown(fd, uid, gid)
        os.close(fd)
    mount("", top, "", MS_REMOUNT | MS_BIND | MS_RDONLY | FLAGS)


def _real_directory(path: str) -> None:
    """A root file system that somebody brought may have a link there, which would lead to the host's own tree."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise OSError(errno.ENOTDIR, "the root file system has no directory there", path) from None

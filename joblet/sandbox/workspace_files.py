"""Puts spec.files into the workspace, owned by the command's user, before any command has run there."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a file system says that cannot do it, or not together with the other one.
CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def fill(work: str, files: list[dict[str, Any]], contents: dict[str, int], uid: int, gid: int) -> None:
    """Write them all. contents: the directories of uploaded contents, by path. No path lies below another, so no link of theirs
    is followed. Raises OSError naming the file."""
    for file in files:
        directory = work
        for part in file["path"].split("/")[:-1]:
            directory += f"/{part}"
            if not os.path.isdir(directory):
                os.mkdir(directory, 0o755)
                os.chown(directory, uid, gid)
        path = f"{work}/{file['path']}"
        if "link" in file:
            _link(file["link"], path)
            os.chown(path, uid, gid, follow_symlinks=False)
            continue
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if "host_path" in file:
                directory, _, name = file["host_path"].rpartition("/")
                copy_content(fd, name, file["size"], contents[directory])
            else:
                write_all(fd, file["content"].encode())
        except OSError as error:
            text = os.strerror(error.errno or 0)
            if error.errno == errno.ENOSPC:
                text += ": spec.limits.disk is too small for spec.files"
            raise OSError(error.errno, text, file["path"]) from error
        os.fchown(fd, uid, gid)
        os.fchmod(fd, file["mode"])
        os.close(fd)


def _link(target: str, path: str) -> None:
    if os.path.islink(path):
        os.unlink(path)  # of an init that was killed over it
    os.symlink(target, path)


def copy_content(target: int, name: str, size: int, directory: int) -> None:
    """Copy a file of the host within the kernel; a file system that can shares its blocks."""
    source = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    left = size
    try:
        if os.fstat(source).st_size != size:
            raise OSError(errno.EIO, "damaged", name)
        try:
            while left and (count := os.copy_file_range(source, target, left)):
                left -= count
        except OSError as error:
            if error.errno not in CANNOT_COPY:
                raise
        while left and (count := os.sendfile(target, source, None, left)):
            left -= count
        if left:
            raise OSError(errno.EIO, "damaged", name)
    finally:
        os.close(source)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

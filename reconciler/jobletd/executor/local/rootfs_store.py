"""Root file systems as jobs get them: a directory as it is; an archive unpacked once, under the hash of its content.

An unpacked one appears with one rename, whole or not at all. What nobody has used for a month goes when the daemon starts. Only
root can look into the store: files in it may belong to any user id of the host.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Collection

from jobletd.executor.local.rootfs_archive import RootfsError, unpack

UNUSED_SECONDS = 30 * 86400
_NEW = ".new-"

Stamp = tuple[int, int, int, int, int]


class RootfsStore:
    """directory: of the unpacked ones."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._known: dict[Stamp, str] = {}
        self._busy = asyncio.Lock()  # one at a time: it is the disk's work

    async def provide(self, path: str) -> tuple[str, str]:
        """The directory of a root file system, and its name in the store (empty: it is not in there).

        Raises RootfsError, OSError.
        """
        async with self._busy:
            return await asyncio.to_thread(self._provide, path)

    def remove_unused(self, in_use: Collection[str]) -> None:
        """Before anything else. in_use: names that living attempts hold."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        os.chmod(self._directory, 0o700)
        for entry in os.scandir(self._directory):
            old = time.time() - entry.stat().st_mtime > UNUSED_SECONDS
            if entry.name.startswith(_NEW) or (old and entry.name not in in_use):
                shutil.rmtree(entry.path)

    def _provide(self, path: str) -> tuple[str, str]:
        path = os.path.realpath(path)
        if os.path.isdir(path):
            return path, ""
        name = self._unpacked(path)
        return f"{self._directory}/{name}", name

    def _unpacked(self, path: str) -> str:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise RootfsError("is neither a directory nor an archive", where=path, todo="name one of them")
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            name = self._known.get(stamp) or hashlib.file_digest(file, "sha256").hexdigest()
            target = f"{self._directory}/{name}"
            if not os.path.isdir(target):
                file.seek(0)
                new = f"{self._directory}/{_NEW}{name}"
                shutil.rmtree(new, ignore_errors=True)
                os.mkdir(new, 0o700)
                os.mkdir(f"{new}/root", 0o755)
                try:
                    unpack(file, path, f"{new}/root")
                    os.rename(f"{new}/root", target)
                finally:
                    shutil.rmtree(new, ignore_errors=True)
            self._known[stamp] = name
            os.utime(target)
            return name

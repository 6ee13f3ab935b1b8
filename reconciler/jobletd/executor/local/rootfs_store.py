"""Root file systems as jobs get them: a directory as it is; an archive unpacked once, under the hash of its content.

An unpacked one appears with one rename, whole or not at all. What nobody has used for a month goes when the daemon starts. Only
root can look into the store: files in it may belong to any user id of the host.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import IO

import joblet
from joblet.crash_points import reached
from joblet.sandbox.rootfs_archive import RootfsError

UNUSED_SECONDS = 30 * 86400
_NEW = ".new-"
_CODE = "import sys; sys.path.insert(0, {root!r}); from joblet.sandbox.rootfs_archive import main; sys.exit(main())"

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Archive:
    """One that was looked at. is_there: it has been unpacked before."""

    path: str
    file: IO[bytes]
    stamp: Stamp
    name: str
    is_there: bool


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
            found = await asyncio.to_thread(self._identify, path)
            if isinstance(found, str):
                return found, ""
            with found.file:
                target = f"{self._directory}/{found.name}"
                if not found.is_there:
                    await self._unpack(found, target)
        self._known[found.stamp] = found.name
        os.utime(target)
        return target, found.name

    def remove_unused(self, in_use: Collection[str]) -> None:
        """Before anything else. in_use: names that living attempts hold."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        os.chmod(self._directory, 0o700)
        for entry in os.scandir(self._directory):
            old = time.time() - entry.stat().st_mtime > UNUSED_SECONDS
            if entry.name.startswith(_NEW) or (old and entry.name not in in_use):
                shutil.rmtree(entry.path)

    def _identify(self, path: str) -> str | _Archive:
        """A directory's path without links, or an open archive with the hash of its content."""
        path = os.path.realpath(path)
        if os.path.isdir(path):
            return path
        file = open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")  # noqa: SIM115
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RootfsError("is neither a directory nor an archive", where=path, todo="name one of them")
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            name = self._known.get(stamp) or hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            return _Archive(path, file, stamp, name, os.path.isdir(f"{self._directory}/{name}"))
        except BaseException:
            file.close()
            raise

    async def _unpack(self, archive: _Archive, target: str) -> None:
        """In a process of its own: it is the archive that says how much there is to do."""
        new = f"{self._directory}/{_NEW}{archive.name}"
        await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
        os.mkdir(new, 0o700)
        try:
            os.mkdir(f"{new}/root", 0o755)
            code = _CODE.format(root=os.path.dirname(os.path.dirname(joblet.__file__)))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", code, archive.path, f"{new}/root"),
                stdin=archive.file, stdout=asyncio.subprocess.PIPE, env={},
            )  # fmt: skip
            output, _ = await process.communicate()
            if output:
                what, where, todo = json.loads(output)
                raise RootfsError(what, where=where, todo=todo)
            if process.returncode != 0:
                todo = "see the lines above it in the log"
                raise RootfsError(
                    f"unpacking broke off with status {process.returncode}", where=archive.path, todo=todo
                )
            os.rename(f"{new}/root", target)
            reached("rootfs.unpacked")
        finally:
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)

"""A small file system of the test's own, which can be filled up and emptied."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BALLAST = "ballast"


class SmallDisk:
    """path: where it is mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def free_bytes(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Write until no more than that is free."""
        with (self.path / BALLAST).open("ab", buffering=0) as file:
            size = 1 << 20
            while size:
                room = self.free_bytes - leave_bytes
                try:
                    written = file.write(b"\0" * min(size, max(room, 0 if leave_bytes else 1)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    written = 0
                if not written:
                    size //= 16  # down to the last byte
                if leave_bytes and room <= 0:
                    return

    def empty(self) -> None:
        (self.path / BALLAST).unlink()


@contextmanager
def small_disk(size_bytes: int) -> Iterator[SmallDisk]:
    """A tmpfs of that size, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix=f"joblet-test-{os.getpid()}-disk-"))  # tests/leaks.py looks for it
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0711", "tmpfs", path], check=True)
        try:
            yield SmallDisk(path)
        finally:
            subprocess.run(["umount", path], check=True)
    finally:
        path.rmdir()

"""The directory of contents: ``sha256/<hex>``, each complete and durable from the moment at which it has its name."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Container
from dataclasses import dataclass

from joblet.atomicfile import sync_directory
from joblet.crash_points import reached
from joblet.errors import JobletError

MODE = 0o600
_NAME = re.compile(r"[0-9a-f]{64}")


class UploadRefused(JobletError):
    """A content that cannot be taken."""


@dataclass(frozen=True, slots=True)
class BlobLimits:
    """The most that one content, and all together, may have."""

    file_bytes: int
    total_bytes: int


class BlobStore:
    """One for the host; the only one that changes the directory. Uploads call it from threads."""

    def __init__(self, directory: str, limits: BlobLimits) -> None:
        self._finished = f"{directory}/sha256"
        self._incoming = f"{directory}/incoming"
        self._limits = limits
        self._total_bytes = 0
        self._reserved_bytes = 0
        self._count = 0
        self._lock = threading.Lock()

    def reconfigure(self, limits: BlobLimits) -> None:
        """Other limits, for uploads to come."""
        self._limits = limits

    @property
    def limits(self) -> BlobLimits:
        return self._limits

    def open(self) -> None:
        """Make the directory if need be; drop what uploads of an earlier daemon left unfinished. Raises OSError."""
        for path in (self._finished, self._incoming):
            os.makedirs(path, 0o700, exist_ok=True)
        for name in os.listdir(self._incoming):
            os.unlink(f"{self._incoming}/{name}")
        self._total_bytes = sum(size for _, size, _ in self.contents())

    @property
    def total_bytes(self) -> int:
        return self._total_bytes

    def path(self, sha256: str) -> str:
        assert _NAME.fullmatch(sha256)
        return f"{self._finished}/{sha256}"

    def incoming_path(self) -> str:
        """For a content that is on its way."""
        with self._lock:
            self._count += 1
            return f"{self._incoming}/{self._count}"

    def use(self, sha256: str, size: int) -> bool:
        """Whether that content is there. If so it counts as new, so that it is not removed before a job names it."""
        path = self.path(sha256)
        with self._lock:
            try:
                if os.stat(path).st_size != size:
                    return False
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def reserve(self, size: int) -> None:
        """Room for a content to come, until ``release``. Raises UploadRefused."""
        if size > self._limits.file_bytes:
            raise UploadRefused(
                f"has {size} bytes, at most {self._limits.file_bytes} are allowed",
                where="upload",
                todo="uploads.maxFileBytes in the daemon's configuration sets the bound",
            )
        with self._lock:
            if self._total_bytes + self._reserved_bytes + size > self._limits.total_bytes:
                raise UploadRefused(
                    f"there is no room for {size} bytes: {self._total_bytes} of {self._limits.total_bytes} are in use",
                    where="upload",
                    todo="delete jobs with uploads; what no job names goes in time; uploads.maxTotalBytes sets the bound",
                )
            self._reserved_bytes += size

    def release(self, size: int) -> None:
        with self._lock:
            self._reserved_bytes -= size

    def add(self, path: str, sha256: str, size: int) -> None:
        """Give a finished file, already durable, its name. ``sync`` makes that durable too."""
        target = self.path(sha256)
        with self._lock:
            if not os.path.exists(target):
                self._total_bytes += size
            os.rename(path, target)
        reached("upload.stored")

    def sync(self) -> None:
        """Make all names durable."""
        sync_directory(self._finished)

    def contents(self) -> list[tuple[str, int, float]]:
        """SHA-256, size and time of last use of everything."""
        found = []
        with os.scandir(self._finished) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    status = entry.stat(follow_symlinks=False)
                    found.append((entry.name, status.st_size, status.st_mtime))
        return found

    def remove_unused(self, named: Container[str], before: float) -> list[int]:
        """Remove what is not named and was last used before that time; returns their sizes. Raises OSError."""
        with self._lock:  # nobody can find one there between the look and the deed
            old = [(sha256, size) for sha256, size, used in self.contents() if sha256 not in named and used < before]
            for sha256, size in old:
                os.unlink(self.path(sha256))
                self._total_bytes -= size
        return [size for _, size in old]

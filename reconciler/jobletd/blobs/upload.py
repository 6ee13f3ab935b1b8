"""One upload: contents that come one after the other, each checked; at its end all are kept, or none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import Any

from jobletd.blobs.store import MODE, BlobStore, UploadRefused

MAX_CONTENTS = 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class _Arriving:
    """A content that is on its way. path: empty if it is there already, and only has to be read over."""

    sha256: str
    size: int
    path: str
    fd: int
    got: int = 0
    hash: Any = field(default_factory=hashlib.sha256)


class Upload:
    """Blocking: to be called in a thread. ``close`` in every case; what was not finished is gone then."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._arriving: _Arriving | None = None
        self._complete: list[_Arriving] = []
        self._reserved = 0
        self.count = 0
        self.bytes = 0

    def begin(self, sha256: str, size: int) -> None:
        """The next content. Raises UploadRefused, OSError."""
        self._end_one()
        if not _SHA256.fullmatch(sha256) or size < 0:
            raise UploadRefused("a content begins without a SHA-256 and a size", where="upload")
        if self.count == MAX_CONTENTS:
            raise UploadRefused(
                f"there are more than {MAX_CONTENTS} contents", where="upload", todo="send them in parts"
            )
        self.count += 1
        if self._store.use(sha256, size) or any(one.sha256 == sha256 for one in self._complete):
            self._arriving = _Arriving(sha256, size, "", -1)
            return
        self._store.reserve(size)
        self._reserved += size
        path = self._store.incoming_path()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        self._arriving = _Arriving(sha256, size, path, fd)

    def write(self, data: bytes) -> None:
        """Its next bytes. Raises UploadRefused, OSError."""
        one = self._arriving
        if one is None:
            raise UploadRefused("bytes came before the content that they belong to", where="upload")
        one.got += len(data)
        self.bytes += len(data)
        if one.got > one.size:
            raise UploadRefused(
                f"{one.sha256[:12]}... is longer than the {one.size} bytes it was said to have", where="upload"
            )
        one.hash.update(data)
        if one.fd >= 0:
            view = memoryview(data)
            while view:
                view = view[os.write(one.fd, view) :]

    def finish(self) -> None:
        """Everything has come: check the last one, make all durable, and give them their names. Raises UploadRefused, OSError."""
        self._end_one()
        for one in self._complete:
            fd = os.open(one.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        for one in self._complete:
            self._store.add(one.path, one.sha256, one.size)
            one.path = ""
        self._store.sync()

    def close(self) -> None:
        """Remove what did not get its name."""
        for one in [*self._complete, *([self._arriving] if self._arriving else [])]:
            if one.fd >= 0:
                os.close(one.fd)
            if one.path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(one.path)
        self._complete, self._arriving = [], None
        self._store.release(self._reserved)
        self._reserved = 0

    def _end_one(self) -> None:
        one = self._arriving
        if one is None:
            return
        if one.got != one.size or one.hash.hexdigest() != one.sha256:
            raise UploadRefused(
                f"what came for {one.sha256[:12]}... is not what its checksum says",
                where="upload",
                todo="send it again: the file may have changed while it was read",
            )
        self._arriving = None
        if one.fd >= 0:
            os.close(one.fd)  # there may be thousands; they are made durable at the end, when that costs least
            one.fd = -1
            self._complete.append(one)

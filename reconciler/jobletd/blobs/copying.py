"""A content from one directory to another, which has it whole and right or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets

from joblet.errors import JobletError
from jobletd.blobs.store import MODE

PIECE_BYTES = 1 << 20


class ContentDamaged(JobletError):
    """A file that is not the content that its name says."""


def copy_checked(source: str, target: str, sha256: str, size: int) -> None:
    """Copy a content, reading each byte of it once, and give it its name when it is known to be that content, and durable.

    Raises ContentDamaged, OSError; nothing is left behind then.
    """
    half_made = f"{target}.{secrets.token_hex(4)}.tmp"  # others may fetch it too, from other hosts
    try:
        with open(source, "rb", buffering=0) as read, open(half_made, "wb", buffering=0) as written:
            os.fchmod(written.fileno(), MODE)
            found, length = hashlib.sha256(), 0
            while piece := read.read(PIECE_BYTES):
                found.update(piece)
                length += len(piece)
                view = memoryview(piece)
                while view:
                    view = view[written.write(view) or 0 :]
            os.fsync(written.fileno())
        if (length, found.hexdigest()) != (size, sha256):
            raise ContentDamaged(
                f"is not the content of {size} bytes with the SHA-256 {sha256[:12]}... that it shall be",
                where=source,
                todo="remove it, and apply the manifest again",
            )
        os.rename(half_made, target)
    except BaseException:
        if os.path.exists(half_made):
            os.unlink(half_made)
        raise

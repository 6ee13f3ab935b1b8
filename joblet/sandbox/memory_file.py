"""A file in memory by which one process hands plain data to another, of whatever size: memfd_create(2), marshalled."""

from __future__ import annotations

import marshal
import os

from joblet.sandbox.workspace_files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def made(name: str, data: bytes) -> int:
    """A descriptor of one that holds this, marshalled by whoever calls. Raises OSError."""
    memfd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        write_all(memfd, data)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def content_of(memfd: int) -> Any:
    """What it holds. Raises OSError, EOFError, MemoryError, ValueError and TypeError for what is none of ours."""
    return marshal.loads(os.pread(memfd, os.fstat(memfd).st_size, 0))

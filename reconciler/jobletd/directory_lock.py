"""The lock on a run directory: the daemon holds it as long as it lives, and so does what must not meet a daemon."""

from __future__ import annotations

import fcntl
import os


def lock_path(directory: str) -> str:
    return f"{directory}/joblet.lock"


def take_lock(directory: str) -> int:
    """Returns the descriptor that holds it. Raises BlockingIOError if somebody else does."""
    fd = os.open(lock_path(directory), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    return fd

"""Waiting for changes below one directory in the event loop, inotify(7): for log followers, of which there may be hundreds.

watchfiles starts a thread for each watch; this takes one descriptor and wakes within a millisecond.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress

IN_MODIFY = 0x2
IN_MOVED_FROM = 0x40
IN_CREATE = 0x100
IN_NONBLOCK = 0o4000
IN_CLOEXEC = 0o2000000
RECHECK_SECONDS = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


class ChangeWatch:
    """Tells when something in a directory was written, made or renamed."""

    def __init__(self, directory: str) -> None:
        """Raises OSError (ENOSPC: fs.inotify.max_user_watches is reached, EMFILE: max_user_instances)."""
        self._fd = self._checked(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), directory)
        mask = IN_MODIFY | IN_MOVED_FROM | IN_CREATE
        try:
            self._checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), mask), directory)
        except OSError:
            os.close(self._fd)
            raise

    @staticmethod
    def _checked(result: int, directory: str) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), directory)
        return result

    async def changed_or(self, event: asyncio.Event) -> None:
        """Wait for a change since the last call, or for the event; looks again after 5 s in any case."""
        loop = asyncio.get_running_loop()
        changed = loop.create_future()

        def wake() -> None:
            if not changed.done():
                changed.set_result(None)

        loop.add_reader(self._fd, wake)
        other = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({changed, other}, timeout=RECHECK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._fd)
            other.cancel()
            changed.cancel()
            with suppress(BlockingIOError):
                os.read(self._fd, 1 << 16)

    def close(self) -> None:
        os.close(self._fd)

"""Waiting for changes in directories in the event loop, inotify(7): for log followers, of which there may be hundreds.

All share one inotify instance, since a host allows a user some 128 of them, for all programs together. watchfiles starts a
thread for each watch; this takes a descriptor in all, and wakes within a millisecond.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import ClassVar
from weakref import WeakKeyDictionary

import structlog

IN_MODIFY = 0x2
IN_MOVED_FROM = 0x40
IN_CREATE = 0x100
IN_Q_OVERFLOW = 0x4000
IN_NONBLOCK = 0o4000
IN_CLOEXEC = 0o2000000
RECHECK_SECONDS = 5.0
POLL_SECONDS = 0.2  # where the kernel has no watch left for us
READ_BYTES = 1 << 16
NO_WATCH = -1
_EVENT = struct.Struct("iIII")  # wd, mask, cookie, len; then the name

_libc = ctypes.CDLL(None, use_errno=True)
log = structlog.get_logger("inotify")


class ChangeWatch:
    """Tells when something in a directory was written, made or renamed. Made and used in one event loop."""

    def __init__(self, directory: str) -> None:
        """Raises OSError if there is no such directory. Where the kernel has no watch left, we look now and then."""
        self._changed = asyncio.Event()
        self._instance = _Instance.of(asyncio.get_running_loop())
        try:
            self._wd = self._instance.add(directory, self._changed)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM):
                raise
            log.warning("no inotify watch, looking now and then instead", directory=directory, error=error.strerror)
            self._wd = NO_WATCH

    async def changed_or(self, event: asyncio.Event, most_seconds: float = RECHECK_SECONDS) -> None:
        """Wait for a change since the last call, or for the event; looks again after ``most_seconds`` in any case."""
        waiting = [asyncio.ensure_future(one.wait()) for one in (self._changed, event)]
        seconds = POLL_SECONDS if self._wd == NO_WATCH else most_seconds
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            self._changed.clear()

    def close(self) -> None:
        if self._wd != NO_WATCH:
            self._instance.remove(self._wd, self._changed)


class _Instance:
    """The one inotify instance of an event loop, open as long as anything is watched."""

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _Instance]] = WeakKeyDictionary()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Instance:
        instance = cls._all.get(loop)
        if instance is None:
            instance = cls._all[loop] = cls()
        return instance

    def __init__(self) -> None:
        self._fd = -1
        self._listeners: dict[int, list[asyncio.Event]] = {}

    def add(self, directory: str, listener: asyncio.Event) -> int:
        """Set the listener at each change from now on. Returns the watch. Raises OSError."""
        if self._fd < 0:
            self._fd = _checked(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), directory)
            asyncio.get_running_loop().add_reader(self._fd, self._readable)
        mask = IN_MODIFY | IN_MOVED_FROM | IN_CREATE
        try:
            wd = _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), mask), directory)
        except OSError:
            self._close_if_idle()
            raise
        self._listeners.setdefault(wd, []).append(listener)
        return wd

    def remove(self, wd: int, listener: asyncio.Event) -> None:
        listeners = self._listeners[wd]
        listeners.remove(listener)
        if not listeners:
            del self._listeners[wd]
            _libc.inotify_rm_watch(self._fd, wd)  # fails if the directory is gone, and the watch with it
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._listeners and self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        for wd, mask in _events(data):
            watches = self._listeners if mask & IN_Q_OVERFLOW else (wd,)
            for watch in watches:
                for listener in self._listeners.get(watch, ()):
                    listener.set()


def _events(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(data):
        wd, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size + length
        yield wd, mask


def _checked(result: int, directory: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), directory)
    return result

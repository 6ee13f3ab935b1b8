"""The descriptors by which an init wakes the event loop: its status pipe and its pidfd."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

STATUS_BYTES = 256


class Watched:
    """One living init."""

    def __init__(self, pidfd: int, status_fd: int | None) -> None:
        self._pidfd: int | None = pidfd
        self._status_fd = status_fd
        self.ended = asyncio.Event()
        self.deadline_set = False
        self.stuck = False

    @property
    def over(self) -> bool:
        return self.ended.is_set()

    def start(self, nudge: Callable[[], None]) -> None:
        """Call ``nudge`` when the command was executed, and when the init has ended."""
        loop = asyncio.get_running_loop()

        def on_status() -> None:
            assert self._status_fd is not None
            if os.read(self._status_fd, STATUS_BYTES):
                nudge()
            else:
                self._close_status()

        def on_end() -> None:
            assert self._pidfd is not None
            loop.remove_reader(self._pidfd)
            self.ended.set()
            nudge()

        if self._status_fd is not None:
            loop.add_reader(self._status_fd, on_status)
        assert self._pidfd is not None
        loop.add_reader(self._pidfd, on_end)

    def signal(self, number: signal.Signals) -> None:
        """Signal the init; nothing happens if it is gone, and it cannot hit anybody else."""
        if self._pidfd is None:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def close(self) -> None:
        self._close_status()
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _close_status(self) -> None:
        if self._status_fd is not None:
            asyncio.get_running_loop().remove_reader(self._status_fd)
            os.close(self._status_fd)
            self._status_fd = None

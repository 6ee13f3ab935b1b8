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
        self.tells_start = status_fd is not None
        self.is_silent = status_fd is not None  # nothing was heard of it yet: no start, no end
        self._nudge: Callable[[], None] | None = None
        self.ended = asyncio.Event()
        self.gone = asyncio.Event()
        self.deadline_set = False
        self.stuck = False

    @property
    def over(self) -> bool:
        return self.ended.is_set()

    def start(self, nudge: Callable[[], None]) -> None:
        """Call ``nudge`` when the command was executed, and when the init has ended."""
        loop = asyncio.get_running_loop()
        self._nudge = nudge
        if self._status_fd is not None:
            loop.add_reader(self._status_fd, self._on_status)
        assert self._pidfd is not None
        loop.add_reader(self._pidfd, self._on_end)

    def leave(self) -> bool:
        """Nobody asks for the attempt any more: call nobody. Whether its init is gone; if not, it is to be seen off."""
        self._nudge = None
        self.ended.set()  # who follows the log need not wait for an init that still makes its record durable
        if self.gone.is_set():
            self.close()
        return self.gone.is_set()

    async def see_off(self, seconds: float) -> None:
        """Let go of the init once it is gone, or after so long."""
        try:
            await asyncio.wait_for(self.gone.wait(), seconds)
        except TimeoutError:
            pass  # it hangs in the kernel; its cgroup stays for the next start to remove
        finally:
            self.close()

    def _on_status(self) -> None:
        assert self._status_fd is not None
        self.is_silent = False
        if not os.read(self._status_fd, STATUS_BYTES):
            self._close_status()
        elif self._nudge is not None:
            self._nudge()

    def _on_end(self) -> None:
        assert self._pidfd is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.is_silent = False
        self.gone.set()
        self.ended.set()
        if self._nudge is not None:
            self._nudge()

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

"""What the kernel tells of the spool directory: names of files that may have changed, which is no more than a nudge to look."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import structlog
from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError  # its only home

# watchfiles looks every step and waits at most debounce for a burst to end. Measured, from a file's creation to us:
# step 5 ms: 6 ms at 0.9 % of a core when idle; 10: 11 ms, 0.7 %; 20: 31 ms, 0.4 %.
_STEP_MS = 10
_DEBOUNCE_MS = 40
_log = structlog.get_logger(__name__)


class SpoolWatch:
    """told: called when there is a name more. lost: when something was told that has none."""

    def __init__(self, directory: str, *, told: Callable[[], None], lost: Callable[[], None]) -> None:
        self._directory = directory
        self._told = told
        self._lost = lost
        self._named: set[str] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._watched: tuple[int, int] | None = None

    def take(self) -> set[str]:
        """What was named since the last time."""
        named, self._named = self._named, set()
        return named

    async def close(self) -> None:
        await _cancelled(self._watcher)

    async def ensure(self) -> bool:
        """Watch the directory that is at the path now; it may have been replaced by another. Returns whether that is a new watch,
        which knows nothing of what was there before."""
        try:
            status = os.stat(self._directory)
        except OSError:
            self._watched = None  # who looks says what is wrong with it
        else:
            identity = (status.st_dev, status.st_ino)
            if identity == self._watched and self._watcher is not None and not self._watcher.done():
                return False
            self._watched = identity
        await _cancelled(self._watcher)
        self._watcher = None
        if self._watched is None:
            return False
        self._watcher = asyncio.create_task(self._listen(), name="spool-watch")
        await asyncio.sleep(0)  # awatch sets the kernel's watch up before it first waits
        return True

    async def _listen(self) -> None:
        try:
            changes = awatch(
                self._directory,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                recursive=False,
                rust_timeout=60_000,
            )
            async for told in changes:
                self._named.update(os.path.basename(path) for _, path in told)
                self._told()
        except* OSError as errors:  # watchfiles raises in groups
            # No inotify left, or the directory went away: the rescans go on, and with each the watch is begun anew.
            _log.warning("spool not watched, only rescanned", error="; ".join(map(str, errors.exceptions)))
        except* WatchfilesRustInternalError:
            self._lost()  # an event with a name that is not UTF-8 ends the watch: another is begun with the next look


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])

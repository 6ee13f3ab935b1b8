"""The parts of a daemon that have begun: they end in the opposite order, and when one breaks, all do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack

import structlog

log = structlog.get_logger("serve")


class Lifetime(AsyncExitStack):
    """Of one daemon. over: it is to end. broken: not because it was told to."""

    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()
        self.broken = False

    def background(self, name: str, work: Coroutine[object, object, None]) -> None:
        """A part that runs until the end; if it breaks, the daemon ends with status 1, and systemd starts a new one."""
        task = asyncio.create_task(work, name=name)

        def done(finished: asyncio.Task[None]) -> None:
            if not finished.cancelled() and (error := finished.exception()) is not None:
                log.error("a part of the daemon broke", part=name, exc_info=error)
                self.broken = True
                self.over.set()

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        task.add_done_callback(done)
        self.push_async_callback(end)

"""A listener's queue of changes and events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobletd.model import Event, JobChange

WATCH_QUEUE = 4096

Item = JobChange | Event


class Subscription:
    """One listener's queue of what it wants. overflowed: it was too slow, and gets nothing more, nor what it has not read.

    conflating: it only wants to know that something changed, so one item that it has not read yet is as good as many.
    """

    def __init__(self, wanted: Callable[[Item], bool], *, job: str = "", conflating: bool = False) -> None:
        self.job = job
        self.queue: asyncio.Queue[Item] = asyncio.Queue(1 if conflating else WATCH_QUEUE)
        self.overflowed = False
        self._wanted = wanted
        self._conflating = conflating

    def put(self, item: Item) -> None:
        if self.overflowed or not self._wanted(item):
            return
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            if not self._conflating:
                self.overflowed = True
                while self.queue.qsize() > 1:  # one stays, for whoever waits for it
                    self.queue.get_nowait()

"""The work queue: keys that want a look, each worked on by one worker at a time.

An add while the key waits changes nothing; an add while it is worked on lets it be worked on once more afterwards. Failures back
off per key. As client-go's workqueue, for one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 60.0


class WorkQueue(Generic[K]):
    """Keys in the order in which they came."""

    def __init__(self) -> None:
        self._queue: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._wakeups: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether no key waits for its turn or is worked on; those with a timer do not count."""
        return self._idle.is_set()

    def add(self, key: K) -> None:
        """Have a look at the key soon."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have a look at the key in so many seconds; an earlier look that is planned stays."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None and not timer.cancelled() and timer.when() <= due:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._timer_fired, key)

    def retry(self, key: K) -> float:
        """Have another look after a failure, later each time. Returns the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause: float = min(FIRST_RETRY_SECONDS * 2 ** min(failures, 20), LONGEST_RETRY_SECONDS)
        self.add_after(key, pause)
        return pause

    def forget_failures(self, key: K) -> None:
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; it is being worked on until ``done``."""
        while not self._queue:
            wakeup: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wakeups.append(wakeup)
            try:
                await wakeup
            except asyncio.CancelledError:
                if wakeup.done() and not wakeup.cancelled():
                    self._wake_one()  # it was meant for whoever works on, not for who goes
                raise
            finally:
                if wakeup in self._wakeups:
                    self._wakeups.remove(wakeup)
        key = self._queue.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """The work on a key is over, well or not."""
        self._processing.discard(key)
        if key in self._dirty:
            self._push(key)
        elif not self._queue and not self._processing:
            self._idle.set()

    async def join(self) -> None:
        """Wait until no key waits for its turn or is worked on; those with a timer do not count."""
        await self._idle.wait()

    def close(self) -> None:
        """No more timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _timer_fired(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _push(self, key: K) -> None:
        self._queue.append(key)
        self._idle.clear()
        self._wake_one()

    def _wake_one(self) -> None:
        while self._wakeups:
            wakeup = self._wakeups.popleft()
            if not wakeup.done():
                wakeup.set_result(None)
                return

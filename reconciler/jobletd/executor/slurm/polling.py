"""How often Slurm is looked at: soon after anything changed, later and later while nothing does."""

from __future__ import annotations

import asyncio

GROWTH = 1.5


class Pace:
    """The pause between two looks. Seconds."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest = shortest
        self._longest = longest
        self._pause = shortest
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Something of ours changes: look soon."""
        self._nudged.set()

    async def pause(self, *, changed: bool, idle: bool) -> bool:
        """Wait until the next look is due. changed: the last one found something new. idle: there is nothing to look for.

        Returns at once after a nudge, with True, if the shortest pause is over or after it: never sooner.
        """
        self._pause = self._shortest if changed else min(self._pause * GROWTH, self._longest)
        loop = asyncio.get_running_loop()
        began = loop.time()
        nudged = await self._wait(None if idle else self._pause)
        if nudged:
            self._pause = self._shortest
            await asyncio.sleep(max(began + self._shortest - loop.time(), 0.0))
        return nudged

    async def _wait(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            return False
        self._nudged.clear()
        return True

"""Who may have a live attempt now: at most so many runs at a time, the others wait in the order of creation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobletd.model import JobName, Run, RunId
from jobletd.registry import Registry

TOLD_A_SECOND = 100.0


class Places:
    """limit: how many there are, 0: no bound. nudge: tells the reconciler that a job wants a look."""

    def __init__(self, registry: Registry, limit: int, nudge: Callable[[JobName], None]) -> None:
        self._registry = registry
        self._waiting = registry.waiting
        self._limit = limit
        self._nudge = nudge
        self._held: set[RunId] = set()
        self._telling: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._held)

    def adopt(self, run_id: RunId) -> None:
        """This run has a live attempt, whatever the bound is now."""
        self._held.add(run_id)

    def stand_in_line(self, run: Run) -> None:
        """Before the first place is given away: who was made first comes first, whichever job is looked at first."""
        if self._limit and run.id not in self._held:
            self._waiting.add(run)

    def take(self, run: Run) -> bool:
        """Whether the run has a place now; if not, it waits."""
        if run.id in self._held:
            return True
        if self._limit:
            self._waiting.add(run)
            if self._waiting.position(run.id) > self._limit - len(self._held):
                return False
        self._waiting.remove(run.id)
        self._held.add(run.id)
        return True

    def resize(self, limit: int) -> None:
        """Another bound: who has a place keeps it; more places are given to those who wait longest."""
        self._limit = limit
        free = self._limit - len(self._held) if self._limit else len(self._waiting)
        for name in self._waiting.first(free):
            self._nudge(name)

    def give(self, run_id: RunId) -> None:
        """The run needs no place any more, nor one in the line. Whoever waits longest is looked at next."""
        self._held.discard(run_id)
        self._waiting.remove(run_id)
        for name in self._waiting.first(self._limit - len(self._held)):
            self._nudge(name)
        if len(self._waiting) and self._telling is None:
            pause = max(1.0, len(self._waiting) / TOLD_A_SECOND)
            self._telling = asyncio.get_running_loop().call_later(pause, self._tell)

    def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()

    def _tell(self) -> None:
        """Those who wait have moved up, though nothing of theirs was written: now and then, since there may be many."""
        self._telling = None
        self._registry.tell_again(self._waiting.first(len(self._waiting)))

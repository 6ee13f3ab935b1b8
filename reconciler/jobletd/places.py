"""Who may have a live attempt now: at most so many runs at a time, of one source and in all; the others wait in line.

A place that comes free is reserved at once for whoever is next, whose job is then looked at. So nobody is looked at in vain,
and a change costs the same however many wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from jobletd.model import JobName, Run, RunId
from jobletd.registry import Registry
from jobletd.waiting_line import Waiting

TOLD_AT_ONCE = 100
TELL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many runs may have a place: in all, and of one source. 0: any number."""

    total: int = 0
    per_source: int = 0


class Places:
    """nudge: tells the reconciler that a job wants a look."""

    def __init__(self, registry: Registry, bounds: Bounds, nudge: Callable[[JobName], None]) -> None:
        self._registry = registry
        self._line = registry.waiting
        self._bounds = bounds
        self._nudge = nudge
        self._held: dict[RunId, str] = {}
        self._closed = registry.cordon is not None
        self._told: Iterator[JobName] = iter(())
        self._moved = False
        self._telling: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._held)

    def holders(self) -> tuple[RunId, ...]:
        """Who has one."""
        return tuple(self._held)

    def adopt(self, run: Run) -> None:
        """This run has a live attempt, whatever the bounds are now."""
        self._hold(run.id, self._share_of(run))

    def stand_in_line(self, run: Run) -> None:
        """Before the first place is given away: who comes first does so whichever job is looked at first."""
        if run.id not in self._held:
            self._line.add(Waiting.of(run, self._share_of(run)))

    def take(self, run: Run) -> bool:
        """Whether the run, which has no live attempt, has a place now; if not, it waits."""
        if self._closed:
            self._release(run.id)  # reserved, and not yet used
        if run.id not in self._held:
            self._line.add(Waiting.of(run, self._share_of(run)))
            self._fill(asking=run.id)
        return run.id in self._held

    def give(self, run_id: RunId) -> None:
        """The run needs no place any more, nor one in the line."""
        if self._release(run_id) or run_id in self._line:
            self._line.remove(run_id)
            self._fill()
            self._tell_soon()

    def close(self) -> None:
        """Nobody gets a place any more; who has one keeps it."""
        self._closed = True

    def open(self) -> None:
        """Places are given away again."""
        self._closed = False
        self._fill()

    def resize(self, bounds: Bounds) -> None:
        """Other bounds: who has a place keeps it, and what is free now is given to whoever is next."""
        self._bounds = bounds
        self._fill()

    def end(self) -> None:
        """No more timers."""
        if self._telling is not None:
            self._telling.cancel()

    def _fill(self, asking: RunId | None = None) -> None:
        """Reserve what is free. asking: whose job is being looked at already."""
        while not self._closed and (not self._bounds.total or len(self._held) < self._bounds.total):
            waiting = self._line.next(self._bounds.per_source)
            if waiting is None:
                return
            self._hold(waiting.run_id, waiting.share)
            if waiting.run_id != asking:
                self._nudge(waiting.job)

    def _hold(self, run_id: RunId, share: str) -> None:
        self._held[run_id] = share
        self._line.held[share] += 1

    def _release(self, run_id: RunId) -> bool:
        """Whether it had a place."""
        share = self._held.pop(run_id, None)
        if share is None:
            return False
        self._line.held[share] -= 1
        if not self._line.held[share]:
            del self._line.held[share]
        return True

    def _share_of(self, run: Run) -> str:
        view = self._registry.find(run.job)
        assert view is not None
        return view.source.share

    # --- those who wait have moved up, though nothing of theirs was written ---------------------------------------------

    def _tell_soon(self) -> None:
        self._moved = True
        if len(self._line) and self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        """Some of them now, the others later: there may be many."""
        self._telling = None
        names = list(islice(self._told, TOLD_AT_ONCE))
        if len(names) < TOLD_AT_ONCE and self._moved:  # all were told; the line is another now
            self._moved = False
            self._told = iter(list(self._line))
            names += islice(self._told, TOLD_AT_ONCE - len(names))
        self._registry.tell_again(names)
        if self._moved or len(names) == TOLD_AT_ONCE:
            self._telling = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)

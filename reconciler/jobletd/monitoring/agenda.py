"""When each of those that run is looked at next: many take turns, and share the moments at which the profiler wakes."""

from __future__ import annotations

import heapq

from jobletd.model import AttemptId

TURN_SECONDS = 1 / 20  # of each, but for the first looks, which short runs have to have
FIRST_GRID_SECONDS = 0.1  # moments of first looks
GRID_SECONDS = 1.0  # moments of all others: what costs is to wake, more than to look


class Agenda:
    """Whom to look at, and when. Times are seconds since boot."""

    def __init__(self) -> None:
        self._due: list[tuple[float, AttemptId]] = []
        self._turns = Turns()

    @property
    def next(self) -> float | None:
        """When somebody is due; None: nobody is to be looked at."""
        return self._due[0][0] if self._due else None

    def first(self, attempt_id: AttemptId, now: float, pause: float) -> None:
        """One of the first looks: so soon, however many there are."""
        heapq.heappush(self._due, (on_grid(now + pause, FIRST_GRID_SECONDS), attempt_id))

    def later(self, attempt_id: AttemptId, now: float, pause: float, sharing: int) -> None:
        """Not before ``pause`` is over, and in turn. sharing: how many take turns."""
        due = max(now + pause, self._turns.next(now, sharing))
        heapq.heappush(self._due, (on_grid(due, GRID_SECONDS), attempt_id))

    def take(self, now: float, most: int) -> list[AttemptId]:
        """Those that are due, at most so many. They come again only if they are planned again."""
        due: list[AttemptId] = []
        while self._due and self._due[0][0] <= now and len(due) < most:
            due.append(heapq.heappop(self._due)[1])
        return due


class Turns:
    """When each of many may be looked at: evenly, and not more than so many a second."""

    def __init__(self) -> None:
        self._latest = 0.0  # that was given

    def next(self, now: float, sharing: int) -> float:
        """The next turn of one of so many. Never later than all of them take."""
        self._latest = min(max(self._latest, now) + TURN_SECONDS, now + sharing * TURN_SECONDS)
        return self._latest


def on_grid(at: float, grid: float) -> float:
    """The nearest moment of a grid: a pause of one step stays one step, however late one wakes."""
    return round(at / grid) * grid

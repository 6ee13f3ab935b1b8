"""Runs that wait for a free place: who has more priority goes first, then whose source has fewer places, then who is older.

A lane is what waits of one source with one priority, by age. Who is next is the head of a lane, so that a question costs the
number of lanes, and a change the logarithm of a lane's length: there may be ten thousand in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from jobletd.model import JobName, Run, RunId
from jobletd.sorted_keys import SortedKeys

_Key = tuple[int, RunId, JobName]
_Lanes = dict[str, SortedKeys[_Key]]  # by share


@dataclass(frozen=True, slots=True)
class Waiting:
    """One who waits. share: what its source counts as when places are shared out."""

    run_id: RunId
    job: JobName
    priority: int
    share: str
    created_ns: int

    @classmethod
    def of(cls, run: Run, share: str) -> Waiting:
        return cls(run.id, run.job, run.manifest.spec.priority, share, run.created_ns)

    @property
    def key(self) -> _Key:
        return (self.created_ns, self.run_id, self.job)


class WaitingLine:
    """Knows how many places each share holds, and when it last got one."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self._lanes: dict[int, _Lanes] = {}
        self._by_run: dict[RunId, Waiting] = {}
        self._served: dict[str, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._by_run)

    def __contains__(self, run_id: RunId) -> bool:
        return run_id in self._by_run

    def __iter__(self) -> Iterator[JobName]:
        """The jobs, those of a higher priority first, and of one source by age."""
        for priority in sorted(self._lanes, reverse=True):
            for lane in self._lanes[priority].values():
                for _, _, job in lane:
                    yield job

    def add(self, waiting: Waiting) -> None:
        """Stand in line; who stands there already moves if its priority or source changed."""
        known = self._by_run.get(waiting.run_id)
        if known == waiting:
            return
        if known is not None:
            self.remove(known.run_id)
        self._by_run[waiting.run_id] = waiting
        self._lanes.setdefault(waiting.priority, {}).setdefault(waiting.share, SortedKeys()).add(waiting.key)

    def remove(self, run_id: RunId) -> None:
        waiting = self._by_run.pop(run_id, None)
        if waiting is None:
            return
        lanes = self._lanes[waiting.priority]
        lane = lanes[waiting.share]
        lane.remove(waiting.key)
        if not lane:
            del lanes[waiting.share]
        if not lanes:
            del self._lanes[waiting.priority]

    def next(self, most_of_one: int) -> Waiting | None:
        """Who gets the next place, and is out of the line with it. most_of_one: places that one share may hold; 0: any number."""
        for priority in sorted(self._lanes, reverse=True):
            open_shares = [
                share for share in self._lanes[priority] if not most_of_one or self.held[share] < most_of_one
            ]
            if open_shares:
                share = min(open_shares, key=lambda one: self._order(priority, one))
                waiting = self._by_run[self._lanes[priority][share].first()[1]]
                self.remove(waiting.run_id)
                self._turn += 1
                self._served[share] = self._turn
                return waiting
        return None

    def position(self, run_id: RunId) -> int:
        """From 1; 0 for who does not wait. As if those who run now went on, and places came free one after the other."""
        waiting = self._by_run.get(run_id)
        if waiting is None:
            return 0
        ahead = sum(
            len(lane) for one, lanes in self._lanes.items() if one > waiting.priority for lane in lanes.values()
        )
        lanes = self._lanes[waiting.priority]
        own = lanes[waiting.share].before(waiting.key)
        held, mine = self._then(waiting.priority, waiting.share)
        level = held + own  # so many places will its source hold when its turn comes
        for share, lane in lanes.items():
            if share != waiting.share:
                held, theirs = self._then(waiting.priority, share)
                ahead += min(max(level - held + (theirs < mine), 0), len(lane))
        return ahead + own + 1

    def _order(self, priority: int, share: str) -> tuple[int, int, _Key]:
        """The lowest is served next: who holds the fewest places, was served longest ago, has waited longest."""
        return self.held[share], self._served.get(share, 0), self._lanes[priority][share].first()

    def _then(self, priority: int, share: str) -> tuple[int, tuple[int, bool, int, _Key]]:
        """How many places that share holds once all of a higher priority have got theirs, and its order at a tie.

        The lowest is served first of those who will hold as many places: who holds more of them before was served earlier; and of
        as many, who has none that are more urgent, which are served later than all that was.
        """
        held, served, head = self._order(priority, share)
        urgent = sum(len(lanes[share]) for one, lanes in self._lanes.items() if one > priority and share in lanes)
        return held + urgent, (-held - urgent, urgent > 0, served, head)

"""Runs that wait for a free place, in the order in which they were made."""

from __future__ import annotations

from bisect import bisect_left, insort

from jobletd.model import JobName, Run, RunId

_Place = tuple[int, RunId, JobName]


class WaitingLine:
    """Every question costs the logarithm of its length: there may be ten thousand in it."""

    def __init__(self) -> None:
        self._line: list[_Place] = []
        self._by_run: dict[RunId, _Place] = {}

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, run_id: RunId) -> bool:
        return run_id in self._by_run

    def add(self, run: Run) -> None:
        """Stand in line; who was made earlier stands before."""
        if run.id not in self._by_run:
            place = (run.created_ns, run.id, run.job)
            self._by_run[run.id] = place
            insort(self._line, place)

    def remove(self, run_id: RunId) -> None:
        place = self._by_run.pop(run_id, None)
        if place is not None:
            del self._line[bisect_left(self._line, place)]

    def position(self, run_id: RunId) -> int:
        """From 1; 0 for who does not wait."""
        place = self._by_run.get(run_id)
        return 0 if place is None else bisect_left(self._line, place) + 1

    def first(self, count: int) -> list[JobName]:
        """The jobs of the first so many."""
        return [job for _, _, job in self._line[: max(count, 0)]]

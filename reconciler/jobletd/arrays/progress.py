"""How an array stands, one letter an index, and what is to be done next: without any I/O.

What is on record of an index is its own run. The letters are made from those runs when the daemon starts, and follow each change
of one; the array's run keeps them as text at its beginning and its end. So no crash can make the two differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from jobletd.model import Phase, Reason


class Mark(StrEnum):
    """How an index stands, as it is on record."""

    NOT_BEGUN = "."
    WAITING = "w"  # begun, and without a live attempt: for a place, or for its next attempt
    RUNNING = "r"
    SUCCEEDED = "s"
    FAILED = "f"
    STOPPED = "x"
    SKIPPED = "-"  # it was not needed any more, or the array was stopped before its turn


OPEN = (Mark.WAITING, Mark.RUNNING)
UNFINISHED = (Mark.NOT_BEGUN, *OPEN)
_OF_PHASE = {
    Phase.INITIALIZING: Mark.RUNNING,
    Phase.RUNNING: Mark.RUNNING,
    Phase.COMPLETED: Mark.SUCCEEDED,
    Phase.FAILED: Mark.FAILED,
    Phase.STOPPED: Mark.STOPPED,
}
NAMED = 10  # indexes in a message


def mark_of(phase: Phase, reason: Reason | None = None) -> Mark:
    """Of an index whose run is in that phase."""
    if phase is Phase.STOPPED and reason is Reason.NOT_NEEDED:
        return Mark.SKIPPED
    return _OF_PHASE.get(phase, Mark.WAITING)


class Progress:
    """The letters of one array, and how many there are of each: a change costs the same however many indexes there are."""

    def __init__(self, first: int, marks: str) -> None:
        """first: the index that the first letter is of."""
        self.first = first
        self._marks = bytearray(marks, "ascii")
        self._counts = {mark: self._marks.count(ord(mark)) for mark in Mark}
        self._begin_at = 0  # before this place all have begun

    def __len__(self) -> int:
        return len(self._marks)

    def __getitem__(self, index: int) -> Mark:
        return Mark(chr(self._marks[index - self.first]))

    def put(self, index: int, mark: Mark) -> None:
        self._counts[self[index]] -= 1
        self._counts[mark] += 1
        self._marks[index - self.first] = ord(mark)

    def count(self, *marks: Mark) -> int:
        return sum(self._counts[mark] for mark in marks)

    def next_to_begin(self, most: int) -> list[int]:
        """The first indexes that have not begun. None of them ever comes back to that."""
        found: list[int] = []
        place = self._marks.find(ord(Mark.NOT_BEGUN), self._begin_at)
        self._begin_at = place if place >= 0 else len(self._marks)
        while place >= 0 and len(found) < most:
            found.append(place + self.first)
            place = self._marks.find(ord(Mark.NOT_BEGUN), place + 1)
        return found

    def text(self) -> str:
        return self._marks.decode("ascii")


def places_of(marks: str, *wanted: Mark) -> Iterator[int]:
    """The places, from 0, that have one of these letters."""
    return (place for place, letter in enumerate(marks) if letter in wanted)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the manifest says. needed: so many indexes have to succeed. parallel: so many are open at a time."""

    needed: int
    parallel: int
    fail_fast: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """The array's run ends."""

    phase: Phase
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class StopOpen:
    """The indexes that are open have to end first. No other one begins."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Begin:
    """The next indexes. Empty: those that are open have to end first."""

    indexes: tuple[int, ...]


def next_step(progress: Progress, rules: Rules, stop: Reason | None) -> Over | StopOpen | Begin:
    """What is to be done now. stop: why the array is to end, if it is."""
    succeeded = progress.count(Mark.SUCCEEDED)
    won = succeeded >= rules.needed
    lost = succeeded + progress.count(*UNFINISHED) < rules.needed
    is_open = progress.count(*OPEN) > 0
    if won or stop is not None or (lost and rules.fail_fast):
        if is_open:
            return StopOpen(Reason.NOT_NEEDED if stop is None else stop)
        return _over(progress, won, stop)
    if is_open or progress.count(Mark.NOT_BEGUN):
        return Begin(tuple(progress.next_to_begin(max(rules.parallel - progress.count(*OPEN), 0))))
    return _over(progress, won, stop)


def _over(progress: Progress, won: bool, stop: Reason | None) -> Over:
    text = outcome_text(progress.text(), progress.first)
    if won:  # also if a stop was asked for meanwhile: it was done before that reached it
        return Over(Phase.COMPLETED, Reason.COMPLETED, text)
    if stop is not None:
        return Over(Phase.STOPPED, stop, text)
    return Over(Phase.FAILED, Reason.INDEXES_FAILED, text)


def outcome_text(marks: str, first: int) -> str:
    """How an array that is over stands, in one sentence: ``97 of 100 indexes succeeded, 2 failed (3, 17), 1 was skipped``."""
    parts = [f"{marks.count(Mark.SUCCEEDED)} of {len(marks)} indexes succeeded"]
    for word, mark in (("failed", Mark.FAILED), ("stopped", Mark.STOPPED)):
        if mark in marks:
            parts.append(f"{marks.count(mark)} {word} ({named(marks, first, mark)})")
    if skipped := sum(marks.count(mark) for mark in (Mark.SKIPPED, Mark.NOT_BEGUN)):
        parts.append(f"{skipped} not run")
    return ", ".join(parts)


def named(marks: str, first: int, mark: Mark) -> str:
    """The indexes with that letter, neighbours as ``5-9``; the first few of many."""
    if mark not in marks:  # as nearly always, and much cheaper than to look at each
        return ""
    spans: list[list[int]] = []
    for place in places_of(marks, mark):
        if spans and spans[-1][1] == place + first - 1:
            spans[-1][1] += 1
        elif len(spans) == NAMED:
            return f"{', '.join(map(_span, spans))} ..."
        else:
            spans.append([place + first, place + first])
    return ", ".join(map(_span, spans))


def _span(span: list[int]) -> str:
    first, last = span
    return str(first) if first == last else f"{first}-{last}"


def at_the_end(marks: str) -> str:
    """The letters of an array that is over: what has not begun is not going to."""
    return marks.replace(Mark.NOT_BEGUN, Mark.SKIPPED)

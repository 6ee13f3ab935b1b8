"""The word somebody most likely meant: for misspelt keys, values and job names."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice closest to ``word``, or None if none is close. Case, ``-`` and ``_`` do not count as differences."""
    wanted = _folded(word[:64])
    best: str | None = None
    best_distance = 3 if len(wanted) > 4 else 2
    for choice in choices:
        folded = _folded(choice)
        if abs(len(folded) - len(wanted)) >= best_distance:
            continue
        distance = _distance(wanted, folded)
        if distance < best_distance:
            best, best_distance = choice, distance
    return best


def _folded(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _distance(left: str, right: str) -> int:
    """Edits from one word to the other: insert, delete, replace, swap of neighbours (optimal string alignment)."""
    before: list[int] = []
    previous = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        current = [i]
        for j, b in enumerate(right, 1):
            cost = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        before, previous = previous, current
    return previous[-1]

"""Drawings made of characters: bars of values over time, and how full something is."""

from __future__ import annotations

from collections.abc import Sequence

STEPS = "▁▂▃▄▅▆▇█"
FULL, EMPTY = "█", "░"
FULL_WIDTH = 20


def bars(values: Sequence[float], *, width: int, least_full: float = 0.0) -> str:
    """At most ``width`` bars, the highest value (at least ``least_full``) as the full one; of several values that share a bar,
    the highest."""
    if not values:
        return ""
    count = min(len(values), width)
    groups = [values[number * len(values) // count : (number + 1) * len(values) // count] for number in range(count)]
    highest = [max(0.0, *group) for group in groups]
    most = max(*highest, least_full, 1e-9)
    return "".join(STEPS[min(int(value / most * len(STEPS)), len(STEPS) - 1)] for value in highest)


def share(part: float, whole: float) -> float:
    """In percent; of nothing, none."""
    return part / whole * 100 if whole else 0.0


def fullness(percent: float) -> str:
    """A bar that is so full."""
    full = round(min(max(percent, 0.0), 100.0) / 100 * FULL_WIDTH)
    return FULL * full + EMPTY * (FULL_WIDTH - full)

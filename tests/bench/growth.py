"""How a quantity grows with another: the exponent of a power law through measured points."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exponent_at_the_end(points: Sequence[tuple[float, float]]) -> float:
    """Of the last two points alone: where what is the same for all of them no longer hides the growth. Raises ValueError."""
    return exponent(sorted(points)[-2:])


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line of least squares through the logarithms: 0 does not grow, 1 is linear, 2 is quadratic.

    Raises ValueError where there is no such line: fewer than two different x, or a coordinate that is not above zero.
    """
    if any(coordinate <= 0 for point in points for coordinate in point):
        raise ValueError(f"a power law needs numbers above zero: {list(points)}")
    logarithms = [(math.log(x), math.log(y)) for x, y in points]
    if len({x for x, _ in logarithms}) < 2:
        raise ValueError(f"no growth can be read from one x: {list(points)}")
    mean_x = sum(x for x, _ in logarithms) / len(logarithms)
    mean_y = sum(y for _, y in logarithms) / len(logarithms)
    spread = sum((x - mean_x) ** 2 for x, _ in logarithms)
    return sum((x - mean_x) * (y - mean_y) for x, y in logarithms) / spread

"""Tags as versions: which of them is the highest in a range. A version before its release (1.2.0-rc.1) is in no range."""

from __future__ import annotations

import re
from collections.abc import Iterable

from semver import Version

_TERM = re.compile(r"(\^|~|>=|<=|>|<|=)?(\d+)(?:\.(\d+))?(?:\.(\d+))?")
Bounds = tuple[Version, Version | None]  # from the first, below the second


def highest(tags: Iterable[str], wanted: str) -> str | None:
    """The tag whose version is the highest in that range; None if none is."""
    found = [(version, tag) for tag in tags if (version := version_of(tag)) is not None and is_in(version, wanted)]
    return max(found)[1] if found else None


def version_of(tag: str) -> Version | None:
    """The version of ``1.2.3`` or ``v1.2.3``; None for any other tag."""
    text = tag.removeprefix("v")
    return Version.parse(text) if Version.is_valid(text) else None


def is_in(version: Version, wanted: str) -> bool:
    """Whether all comparisons of a range hold."""
    if version.prerelease:
        return False
    return wanted == "*" or all(_holds(version, term) for term in wanted.split())


def _holds(version: Version, term: str) -> bool:
    match = _TERM.fullmatch(term)
    assert match is not None  # the manifest's check has seen to it
    operator, *texts = match.groups()
    numbers = [int(text) for text in texts if text is not None]
    low = Version(*numbers, *[0] * (3 - len(numbers)))
    above = _next(numbers)  # the first version that the numbers given do not name: 1.2 names 1.2.0 to below 1.3.0
    match operator:
        case ">=":
            return version >= low
        case ">":
            return version >= above if len(numbers) < 3 else version > low
        case "<":
            return version < low
        case "<=":
            return version < above if len(numbers) < 3 else version <= low
        case "^":
            return low <= version < _next_breaking(numbers)
        case "~":
            return low <= version < _next(numbers[:2])
        case _:
            return low <= version < above


def _next(numbers: list[int]) -> Version:
    raised = [*numbers[:-1], numbers[-1] + 1]
    return Version(*raised, *[0] * (3 - len(raised)))


def _next_breaking(numbers: list[int]) -> Version:
    """The first that may break what used these: the leftmost number that is not 0 has changed."""
    place = next((index for index, number in enumerate(numbers) if number), len(numbers) - 1)
    return _next(numbers[: place + 1])

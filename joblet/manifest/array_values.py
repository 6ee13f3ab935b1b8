"""The values of a matrix: parsing with words for people."""

from __future__ import annotations

import re

from joblet.manifest.quantities import shown

AXIS_PATTERN = r"^[A-Za-z][A-Za-z0-9_]{0,62}$"
VALUE_PATTERN = r"^[^\u0000]*$"
MOST_VALUES = 1_000
LONGEST_VALUE = 1_024
_AXIS = re.compile(AXIS_PATTERN.replace("$", r"\Z"), re.ASCII)


def check_axis(value: object) -> str:
    if not isinstance(value, str) or not _AXIS.match(value):
        raise ValueError(f"{shown(value)} is not the name of an axis (letters, digits and _, a letter first)")
    return value


def matrix_text(value: object) -> str:
    """One value as its variable has it; a whole number is as good as its text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        hint = "; write it in quotes" if isinstance(value, (bool, float)) else ""
        raise ValueError(f"{shown(value)} is neither text nor a whole number{hint}")
    if "\0" in value or len(value) > LONGEST_VALUE:
        raise ValueError(f"{shown(value)} has a NUL or more than {LONGEST_VALUE} letters")
    return value


def parse_axis_values(value: object) -> tuple[str, ...]:
    """All values of an axis, in their order."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{shown(value)} is not a list; write [a, b]")
    if not 1 <= len(value) <= MOST_VALUES:
        raise ValueError("the list is empty" if not value else f"the list has more than {MOST_VALUES} items")
    texts = tuple(matrix_text(one) for one in value)
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise ValueError(f"{shown(twice)} is given twice")
    return texts

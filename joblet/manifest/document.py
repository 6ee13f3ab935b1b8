"""A document as read: plain values, and where each of them stands in the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_DOCUMENT_BYTES = 1 << 20
MAX_DOCUMENTS = 1000
MAX_DEPTH = 32
MAX_NODES = 100_000  # aliases count as what they stand for
MAX_ALIASED_TEXT = 1 << 20  # characters that aliases may add
MAX_INTEGER_DIGITS = 40

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """A position in a file, both from 1; columns count characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a document: where in the file, where in the document, what."""

    place: Place
    path: Path
    message: str


class Unreadable(Exception):
    """The document cannot be read any further."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.message)


class Entry(NamedTuple):
    """Where a mapping's or list's item stands. key: the same as value in a list."""

    key: Place
    value: Place


@dataclass(slots=True)
class Document:
    """One document. entries: by ``id`` of each mapping and list, which live as long as ``value`` does."""

    number: int
    start: Place
    value: object = None
    entries: dict[int, dict[str | int, Entry]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def entry(self, path: Sequence[str | int]) -> Entry:
        """Where the thing at ``path`` stands, or the closest thing around it that is there."""
        found = Entry(self.start, self.start)
        value = self.value
        for step in path:
            entry = self.entries.get(id(value), {}).get(step)
            if entry is None:
                break
            found = entry
            value = value[step]  # type: ignore[index]  # entries exist for mappings and lists alone
        return found


def path_text(path: Sequence[str | int]) -> str:
    """``spec.files[0].path`` from its parts."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step and len(step) <= 80 and all(c.isalnum() or c in "-_/" for c in step):
            text += f".{step}" if text else step
        else:
            short = step if len(step) <= 80 else step[:77] + "..."
            text += '["' + short.encode("unicode_escape").decode("ascii") + '"]'
    return text

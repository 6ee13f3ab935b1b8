"""JSON text to one document with positions.

YAML 1.2 contains JSON, libyaml's YAML does not quite (surrogate pairs, long keys). And json.loads keeps neither
positions nor duplicate keys; so this is a parser of its own, with the standard library's for strings.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from json import decoder

from joblet.manifest.document import (
    MAX_DEPTH,
    MAX_DOCUMENT_BYTES,
    MAX_INTEGER_DIGITS,
    MAX_NODES,
    Document,
    Entry,
    Fault,
    Place,
    Unreadable,
)
from joblet.manifest.quantities import shown

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_WORD = re.compile(r"true|false|null")
_WORDS = {"true": True, "false": False, "null": None}
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(text: str) -> Document:
    """The text's one value. Faults stand in the document; nothing is raised."""
    reader = _Reader(text)
    document = reader.document
    try:
        if len(text) * 4 > MAX_DOCUMENT_BYTES and len(text.encode()) > MAX_DOCUMENT_BYTES:
            raise Unreadable(Fault(Place(1, 1), (), "the document is larger than 1 MiB"))
        start = reader.skip_space(0)
        document.start = reader.place(start)
        document.value, end = reader.value(start)
        end = reader.skip_space(end)
        if end != len(text):
            raise reader.unreadable(end, "not JSON: something follows the end of the document")
    except Unreadable as error:
        document.faults.append(error.fault)
        document.value = None
    return document


class _Reader:
    def __init__(self, text: str) -> None:
        self.document = Document(0, Place(1, 1))
        self._content = text
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._path: list[str | int] = []
        self._nodes = 0

    def place(self, offset: int) -> Place:
        line = bisect_right(self._lines, offset)
        return Place(line, offset - self._lines[line - 1] + 1)

    def unreadable(self, offset: int, message: str) -> Unreadable:
        return Unreadable(Fault(self.place(offset), tuple(self._path), message))

    def skip_space(self, offset: int) -> int:
        match = _SPACE.match(self._content, offset)
        return match.end() if match else offset

    def value(self, offset: int) -> tuple[object, int]:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self.unreadable(offset, f"more than {MAX_NODES} values in one document")
        first = self._content[offset : offset + 1]
        if first == '"':
            return self._string(offset)
        if first in ("{", "["):
            if len(self._path) >= MAX_DEPTH:
                raise self.unreadable(offset, f"nested more than {MAX_DEPTH} levels deep")
            return self._object(offset) if first == "{" else self._array(offset)
        if word := _WORD.match(self._content, offset):
            return _WORDS[word[0]], word.end()
        if number := _NUMBER.match(self._content, offset):
            return self._number(number), number.end()
        raise self.unreadable(offset, f"not JSON: expected a value, found {self._found(offset)}")

    def _found(self, offset: int) -> str:
        return shown(self._content[offset]) if offset < len(self._content) else "the end"

    def _number(self, match: re.Match[str]) -> object:
        if len(match[0]) > MAX_INTEGER_DIGITS:
            raise self.unreadable(match.start(), f"a number of {len(match[0])} digits is too long")
        return float(match[0]) if match[2] or match[3] else int(match[1])

    def _string(self, offset: int) -> tuple[str, int]:
        try:
            text, end = decoder.scanstring(  # type: ignore[attr-defined]  # not in typeshed
                self._content, offset + 1, True
            )
        except decoder.JSONDecodeError as error:
            raise self.unreadable(
                error.pos, f"not JSON: {error.msg[:1].lower()}{error.msg[1:].removesuffix(' at')}"
            ) from None
        if _SURROGATE.search(text):
            raise self.unreadable(offset, "holds half of a surrogate pair, which is not a character")
        return text, end

    def _array(self, offset: int) -> tuple[list[object], int]:
        values: list[object] = []
        entries: dict[str | int, Entry] = {}
        self.document.entries[id(values)] = entries
        offset = self.skip_space(offset + 1)
        if self._content[offset : offset + 1] == "]":
            return values, offset + 1
        while True:
            place = self.place(offset)
            entries[len(values)] = Entry(place, place)
            self._path.append(len(values))
            value, offset = self.value(offset)
            self._path.pop()
            values.append(value)
            offset, more = self._separator(offset, "]")
            if not more:
                return values, offset

    def _object(self, offset: int) -> tuple[dict[str, object], int]:
        values: dict[str, object] = {}
        entries: dict[str | int, Entry] = {}
        self.document.entries[id(values)] = entries
        offset = self.skip_space(offset + 1)
        if self._content[offset : offset + 1] == "}":
            return values, offset + 1
        while True:
            key_place = self.place(offset)
            if self._content[offset : offset + 1] != '"':
                raise self.unreadable(offset, f"not JSON: expected a key in double quotes, found {self._found(offset)}")
            key, offset = self._string(offset)
            offset = self.skip_space(offset)
            if self._content[offset : offset + 1] != ":":
                raise self.unreadable(offset, f'not JSON: expected ":", found {self._found(offset)}')
            offset = self.skip_space(offset + 1)
            place = self.place(offset)
            self._path.append(key)
            if key in values:
                message = f"the key {shown(key)} is given twice (first in line {entries[key].key.line})"
                self.document.faults.append(Fault(key_place, tuple(self._path), message))
                _, offset = self.value(offset)
            else:
                entries[key] = Entry(key_place, place)
                values[key], offset = self.value(offset)
            self._path.pop()
            offset, more = self._separator(offset, "}")
            if not more:
                return values, offset

    def _separator(self, offset: int, closing: str) -> tuple[int, bool]:
        offset = self.skip_space(offset)
        found = self._content[offset : offset + 1]
        if found == closing:
            return offset + 1, False
        if found != ",":
            raise self.unreadable(offset, f'not JSON: expected "," or "{closing}", found {self._found(offset)}')
        return self.skip_space(offset + 1), True

"""YAML text to documents with positions: libyaml's events, with our own composer on top.

libyaml gives the place of every event, so one pass yields values and positions both (139 events of a full manifest:
0.12 ms); a second pass for errors would save nothing. Composing ourselves is what makes YAML safe and unsurprising:
duplicate keys are seen, aliases are counted before they can explode, tags are refused, and plain scalars follow YAML
1.2's core schema, not 1.1's (libyaml leaves that to its user): ``yes`` and ``2026-01-02`` are text.

A line that begins with ``---`` or ``...`` always ends a document, even within a quoted or block scalar. So the text is
cut there first: each document is bounded before it is parsed, and a syntax error in one does not hide the errors of
the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from joblet.manifest.document import (
    MAX_ALIASED_TEXT,
    MAX_DEPTH,
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENTS,
    MAX_INTEGER_DIGITS,
    MAX_NODES,
    Document,
    Entry,
    Fault,
    Place,
    Unreadable,
)
from joblet.manifest.quantities import shown

_MARKER = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_CONSTANTS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def read_yaml(text: str) -> Iterator[Document]:
    """All documents of a text, in order; empty ones are left out. Faults stand in the documents; nothing is raised."""
    number = 0
    for first_line, chunk in _cut(text):
        if not _has_content(chunk):
            continue
        if number == MAX_DOCUMENTS:
            document = Document(number, Place(first_line, 1))
            document.faults.append(Fault(document.start, (), f"more than {MAX_DOCUMENTS} documents in one file"))
            yield document
            return
        document = _read_document(chunk, first_line, number)
        if document.value is not None or document.faults:
            yield document
            number += 1


def _cut(text: str) -> Iterator[tuple[int, str]]:
    """The text of each document with the number of its first line."""
    line, start = 1, 0
    for marker in _MARKER.finditer(text):
        if marker.start() > start:
            yield line, text[start : marker.start()]
            line += text.count("\n", start, marker.start())
        start = marker.start()
    yield line, text[start:]


def _has_content(chunk: str) -> bool:
    lines = chunk.removeprefix("---").removeprefix("...").split("\n")
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _read_document(chunk: str, first_line: int, number: int) -> Document:
    document = Document(number, Place(first_line, 1))
    if len(chunk) * 4 > MAX_DOCUMENT_BYTES and len(chunk.encode()) > MAX_DOCUMENT_BYTES:
        document.faults.append(Fault(document.start, (), "the document is larger than 1 MiB"))
        return document
    if chunk.startswith("..."):
        chunk = "   " + chunk[3:]  # the marker belongs to the document before; positions stay
    if chunk.startswith("%") or "\n%" in chunk:
        chunk = _without_directives(chunk, document)
    try:
        _Composer(chunk, first_line, document).compose()
    except Unreadable as error:
        document.faults.append(error.fault)
        document.value = None
    return document


def _without_directives(chunk: str, document: Document) -> str:
    """Blank out ``%YAML 1.2`` before a document; any other directive is a fault."""
    lines = chunk.split("\n")
    for index, line in enumerate(lines):
        if line.startswith("%"):
            if line.split("#")[0].split() != ["%YAML", "1.2"]:
                place = Place(document.start.line + index, 1)
                document.faults.append(
                    Fault(place, (), f"{shown(line.strip())}: a directive; only %YAML 1.2 is allowed")
                )
            lines[index] = ""
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return "\n".join(lines)


class _Anchor(NamedTuple):
    value: object
    nodes: int
    text: int


class _Composer:
    """Builds one document from its events."""

    def __init__(self, chunk: str, first_line: int, document: Document) -> None:
        # Here, since whoever only writes or compares manifests need not wait for it (18 ms).
        from yaml.cyaml import CParser  # type: ignore[attr-defined]  # its stub hides what it has
        from yaml.error import YAMLError

        self._parser = CParser(chunk)
        self._syntax_error = YAMLError
        self._chunk = chunk
        self._first_line = first_line
        self._document = document
        self._anchors: dict[str, _Anchor | None] = {}  # None: still open
        self._path: list[str | int] = []
        self._nodes = 0
        self._text = 0
        self._aliased_text = 0

    def compose(self) -> None:
        """Read the document's one node; an empty document leaves the value None."""
        while True:
            event = self._next()
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                self._document.start = self._next_place = self._place(event)
                node = self._next()
                self._document.start = self._place(node)
                self._document.value = self._node(node)
                self._next()
            elif kind == "StreamEndEvent":
                return

    def _next(self) -> Any:
        try:
            return self._parser.get_event()
        except self._syntax_error as error:
            raise Unreadable(self._syntax_fault(error)) from None

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self._first_line + mark.line, mark.column + 1)

    def _fault(self, place: Place, message: str) -> Fault:
        return Fault(place, tuple(self._path), message)

    def _note(self, place: Place, message: str) -> None:
        if len(self._document.faults) < 1000:
            self._document.faults.append(self._fault(place, message))

    def _node(self, event: Any) -> object:
        kind = type(event).__name__
        place = self._place(event)
        if kind == "AliasEvent":
            return self._alias(event.anchor, place)
        self._count(1, place)
        if event.tag is not None and event.tag != "!":
            self._note(place, f"{shown(str(event.tag))}: tags are not allowed; write the value plainly")
        nodes, text = self._nodes - 1, self._text
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        value: object
        if kind == "ScalarEvent":
            self._text += len(event.value)
            value = self._scalar(event, place)
        else:
            if len(self._path) >= MAX_DEPTH:
                raise Unreadable(self._fault(place, f"nested more than {MAX_DEPTH} levels deep"))
            value = self._mapping() if kind == "MappingStartEvent" else self._sequence()
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(value, self._nodes - nodes, self._text - text)
        return value

    def _count(self, nodes: int, place: Place) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise Unreadable(self._fault(place, f"more than {MAX_NODES} values in one document, aliases expanded"))

    def _alias(self, name: str, place: Place) -> object:
        if name not in self._anchors:
            raise Unreadable(self._fault(place, f"{shown('*' + name)}: there is no anchor &{name} before this place"))
        anchor = self._anchors[name]
        if anchor is None:
            raise Unreadable(
                self._fault(place, f"{shown('*' + name)}: the alias stands for something it is itself a part of")
            )
        self._count(anchor.nodes, place)
        self._text += anchor.text
        self._aliased_text += anchor.text
        if self._aliased_text > MAX_ALIASED_TEXT:
            raise Unreadable(self._fault(place, "the aliases of this document expand to more than 1 MiB of text"))
        return anchor.value

    def _sequence(self) -> list[object]:
        values: list[object] = []
        entries: dict[str | int, Entry] = {}
        self._document.entries[id(values)] = entries
        while type(event := self._next()).__name__ != "SequenceEndEvent":
            place = self._place(event)
            entries[len(values)] = Entry(place, place)
            self._path.append(len(values))
            values.append(self._node(event))
            self._path.pop()
        return values

    def _mapping(self) -> dict[str, object]:
        values: dict[str, object] = {}
        entries: dict[str | int, Entry] = {}
        self._document.entries[id(values)] = entries
        while type(event := self._next()).__name__ != "MappingEndEvent":
            key_place = self._place(event)
            key = self._key(event, key_place)
            self._path.append(key)
            event = self._next()
            place = self._place(event)
            if key in values:
                first = entries[key].key
                self._note(key_place, f"the key {shown(key)} is given twice (first in line {first.line})")
                self._node(event)
            else:
                entries[key] = Entry(key_place, place)
                values[key] = self._node(event)
            self._path.pop()
        return values

    def _key(self, event: Any, place: Place) -> str:
        self._path.append("")
        key = self._node(event)
        self._path.pop()
        if isinstance(key, str):
            if key == "<<" and type(event).__name__ == "ScalarEvent" and event.implicit[0]:
                self._note(place, "merge keys (<<) are not part of YAML 1.2; write the keys out")
            return key
        if isinstance(key, (dict, list)):
            self._note(place, f"{shown(key)} cannot be a key; keys are text")
            return f"?{place.line}:{place.column}"
        self._note(place, f"the key {shown(key)} is not text; write it in quotes")
        return shown(key)

    def _scalar(self, event: Any, place: Place) -> object:
        text: str = event.value
        if not event.implicit[0] or event.style not in (None, ""):
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _INTEGER.fullmatch(text):
            digits = text.lstrip("+-")
            if len(digits) > 1 and digits[0] == "0":
                self._note(
                    place,
                    f"{text[:40]}: a leading zero makes a number ambiguous (octal in YAML 1.1); write it in quotes",
                )
            return self._integer(text, 10, place)
        if _OCTAL_OR_HEX.fullmatch(text):
            return self._integer(text, 0, place)
        return float(text) if _FLOAT.fullmatch(text) else text

    def _integer(self, text: str, base: int, place: Place) -> object:
        if len(text) > MAX_INTEGER_DIGITS:
            self._note(place, f"a number of {len(text)} digits is too long")
            return text
        return int(text, base)

    def _syntax_fault(self, error: Any) -> Fault:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        if mark is None:
            return self._fault(self._document.start, f"not YAML: {getattr(error, 'problem', None) or error}")
        place = Place(self._first_line + mark.line, mark.column + 1)
        if self._chunk[mark.index : mark.index + 1] == "\t":
            return self._fault(place, "a tab; indent with spaces")
        message = f"not YAML: {error.problem}"
        context = getattr(error, "context_mark", None)
        if error.context and context is not None and (context.line, context.column) != (mark.line, mark.column):
            message += f", {error.context} that begins in line {self._first_line + context.line}"
        return self._fault(place, message)

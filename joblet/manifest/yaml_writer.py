"""A manifest as YAML that people like to read: the models' order, no defaults, block style, literal text.

Written by hand rather than with a library: the data are mappings, lists and scalars only, the outcome is the same
everywhere and for ever, and a client that prints YAML need not import a YAML library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from joblet.manifest.base import ManifestModel
from joblet.manifest.canonical import plain

_WIDTH = 100
# Text that needs no quotes in any YAML version: no indicator, nothing that some version reads as something else.
_PLAIN = re.compile(
    r"-{0,2}[A-Za-z_/][A-Za-z0-9_./@%+=-]*(?: [A-Za-z0-9_./@%+=-]+)*|[0-9]+(?:[A-Zdhm%][A-Za-z0-9]*|s|ms)", re.ASCII
)
_AMBIGUOUS = re.compile(
    r"(?:y|n|yes|no|on|off|true|false|null|[0-9.]+[eE][0-9+-]*|0[box][0-9a-f]*)", re.ASCII | re.IGNORECASE
)
# A literal block keeps every character but these: control characters, other line ends, a byte order mark.
_NOT_LITERAL = re.compile("[^\n\t\\x20-\\x7e\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_ESCAPE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def to_yaml(manifest: ManifestModel) -> str:
    """One YAML document, ending in a newline. Reading it back gives an equal manifest."""
    return yaml_text(plain(manifest))


def yaml_text(data: Mapping[str, Any]) -> str:
    """Any mapping of texts, numbers, lists and mappings as a YAML document, in its own order."""
    return "".join(line + "\n" for line in _mapping(data, 0))


def _mapping(data: Mapping[str, Any], indent: int) -> Iterator[str]:
    for key, value in data.items():
        yield from _entry(" " * indent + _scalar(key) + ":", value, indent)


def _entry(head: str, value: Any, indent: int) -> Iterator[str]:
    """One ``key:`` or ``-`` with its value, on the same line where it fits."""
    if isinstance(value, str) and (block := _literal(value)) is not None:
        header, lines = block
        yield f"{head} {header}"
        yield from (f"{' ' * (indent + 2)}{line}" if line else "" for line in lines)
    elif isinstance(value, dict) and value:
        yield head
        yield from _mapping(value, indent + 2)
    elif isinstance(value, list) and value:
        yield from _list(head, value, indent)
    else:
        yield f"{head} {_scalar(value)}"


def _list(head: str, values: list[Any], indent: int) -> Iterator[str]:
    if not any(isinstance(value, dict) or (isinstance(value, str) and "\n" in value) for value in values):
        line = f"{head} [{', '.join(_scalar(value) for value in values)}]"
        if len(line) <= _WIDTH:
            yield line
            return
    yield head
    for value in values:
        if isinstance(value, dict):
            first, *rest = _mapping(value, indent + 4)
            yield f"{' ' * indent}  - {first.lstrip(' ')}"
            yield from rest
        else:
            yield from _entry(f"{' ' * indent}  -", value, indent + 2)


def _literal(text: str) -> tuple[str, list[str]] | None:
    """Header and lines of a literal block; None if the text is one line or a block would not keep it."""
    if "\n" not in text or _NOT_LITERAL.search(text) or not text.strip("\n"):
        return None
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    lines = body.split("\n")
    first = next(line for line in lines if line)
    if first[0] in " \t" or any(line and not line.strip(" \t") for line in lines):
        return None  # leading space needs an indentation indicator; lines of nothing but space are fragile in editors
    chomp = "-" if ends == 0 else "" if ends == 1 else "+"
    return f"|{chomp}", [*lines, *[""] * (ends - 1)]


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and not _AMBIGUOUS.fullmatch(value):
            return value
        return _ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    return json.dumps(value)

"""Changes single values in the text of a configuration file; every other byte, comments too, stays as people wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from joblet.config.errors import ConfigError
from joblet.config.yaml_places import ConfigText

STEP = 2  # of indentation


def with_values(text: str, values: Mapping[tuple[str, ...], str], *, path: str) -> str:
    """The text with these values; keys that are not there are added. path: for errors. Raises ConfigError."""
    for place, value in values.items():
        text = _with_value(text, place, value, path)
    return text


def _with_value(text: str, place: tuple[str, ...], value: str, path: str) -> str:
    source = ConfigText(text, path=path)
    wanted = _merged(source.data, place, value)
    edited = _edited(text, place, value)
    if edited is None or ConfigText(edited, path=path).data != wanted:
        source.fail(place, "cannot be changed in a file that is written like this", todo="set it by hand")
    return edited


def _edited(text: str, place: tuple[str, ...], value: str) -> str | None:
    """None where the file's form is one that we don't edit."""
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    indent = 0
    for depth, part in enumerate(place):
        if not isinstance(node, yaml.MappingNode) or (not node.value and depth):
            return None
        found = next(((key, child) for key, child in node.value if key.value == part), None)
        if node.value:
            indent = node.value[0][0].start_mark.column
        if found is None:
            return _added(text, node, indent, place[depth:], value)
        child = found[1]
        if depth == len(place) - 1:
            if not isinstance(child, yaml.ScalarNode):
                return None
            start, end = child.start_mark.index, child.end_mark.index
            if child.style in ("|", ">"):
                end = _end_of_block(text, start, end, indent)
            # A block takes all of its lines: where something follows the value on its line, it cannot be one.
            follows = text[end:].partition("\n")[0].strip()
            new = _scalar(value, indent, flow=bool(node.flow_style or follows))
            space = " " if text[start - 1] == ":" else ""
            return text[:start] + space + new + (text[end:] or "\n")
        node = child
    return None


def _end_of_block(text: str, start: int, end: int, indent: int) -> int:
    """Where the last line of a block scalar ends, before its newline: what is indented no deeper than its key is not its own."""
    position = text.index("\n", start) if "\n" in text[start:] else len(text)
    while position < end:
        following = text.find("\n", position + 1)
        following = len(text) if following < 0 else following
        line = text[position + 1 : following]
        if line.strip() and len(line) - len(line.lstrip(" ")) <= indent:
            break
        position = following
    return position


def _added(text: str, node: yaml.MappingNode, indent: int, rest: tuple[str, ...], value: str) -> str | None:
    """Before the mapping's first key, or for a section of the whole file at its end."""
    if node.flow_style and node.value:
        start = node.start_mark.index + 1
        inner = json.dumps(value)
        for key in reversed(rest):
            inner = f"{key}: {inner}" if inner.startswith('"') else f"{key}: {{{inner}}}"
        return f"{text[:start]}{inner}, {text[start:]}"
    if node.flow_style or not node.value:
        return None
    lines = []
    for depth, key in enumerate(rest):
        margin = " " * (indent + depth * STEP)
        last = depth == len(rest) - 1
        lines.append(f"{margin}{key}:" + (f" {_scalar(value, indent + depth * STEP, flow=False)}" if last else ""))
    added = "\n".join(lines) + "\n"
    if not indent:
        return text + ("" if text.endswith("\n") else "\n") + added
    start = node.value[0][0].start_mark.index - indent
    return text[:start] + added + text[start:]


def _scalar(value: str, indent: int, *, flow: bool) -> str:
    """Text of several lines as a block, where a block may stand; anything else in quotes."""
    if flow or "\n" not in value:
        return json.dumps(value)
    margin = " " * (indent + STEP)
    mark = "|" if value.endswith("\n") else "|-"
    return mark + "\n" + "\n".join(f"{margin}{line}" if line else "" for line in value.rstrip("\n").split("\n"))


def _merged(data: Any, place: tuple[str, ...], value: str) -> Any:
    if not isinstance(data, Mapping):
        raise ConfigError("is not a mapping of keys", where=".".join(place))
    first, *rest = place
    inner = value if not rest else _merged(data.get(first, {}), tuple(rest), value)
    return {**data, first: inner}

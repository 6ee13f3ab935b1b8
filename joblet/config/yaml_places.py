"""YAML of a configuration file with the place of each key. Places are looked up only to report an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

import yaml

from joblet.config.errors import ConfigError

MAX_DEPTH = 64


class ConfigText:
    """The text of one configuration file, as plain data with places. Raises ConfigError for what is no mapping in YAML."""

    def __init__(self, text: str, *, path: str) -> None:
        self.path = path
        self._text = text
        try:
            if (place := too_deep(text)) is not None:
                what = f"is nested more than {MAX_DEPTH} levels deep"
                raise ConfigError(what, where=f"{path}:{place[0]}:{place[1]}")
            self.data: object = yaml.load(text, Loader=yaml.CSafeLoader)
            root = yaml.compose(text, Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
            raise ConfigError(f"is not YAML: {error.problem}", where=where) from error
        except yaml.YAMLError as error:  # characters that YAML does not allow
            raise ConfigError("is not YAML: it has characters that no text file has", where=path) from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"is not YAML: {error}", where=path) from error
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError("is not a mapping of keys", where=path)
        for key in duplicates(root):
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            raise ConfigError(f"the key {key.value!r} stands here a second time", where=f"{path}:{line}:{column}")
        self._root: yaml.Node = root

    def place(self, location: Sequence[str]) -> str:
        """``file:line:column`` of a key, or of the innermost key above it that is there."""
        node = self._root
        mark = node.start_mark
        for part in location:
            if not isinstance(node, yaml.MappingNode):
                break
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                break
            mark, node = found[0].start_mark, found[1]
        return f"{self.path}:{mark.line + 1}:{mark.column + 1}"

    def fail(self, location: Sequence[str], what: str, *, todo: str = "") -> NoReturn:
        """Raises ConfigError about a key."""
        prefix = ".".join(location)
        raise ConfigError(f"{prefix}: {what}" if prefix else what, where=self.place(location), todo=todo)


def too_deep(text: str) -> tuple[int, int] | None:
    """Line and column from which on it is nested too deep: the composer calls itself for each level, and a stack has an end."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark = event.start_mark
                return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def duplicates(root: yaml.Node) -> Iterator[yaml.Node]:
    """Keys that their mapping has already, of which YAML's loader would silently take the last.

    However deep it is, and each node once, however many aliases it has.
    """
    left, visited = [root], {id(root)}
    while left:
        node = left.pop()
        below = []
        if isinstance(node, yaml.MappingNode):
            seen: set[object] = set()
            for key, value in node.value:
                if isinstance(key.value, str) and key.value in seen:
                    yield key
                seen.add(key.value if isinstance(key.value, str) else id(key))
                below.append(value)
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        new = [value for value in below if id(value) not in visited]
        visited.update(map(id, new))
        left.extend(reversed(new))


def advice(word: str, known: Iterable[str]) -> str:
    """What an unknown key may have been meant to be."""
    choices = list(known)
    near = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(choices) or 'none'}"

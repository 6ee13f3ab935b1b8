"""A configuration file as a model: one YAML mapping, each problem with its place."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from joblet.config.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def parse(text: str, model: type[M], *, path: str) -> M:
    """The file as a model. Raises ConfigError with file:line:column and the nearest key for each problem, all at once."""
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
        data = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ConfigError(f"is not YAML: {error.problem}", where=where) from error
    if node is None or not isinstance(data, dict):
        raise ConfigError("is not a mapping of keys", where=path)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_problem(path, node, model, dict(item)) for item in error.errors(include_url=False)]
        first, *others = problems
        more = "".join(f"\n{other.where}: {other.what}" for other in others)
        raise ConfigError(first.what + more, where=first.where, todo=first.todo) from error


def _problem(path: str, root: yaml.Node, model: type[BaseModel], item: Mapping[str, Any]) -> ConfigError:
    location = tuple(str(part) for part in item["loc"])
    mark = _mark(root, location)
    where = f"{path}:{mark[0] + 1}:{mark[1] + 1}"
    name = ".".join(location)
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], _keys(model, location[:-1]), n=1)
        return ConfigError(f"{name}: unknown key", where=where, todo=f"did you mean {near[0]}?" if near else "")
    return ConfigError(f"{name}: {item['msg'].removeprefix('Value error, ')}", where=where)


def _mark(node: yaml.Node, location: Sequence[str]) -> tuple[int, int]:
    """Where a value stands, or the innermost mapping that should hold it."""
    mark = (node.start_mark.line, node.start_mark.column)
    for part in location:
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((key, value) for key, value in node.value if key.value == part), None)
        if found is None:
            break
        key, node = found
        mark = (key.start_mark.line, key.start_mark.column)
    return mark


def _keys(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The keys that a section knows."""
    current: Any = model
    for part in location:
        field = next((field for name, field in current.model_fields.items() if (field.alias or name) == part), None)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        current = field.annotation
    return [field.alias or name for name, field in current.model_fields.items()]

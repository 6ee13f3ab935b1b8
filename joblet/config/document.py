"""A configuration file as a model: one YAML mapping, each problem with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from joblet.config.errors import ConfigError
from joblet.config.yaml_places import ConfigText, advice

M = TypeVar("M", bound=BaseModel)


def validate(source: ConfigText, data: object, model: type[M]) -> M:
    """The data of a file as a model. Raises ConfigError with place and nearest key for each problem, all at once."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first, *others = [problem(source, model, dict(item)) for item in error.errors(include_url=False)]
        more = "".join(f"\n{other}" for other in others)
        raise ConfigError(
            first.what + (f" ({first.todo})" if more and first.todo else "") + more,
            where=first.where,
            todo="" if more else first.todo,
        ) from error


def problem(source: ConfigText, model: type[BaseModel], item: Mapping[str, Any]) -> ConfigError:
    """One of pydantic's findings in our words."""
    location = tuple(str(part) for part in item["loc"])
    name, where = ".".join(location), source.place(location)
    match item["type"]:
        case "extra_forbidden":
            todo = advice(location[-1], known_keys(model, location[:-1]))
            return ConfigError(f"{name}: unknown key", where=where, todo=todo)
        case "missing":
            return ConfigError(f"{name}: is missing", where=where, todo="joblet init writes a whole file")
    message = item["msg"].removeprefix("Value error, ")
    return ConfigError(f"{name}: {message[:1].lower()}{message[1:]}", where=where)


def known_keys(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The keys that a section knows."""
    current: Any = model
    for part in location:
        field = next((field for name, field in current.model_fields.items() if (field.alias or name) == part), None)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        current = field.annotation
    return [field.alias or name for name, field in current.model_fields.items()]

"""What is in force and where each value came from: the file's line, a variable, or the default. Keys are not shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from joblet.config.section import SECRET
from joblet.config.server import LoadedConfig, ServerConfig
from joblet.config.values import TYPE
from joblet.manifest.canonical import plain
from joblet.manifest.model_base import ManifestModel
from joblet.manifest.quantities import format_duration, format_size

HIDDEN = "(not shown)"


@dataclass(frozen=True, slots=True)
class Value:
    """One key. path: dotted. value: as one would write it."""

    path: str
    value: Any
    origin: str


def effective_values(loaded: LoadedConfig) -> Iterator[Value]:
    """All keys in the order of the reference."""
    data = loaded.source.data
    assert isinstance(data, Mapping)
    yield Value("version", loaded.config.version, loaded.source.place(("version",)))
    origin = loaded.source.place(("executor",)) if "executor" in data else "default"
    yield Value("executor", loaded.config.executor, origin)
    for name, section in sections(loaded.config):
        properties = type(section).model_json_schema()["properties"]
        given = data.get(name)
        for field, info in type(section).model_fields.items():
            alias = str(info.alias)
            path = f"{name}.{alias}"
            if variable := loaded.environment.get(path):
                origin = variable
            elif isinstance(given, Mapping) and alias in given:
                origin = loaded.source.place((name, alias))
            elif f"{alias}Path" in (given if isinstance(given, Mapping) else {}):
                origin = f"{name}.{alias}Path"
            else:
                origin = "default"
            yield Value(path, written(getattr(section, field), properties[alias]), origin)


def sections(config: ServerConfig) -> Iterator[tuple[str, BaseModel]]:
    """Each section by its name."""
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, BaseModel):
            yield name, section


def written(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value as the file has it; what is secret, and certificates, as a word."""
    if schema.get(SECRET):
        return HIDDEN if value else ""
    kind = type_of(schema)
    if kind == "PEM text":
        return f"(PEM text of {len(value.splitlines())} lines)" if value else ""
    if isinstance(value, float) and kind.startswith("duration"):
        return format_duration(value) if value else 0 if kind != "duration" else "0s"
    if isinstance(value, int) and kind == "size":
        return format_size(value)
    if isinstance(value, tuple):
        return [str(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) if isinstance(one, ManifestModel) else one for name, one in value.items()}
    return value if isinstance(value, bool | int | type(None)) else str(value)


def type_of(schema: Mapping[str, Any]) -> str:
    """The kind of value in words."""
    if TYPE in schema:
        return str(schema[TYPE])
    if "anyOf" in schema:
        return type_of(next(one for one in schema["anyOf"] if one.get("type") != "null"))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list: {type_of(schema['items'])}"
    return {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}[
        schema["type"]
    ]

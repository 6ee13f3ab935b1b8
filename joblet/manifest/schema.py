"""The models as a JSON Schema (draft 2020-12) for editors and other tools.

Made from the same ``Leaf`` objects that parse, not from pydantic's own generator: that one knows neither how a default
is spelt in a manifest nor that ``null`` is never a value.
"""

from __future__ import annotations

import json
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from joblet.manifest.fields import Leaf, Shorthand
from joblet.manifest.kinds import MODELS
from joblet.manifest.models import FileSpec, JobSpec, Retry
from joblet.manifest.reader import model_in
from joblet.manifest.schedule import Schedule

# Rules across fields, as far as JSON Schema can say them; joblet.manifest.rules has them all.
_RULES: dict[type[BaseModel], dict[str, Any]] = {
    JobSpec: {
        "oneOf": [{"required": ["command"]}, {"required": ["script"]}],
        "if": {
            "properties": {"retry": {"properties": {"limit": {"minimum": 1}}, "required": ["limit"]}},
            "required": ["retry"],
        },
        "then": {"properties": {"restart": {"const": "Never"}}},
    },
    FileSpec: {
        "oneOf": [
            {"required": ["content"]},
            {"required": ["from"]},
            {"required": ["sha256"]},
            {"required": ["link"]},
        ],
        "dependentRequired": {"sha256": ["size"], "size": ["sha256"]},
    },
    Schedule: {"oneOf": [{"required": ["cron"]}, {"required": ["at"]}, {"required": ["every"]}]},
    Retry: {"properties": {"onExitCodes": {"uniqueItems": True}, "neverOnExitCodes": {"uniqueItems": True}}},
}


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema of one document of that kind. It says all that a schema can; the reader also checks what it cannot."""
    definitions: dict[str, Any] = {}
    root = _model_schema(MODELS[kind], definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:joblet:schema:{kind.lower()}:v1",
        "title": f"Joblet {kind.lower()}, version 1",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text(kind: str) -> str:
    """The schema as the published file holds it."""
    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by their keys in a manifest, in order."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def leaf_of(info: FieldInfo) -> Leaf | None:
    """The leaf type of a scalar field; None for lists, mappings and models."""
    return next((part for part in info.metadata if isinstance(part, Leaf)), None)


def without_none(annotation: Any) -> Any:
    """``X`` from ``X | None``."""
    parts = [part for part in get_args(annotation) if part is not NoneType]
    return parts[0] if NoneType in get_args(annotation) else annotation


def spelt_default(info: FieldInfo) -> Any:
    """A field's default as a manifest spells it; None if it has none worth showing."""
    default = info.default
    if default is PydanticUndefined or default is None or isinstance(default, (BaseModel, dict, tuple)):
        return None
    leaf = leaf_of(info)
    return leaf.write(default) if leaf and leaf.write else default


def _model_schema(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    keys = fields_of(model)
    properties = {key: _field_schema(info, definitions) for key, info in keys.items()}
    rules = dict(_RULES.get(model, {}))
    for key, more in rules.pop("properties", {}).items():
        properties[key].update(more)
    schema: dict[str, Any] = {"description": model.__doc__, "type": "object", "properties": properties}
    if required := [key for key, info in keys.items() if info.is_required()]:
        schema["required"] = required
    return {**schema, "additionalProperties": False, **rules}


def _field_schema(info: FieldInfo, definitions: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": info.description}
    leaf = leaf_of(info)
    schema.update(leaf.schema if leaf else _type_schema(without_none(info.annotation), definitions))
    for part in info.metadata:
        if isinstance(part, Shorthand):
            schema["anyOf"] = [{"type": part.type}, {"$ref": schema.pop("$ref")}]
        for limit, word in (("min_length", "minItems"), ("max_length", "maxItems")):
            if (bound := getattr(part, limit, None)) is not None:
                schema[word] = bound
    default = spelt_default(info)
    if default is not None:
        schema["default"] = default
    return schema


def _type_schema(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    arguments = get_args(annotation)
    if leaf := next((part for part in arguments if isinstance(part, Leaf)), None):
        return dict(leaf.schema)
    if get_origin(annotation) is tuple:
        return {"type": "array", "items": _type_schema(arguments[0], definitions)}
    if get_origin(annotation) is dict:
        names, values = (_type_schema(argument, definitions) for argument in arguments)
        return {"type": "object", "propertyNames": names, "additionalProperties": values}
    model = model_in(annotation)
    if model is None:
        raise TypeError(f"no schema for {annotation!r}")
    if model.__name__ not in definitions:
        definitions[model.__name__] = {}  # the place in order to come back to
        definitions[model.__name__] = _model_schema(model, definitions)
    return {"$ref": f"#/$defs/{model.__name__}"}

"""The reference of all keys, and their JSON Schema, both made from the models: docs and schemas/ hold what these return."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from joblet.config.effective import type_of, written
from joblet.config.section import RELOAD
from joblet.config.server import ServerConfig

SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """JSON Schema of ``joblet-config.yml``."""
    schema = ServerConfig.model_json_schema()
    described = {"$schema": SCHEMA_URL, **schema, "title": "joblet-config.yml, version 3.0"}
    _tidy(described)
    return described


def schema_text() -> str:
    return json.dumps(config_schema(), indent=2) + "\n"


def _tidy(node: Any) -> None:
    """Less pydantic's own titles; defaults as one would write them, and once: with the key, not with the section."""
    if isinstance(node, dict):
        if RELOAD in node and node.get("default") is not None:
            node["default"] = written(node["default"], node)
        elif RELOAD not in node and "default" in node and "properties" not in node:
            del node["default"]
        for name, section in node.get("properties", {}).items():
            if isinstance(section, dict) and section.get("title", "").lower().replace(" ", "") == name.lower():
                del section["title"]
        for value in node.values():
            _tidy(value)
    elif isinstance(node, list):
        for value in node:
            _tidy(value)


def reference() -> str:
    """One table a section, in Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    executor = ServerConfig.model_fields["executor"]
    yield "### `executor`"
    yield ""
    yield f"{executor.description} One of `local` (default) and `slurm`. A change counts after a restart."
    yield ""
    for name, info in ServerConfig.model_fields.items():
        model = info.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        properties = model.model_json_schema()["properties"]
        yield f"### `{name}`"
        yield ""
        yield str(model.__doc__).strip().split("\n\n")[0]
        yield ""
        yield "| key | value | default | effect | a change counts |"
        yield "|---|---|---|---|---|"
        for field in model.model_fields.values():
            schema = properties[field.alias]
            default = _default(field.default, schema)
            when = "at once" if schema.get(RELOAD) == "at once" else "after a restart"
            yield f"| `{field.alias}` | {type_of(schema)} | {default} | {field.description} | {when} |"
        yield ""


def _default(value: Any, schema: dict[str, Any]) -> str:
    shown = written(value, schema)
    if shown in (None, "", [], {}):
        return ""
    if isinstance(shown, bool):
        shown = str(shown).lower()
    return f"`{', '.join(shown) if isinstance(shown, list) else shown}`"

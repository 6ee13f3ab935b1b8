"""What all sections of the daemon's configuration share, and what each key says of itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

RELOAD, SECRET = "x-joblet-reload", "x-joblet-secret"


class Reload(StrEnum):
    """When a changed key takes effect."""

    AT_ONCE = "at once"
    RESTART = "restart"


class Section(BaseModel):
    """One mapping of keys; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def key(
    default: Any,
    alias: str,
    effect: str,
    *,
    reload: Reload = Reload.RESTART,
    secret: bool = False,
    **bounds: Any,
) -> Any:
    """A key of a section. effect: one sentence for the reference. secret: never shown."""
    extra: dict[str, Any] = {RELOAD: str(reload), **({SECRET: True} if secret else {})}
    return Field(default, alias=alias, description=effect, json_schema_extra=extra, repr=not secret, **bounds)

"""What all models of manifests share."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class ManifestModel(BaseModel):
    """What all models share: immutable, no unknown keys, aliases alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, hide_input_in_errors=True)


def refuse(title: str, problems: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
    """problems: paths below the model, and what is wrong there. Raises ValidationError if there are any."""
    found = [
        InitErrorDetails(type=PydanticCustomError("rule", "{message}", {"message": message}), loc=path, input=None)
        for path, message in problems
    ]
    if found:
        raise ValidationError.from_exception_data(title, found)

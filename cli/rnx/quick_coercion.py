"""Plain values of the command line without pydantic.

typer 0.29 turns every value into its type by a pydantic adapter, whose import costs each call as much as importing grpc
does. Text, flags and words of a list need none; everything else, and every wrong value, is left to typer. With a
typer that has no such adapters this does nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class QuickCoercion:
    """Stands in for typer's ``RuntimeParam`` of one parameter and makes the real one only if it is needed."""

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        wanted = self._annotation
        if wanted in (str, bool, int) and type(value) is wanted:  # for int: a default; what was typed is text
            return value
        if wanted == list[str] and isinstance(value, (list, tuple)) and all(type(one) is str for one in value):
            return list(value)
        if isinstance(wanted, type) and issubclass(wanted, Enum) and value in [member.value for member in wanted]:
            return wanted(value)
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        param._runtime_param = None  # noqa: SLF001 (typer offers no other way in)
        return param.get_runtime_param().coerce(value, param, ctx)


def quick(params: list[Any]) -> list[Any]:
    """The same parameters of a command, each with its quick coercion."""
    for param in params:
        if getattr(param, "_runtime_param", ...) is None:
            param._runtime_param = QuickCoercion(param.type_descriptor.annotation)  # noqa: SLF001 (likewise)
    return params

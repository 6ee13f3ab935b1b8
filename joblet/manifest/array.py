"""The ``array`` and ``matrix`` of a job: one command for many indexes, and what each index gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from joblet.manifest import fields as f
from joblet.manifest.array_values import matrix_text
from joblet.manifest.fields import ListInput
from joblet.manifest.model_base import ManifestModel
from joblet.manifest.quantities import shown

MOST_INDEXES = 10_000
ARRAY_VARIABLES, MATRIX_VARIABLES = "JOBLET_ARRAY_", "JOBLET_MATRIX_"
Found = tuple[tuple[str | int, ...], str]


class Success(ManifestModel):
    """How many indexes have to succeed. ``success: all``, which is the default, and ``success: any`` are short for it."""

    at_least: f.LeastSucceeded = Field(
        default=None, alias="atLeast", description="So many; then the others are stopped. Default: all of them."
    )


def _success(value: object) -> object:
    short: dict[object, dict[str, int]] = {"all": {}, "any": {"atLeast": 1}}
    if isinstance(value, str):
        if value not in short:
            raise ValueError(f"{shown(value)} is not allowed here (use all, any, or atLeast: and a number)")
        return short[value]
    return value


class Array(ManifestModel):
    """The command runs once for each index, each in a sandbox of its own; $JOBLET_ARRAY_INDEX tells it which one it is."""

    first: f.OptionalIndex = Field(default=None, alias="from", description="The first index. Default: 0.")
    last: f.OptionalIndex = Field(
        default=None, alias="to", description="The last index; there are at most 10,000. With a matrix that says which."
    )
    parallel: f.Parallel = Field(
        default=10, description="How many indexes run at a time; one that waits for its next attempt counts."
    )
    success: Annotated[Success, BeforeValidator(_success), f.Shorthand("string")] = Field(
        default=Success(), description=str(Success.__doc__)
    )
    fail_fast: f.Flag = Field(
        default=False,
        alias="failFast",
        description="true: once so many failed that it cannot succeed any more, the others are stopped; false: they go on.",
    )
    exclude: Annotated[tuple[dict[f.AxisName, f.MatrixValue], ...], ListInput] = Field(
        default=(),
        description="Combinations of the matrix that are left out; one may name some of its values alone.",
        max_length=256,
    )

    @field_validator("first", mode="after")
    @classmethod
    def _zero_is_none(cls, first: int | None) -> int | None:
        return first or None


def combinations(
    matrix: Mapping[str, Sequence[str]], exclude: Sequence[Mapping[str, str]] = ()
) -> tuple[dict[str, str], ...]:
    """The combinations of a matrix without those that are left out, the last axis changing fastest.

    The axes by name: in whatever order somebody writes them, an index stays what it is.
    """
    axes = sorted(matrix)
    every = (dict(zip(axes, values, strict=True)) for values in product(*(matrix[axis] for axis in axes)))
    return tuple(one for one in every if not any(_matches(one, left_out) for left_out in exclude))


def _matches(combination: Mapping[str, str], left_out: Mapping[str, str]) -> bool:
    return bool(left_out) and all(combination.get(axis) == value for axis, value in left_out.items())


def matrix_variable(axis: str) -> str:
    """The environment variable that has an axis' value."""
    return f"{MATRIX_VARIABLES}{axis.upper()}"


def with_array(spec: Any) -> Any:
    """A raw spec in which a matrix without an array has one, as it means the same."""
    if isinstance(spec, Mapping) and "matrix" in spec and "array" not in spec:
        return {**spec, "array": {}}
    return spec


# --- rules, on the raw mapping ------------------------------------------------------------------------------------------


def array_problems(spec: Mapping[str, object]) -> Iterator[Found]:
    """Broken rules of a raw spec: path below it, and what is wrong. What is malformed is passed over."""
    array, matrix = spec.get("array"), spec.get("matrix")
    if array is None and matrix is None:
        return
    own = array if isinstance(array, Mapping) else {}
    if spec.get("restart") == "Always":
        yield (
            ("restart",),
            "Always is for services, which never end; the indexes of an array may have Never or OnFailure",
        )
    yield from _taken_variables(spec.get("env"))
    if isinstance(matrix, Mapping):
        yield from (found for key in ("from", "to") if key in own for found in [(("array", key), _TWO_WAYS)])
        yield from _matrix_problems(matrix, own)
    elif matrix is None:
        yield from _range_problems(own)
    yield from _success_problems(own, matrix)


_TWO_WAYS = "is not for a job with a matrix, whose combinations are the indexes"


def _range_problems(array: Mapping[str, object]) -> Iterator[Found]:
    if "exclude" in array:
        yield ("array", "exclude"), "leaves out combinations of a matrix, and there is none"
    if "to" not in array:
        yield ("array",), "does not say which indexes there are; write to: 99, or a matrix beside it"
        return
    first, last = array.get("from", 0), array.get("to")
    if not (_is_number(first) and _is_number(last)):
        return
    count = last - first + 1  # type: ignore[operator]
    if count < 1:
        yield ("array", "to"), f"{last} comes before the first index, {first}"
    elif count > MOST_INDEXES:
        yield ("array", "to"), f"makes {count} indexes; at most {MOST_INDEXES} are allowed"


def _matrix_problems(matrix: Mapping[object, object], array: Mapping[str, object]) -> Iterator[Found]:
    if not matrix:
        yield ("matrix",), "has no axis; write one as in os: [debian, alpine]"
        return
    axes = {axis: texts for axis, values in matrix.items() if isinstance(axis, str) and (texts := _texts(values))}
    variables: dict[str, str] = {}
    for axis in axes:
        other = variables.setdefault(matrix_variable(axis), axis)
        if other != axis:
            yield ("matrix", axis), f"would be the same variable as {shown(other)}, {matrix_variable(axis)}"
    if len(axes) < len(matrix):
        return
    count = prod(len(values) for values in axes.values())
    if count > MOST_INDEXES:
        yield ("matrix",), f"makes {count} combinations; at most {MOST_INDEXES} are allowed"
        return
    exclude = array.get("exclude", ())
    if not isinstance(exclude, (list, tuple)):
        return
    faults = [found for place, one in enumerate(exclude) for found in _exclude_problems(place, one, axes)]
    yield from faults
    if not faults and exclude and _count(axes, exclude) == 0:
        yield ("array", "exclude"), "leaves no combination over"


def _exclude_problems(place: int, one: object, axes: Mapping[str, Sequence[str]]) -> Iterator[Found]:
    if not isinstance(one, Mapping):
        return
    if not one:
        yield ("array", "exclude", place), "names no value"
    for axis, value in one.items():
        if axis not in axes:
            yield ("array", "exclude", place, axis), f"is no axis of the matrix ({', '.join(axes)})"
        elif (text := _text(value)) is not None and text not in axes[axis]:
            yield (
                ("array", "exclude", place, axis),
                f"{shown(value)} is no value of that axis ({', '.join(axes[axis])})",
            )


def _success_problems(array: Mapping[str, object], matrix: object) -> Iterator[Found]:
    success = array.get("success")
    least = success.get("atLeast") if isinstance(success, Mapping) else None
    count = _raw_count(array, matrix)
    if _is_number(least) and count is not None and least > count:  # type: ignore[operator]
        yield ("array", "success", "atLeast"), f"{least} is more than there are indexes ({count})"


def _raw_count(array: Mapping[str, object], matrix: object) -> int | None:
    if isinstance(matrix, Mapping):
        axes = {axis: _texts(values) for axis, values in matrix.items()}
        if not axes or not all(axes.values()) or prod(map(len, axes.values())) > MOST_INDEXES:
            return None
        exclude = array.get("exclude", ())
        return _count(axes, exclude) if isinstance(exclude, (list, tuple)) else None
    first, last = array.get("from", 0), array.get("to")
    return last - first + 1 if _is_number(first) and _is_number(last) else None  # type: ignore[operator]


def _count(axes: Mapping[str, Sequence[str]], exclude: Sequence[object]) -> int:
    texts = [{axis: _text(value) or "" for axis, value in one.items()} for one in exclude if isinstance(one, Mapping)]
    return len(combinations(axes, texts))


def _taken_variables(env: object) -> Iterator[Found]:
    for name in env if isinstance(env, Mapping) else ():
        if isinstance(name, str) and name.startswith((ARRAY_VARIABLES, MATRIX_VARIABLES)):
            yield ("env", name), "is a variable that the array sets itself"


def _texts(values: object) -> list[str]:
    """The values of an axis; none if one of them is malformed."""
    found = [_text(value) for value in values] if isinstance(values, (list, tuple)) else []
    return [text for text in found if text is not None] if None not in found else []


def _text(value: object) -> str | None:
    try:
        return matrix_text(value)
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""What a field means, for ``rnx explain`` and the reference: from the models alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from joblet.errors import JobletError
from joblet.manifest.fields import Leaf
from joblet.manifest.kinds import MODELS
from joblet.manifest.models import JobManifest
from joblet.manifest.nearest import nearest
from joblet.manifest.reader import model_in
from joblet.manifest.schema import fields_of, leaf_of, spelt_default, without_none


@dataclass(frozen=True, slots=True)
class FieldHelp:
    """One field. path: as in ``spec.limits.memory``, empty for the whole manifest.

    default: as a manifest spells it, or empty.

    children: the fields right below, without children of their own.
    """

    path: str
    type: str
    default: str
    required: bool
    description: str
    children: tuple[FieldHelp, ...] = ()


class UnknownField(JobletError):
    """There is no such field. nearest: the closest path that exists, or None."""

    def __init__(self, path: str, closest: str | None, allowed: tuple[str, ...]) -> None:
        self.nearest = closest
        hint = f"did you mean {closest}?" if closest else f"fields here: {', '.join(allowed)}"
        super().__init__(f'there is no field "{path}"', todo=hint)


def explain(path: str = "") -> FieldHelp:
    """Help on a field: ``spec.limits.memory``, ``spec.files.path``; ``job`` or nothing is a job's whole manifest, and
    ``volume.spec.size`` is of another kind.

    Raises UnknownField.
    """
    steps = [step.partition("[")[0] for step in path.strip(".").split(".") if step]
    root: type[BaseModel] = JobManifest
    prefix = ""
    if steps and (kind := next((kind for kind in MODELS if kind.lower() == steps[0].lower()), None)):
        root, steps = MODELS[kind], steps[1:]
        prefix = "" if kind == "Job" else kind.lower()
    model: type[BaseModel] | None = root
    info: FieldInfo | None = None
    for depth, step in enumerate(steps):
        keys = fields_of(model) if model else {}
        if step not in keys:
            before = ".".join(steps[:depth])
            best = nearest(step, keys) or _elsewhere(step)
            raise UnknownField(path, best if best is None or "." in best else _joined(before, best), tuple(keys))
        info = keys[step]
        model = model_in(info.annotation)
    here = ".".join([prefix, *steps] if prefix else steps)
    children = tuple(_help(_joined(here, key), child) for key, child in fields_of(model).items()) if model else ()
    if info is None:
        return FieldHelp(prefix, "mapping", "", True, str(root.__doc__), children)
    alone = _help(here, info)
    return FieldHelp(here, alone.type, alone.default, alone.required, alone.description, children)


def all_fields() -> tuple[FieldHelp, ...]:
    """Every field of a manifest, depth first in the models' order."""
    found: list[FieldHelp] = []

    def visit(path: str) -> None:
        for child in explain(path).children:
            found.append(child)
            visit(child.path)

    visit("")
    return tuple(found)


def _joined(before: str, key: str) -> str:
    return f"{before}.{key}" if before else key


def _elsewhere(key: str) -> str | None:
    """The full path of a field of that name somewhere else in the manifest."""
    return next((field.path for field in all_fields() if field.path.rpartition(".")[2] == key), None)


def _help(path: str, info: FieldInfo) -> FieldHelp:
    default = spelt_default(info)
    text = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    return FieldHelp(path, _type(info), text, info.is_required(), str(info.description))


def _type(info: FieldInfo) -> str:
    leaf = leaf_of(info)
    return _leaf_type(leaf) if leaf else _type_words(without_none(info.annotation))


def _leaf_type(leaf: Leaf) -> str:
    if "const" in leaf.schema:
        return str(leaf.schema["const"])
    choices = leaf.schema.get("enum", ())
    return " | ".join(choices) if leaf.kind == "choice" else leaf.kind


def _type_words(annotation: Any) -> str:
    arguments = get_args(annotation)
    if leaf := next((part for part in arguments if isinstance(part, Leaf)), None):
        return _leaf_type(leaf)
    if get_origin(annotation) is tuple:
        return f"list of {_type_words(arguments[0])}"
    if get_origin(annotation) is dict:
        return f"mapping of text to {_type_words(arguments[1])}"
    return "mapping"

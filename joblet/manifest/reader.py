"""From bytes to validated manifests, or to all the errors of the file at once with their places."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from joblet.manifest.document import Document, Fault, Path, Place, path_text
from joblet.manifest.errors import ManifestError, ManifestErrors
from joblet.manifest.json_reader import read_json
from joblet.manifest.kinds import MODELS, Manifest, key_of, may_hold_secrets, model_of
from joblet.manifest.models import JobManifest
from joblet.manifest.nearest import nearest
from joblet.manifest.quantities import shown
from joblet.manifest.rules import cross_field_problems
from joblet.manifest.secret_value import MASK
from joblet.manifest.yaml_reader import read_yaml

MAX_FILE_BYTES = 64 << 20
MAX_ERRORS = 1000

# What YAML calls printable, less what its versions disagree on: U+0085, U+2028 and U+2029 end a line in 1.1 but not in
# 1.2.
_UNPRINTABLE = re.compile(
    "\r(?!\n)|[^\t\n\r\\x20-\\x7e\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_KIND = re.compile(r"""\bkind["']?[ \t]*:[ \t]*["']?([A-Za-z]+)""")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|&\S+')


def read_manifests(data: bytes, *, filename: str) -> tuple[Manifest, ...]:
    """All manifests of a file, in its order.

    data: YAML, or JSON where the name ends in ``.json`` or the text is JSON. Raises ManifestErrors with every error of
    the file (at most 1,000), also for a file that holds no manifest at all. The file's other manifests are not
    returned then: a file is good or it is not.
    """
    return read_declared(data, filename=filename)[0]


def read_declared(data: bytes, *, filename: str) -> tuple[tuple[Manifest, ...], Mapping[str, tuple[int, int]]]:
    """The same, and line and column of each name, by key."""
    text, fault = _decode(data)
    if fault is not None:
        raise ManifestErrors([_error(filename, 0, fault)])
    errors: list[ManifestError] = []
    manifests: list[Manifest] = []
    names: dict[str, Place] = {}
    masked = _names_secrets(text)
    for document in _documents(text, filename):
        if masked:
            document.faults = [_without_quotes(fault) for fault in document.faults]
        manifest, faults = _manifest(document)
        if manifest is not None:
            place = document.entry(("metadata", "name")).value
            first = names.setdefault(key_of(manifest), place)
            if first is not place:
                message = f"the {manifest.kind.lower()} {manifest.metadata.name} is declared twice (first in line {first.line})"
                faults = [Fault(place, ("metadata", "name"), message)]
            manifests.append(manifest)
        errors.extend(_error(filename, document.number, fault) for fault in faults[: MAX_ERRORS - len(errors)])
    if not errors and not manifests:
        errors.append(ManifestError(filename, 1, 1, 0, "", "holds no manifest"))
    if errors:
        raise ManifestErrors(errors)
    return tuple(manifests), {name: (place.line, place.column) for name, place in names.items()}


def _decode(data: bytes) -> tuple[str, Fault | None]:
    if len(data) > MAX_FILE_BYTES:
        return "", Fault(Place(1, 1), (), f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        return "", Fault(
            _place(before, len(before)), (), f"not UTF-8: byte 0x{data[error.start]:02x}; save the file as UTF-8"
        )
    text = text.removeprefix("\ufeff")
    if bad := _UNPRINTABLE.search(text):
        message = (
            f"the character U+{ord(bad[0]):04X} is not allowed here; in a double-quoted value write it as an escape"
        )
        return "", Fault(_place(text, bad.start()), (), message)
    return text, None


def _place(text: str, offset: int) -> Place:
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _documents(text: str, filename: str) -> Iterable[Document]:
    if filename.endswith(".json"):
        return (read_json(text),)
    if text.lstrip()[:1] == "{":  # JSON, or YAML in its flow style
        document = read_json(text)
        if document.value is not None:
            return (document,)
    return read_yaml(text)


def _names_secrets(text: str) -> bool:
    """Whether some document of a file is a Secret, or of a kind that does not exist and may be meant to be one."""
    return any(kind == "Secret" or kind not in MODELS for kind in _KIND.findall(text))


def _without_quotes(fault: Fault) -> Fault:
    """What YAML or JSON itself finds wrong, without the text it was found in: in a wrong form a value may look like a tag."""
    return Fault(fault.place, fault.path, _QUOTED.sub(f'"{MASK}"', fault.message))


def _masked(kind: str, fault: Fault, document: Document) -> Fault:
    """A fault below the spec of what is, or may be meant to be, a Secret: without what was found there."""
    message = fault.message
    if kind in ("model_type", "dict_type"):
        message = "is not a mapping (keys with values)"
    elif kind in ("value_error", "rule") and model_of(document.value) is JobManifest:
        message = "is not allowed here (what was found is not shown, since the kind is not known)"
    return Fault(fault.place, fault.path, message)


def _error(filename: str, number: int, fault: Fault) -> ManifestError:
    return ManifestError(filename, fault.place.line, fault.place.column, number, path_text(fault.path), fault.message)


def _manifest(document: Document) -> tuple[Manifest | None, list[Fault]]:
    """Validate one document. The manifest is None if there are faults."""
    value = document.value
    faults = list(document.faults)
    if value is None:
        return None, faults or [Fault(document.start, (), "null is not a manifest")]
    if not isinstance(value, dict):
        return None, [
            *faults,
            Fault(document.start, (), f"{shown(value)} is not a manifest; it begins with apiVersion: joblet/v1"),
        ]
    try:
        manifest = model_of(value).model_validate(value)
    except ValidationError as error:
        faults.extend(_faults(document, error))
        return None, faults
    return (None if faults else manifest), faults


def _faults(document: Document, error: ValidationError) -> Iterator[Fault]:
    seen: set[tuple[Path, str]] = set()
    masked = may_hold_secrets(document.value)
    for detail in error.errors(include_url=False, include_input=False)[:MAX_ERRORS]:
        if detail["type"] == "too_short" and _value_at(document.value, detail["loc"]):
            continue  # it has items, and what is wrong with them is told
        fault = _fault(document, detail["type"], detail["loc"], detail.get("ctx", {}))
        if masked and fault.path[:1] == ("spec",):
            fault = _masked(detail["type"], fault, document)
        seen.add((fault.path, fault.message))
        yield fault
    value = document.value
    is_job = isinstance(value, dict) and model_of(value) is JobManifest and not masked
    spec = value.get("spec") if is_job and isinstance(value, dict) else None
    for problem in cross_field_problems(spec) if isinstance(spec, dict) else ():
        path: Path = ("spec", *problem.path)
        if (path, problem.message) not in seen:
            yield Fault(_rule_place(document, path), path, problem.message)


def _rule_place(document: Document, path: Path) -> Place:
    entry = document.entry(path)
    return entry.key if path == ("spec",) else entry.value


def _fault(document: Document, kind: str, loc: Path, context: Mapping[str, Any]) -> Fault:
    """One of pydantic's errors in our words, at its place."""
    if loc and loc[-1] == "[key]":
        path = loc[:-1]
        return Fault(document.entry(path).key, path, str(context["error"]))
    if kind == "extra_forbidden":
        return Fault(document.entry(loc).key, loc, _unknown_key(model_of(document.value), loc))
    if kind == "missing":
        return Fault(document.entry(loc[:-1]).key, loc, "is missing")
    if kind == "rule":
        return Fault(_rule_place(document, loc), loc, context["message"])
    return Fault(document.entry(loc).value, loc, _words(kind, context, _value_at(document.value, loc)))


def _words(kind: str, context: Mapping[str, Any], value: object) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind in ("model_type", "dict_type"):
        return f"{shown(value)} is not a mapping (keys with values)"
    if kind == "too_short":
        return "the list is empty"
    if kind == "too_long":
        return f"the list has more than {context['max_length']} items"
    raise AssertionError(f"pydantic's error {kind} has no words")  # the models use no other


def _value_at(value: object, path: Path) -> object:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
    return value


def _unknown_key(root: type[BaseModel], path: Path) -> str:
    allowed = keys_at(root, path[:-1])
    key = str(path[-1])
    best = nearest(key, allowed)
    hint = f"; did you mean {best}?" if best else ""
    return f"unknown key {shown(key)}{hint} (allowed: {', '.join(allowed)})"


def keys_at(root: type[BaseModel], path: Path) -> tuple[str, ...]:
    """The keys that the model at a path allows, in the models' order; none if there is no model."""
    model: type[BaseModel] | None = root
    for step in path:
        if model is None or isinstance(step, int):
            continue
        field = next((info for name, info in model.model_fields.items() if (info.alias or name) == step), None)
        model = model_in(field.annotation) if field else None
    return tuple(info.alias or name for name, info in model.model_fields.items()) if model else ()


def model_in(annotation: object) -> type[BaseModel] | None:
    """The model that a field's type holds: ``Limits``, ``IoLimits | None``, ``tuple[FileSpec, ...]``; else None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for argument in get_args(annotation) if (model := model_in(argument))), None)

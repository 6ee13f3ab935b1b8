"""The published schema, the examples, the reference and the explanations all say what the models say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from joblet.manifest import UnknownField, explain, jobs_of, read_manifests, schema_of, to_yaml
from joblet.manifest.explanation import all_fields
from joblet.manifest.kinds import MODELS, RESOURCE_KINDS
from tests.unit.manifest.samples import FULL, read

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yml"))
PUBLISHED = json.loads((ROOT / "schemas" / "job.v1.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(PUBLISHED)


def test_the_published_schema_is_a_schema_and_current() -> None:
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)
    assert schema_of("Job") == PUBLISHED
    subprocess.run([sys.executable, ROOT / "tools" / "generate_schema.py", "--check"], check=True)


def test_every_object_of_the_schema_is_closed_and_every_field_described() -> None:
    for name, schema in {"Job": PUBLISHED, **PUBLISHED["$defs"]}.items():
        assert schema["additionalProperties"] is False, name
        for key, field in schema["properties"].items():
            assert field["description"], f"{name}.{key}"


def test_there_is_an_example_of_each_feature() -> None:
    assert {path.stem for path in EXAMPLES} == {
        "hello", "limits", "timeout", "retry", "script", "files", "service", "big-output", "failing", "environment",
        "cpu-quota", "untrusted-python", "secrets", "volume", "network", "priority", "schedule", "hooks", "healthy",
        "dependencies", "workflow", "scheduled-workflow", "array", "matrix",
    }  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_for_the_reader_and_for_the_schema(path: Path) -> None:
    manifests = read_manifests(path.read_bytes(), filename=path.name)
    documents = list(YAML(typ="safe", pure=True).load_all(path))
    assert path.stem in {manifest.metadata.name for manifest in jobs_of(manifests)}
    for manifest, document in zip(manifests, documents, strict=True):
        validator = jsonschema.Draft202012Validator(schema_of(manifest.kind))
        validator.validate(document)
        validator.validate(YAML(typ="safe", pure=True).load(to_yaml(manifest)))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_how_it_ends(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^# expect: (COMPLETED|RUNNING|FAILED [A-Z][A-Za-z]+)$", text, re.MULTILINE)


def test_the_design_s_field_list_is_the_models_field_list() -> None:
    assert {field.path for field in all_fields()} >= {"spec.limits.io.readOps", "spec.isolation.rootfs", "spec.suspend"}
    VALIDATOR.validate(YAML(typ="safe", pure=True).load(FULL))
    (manifest,) = read(FULL)
    written = YAML(typ="safe", pure=True).load(to_yaml(manifest))
    assert written["spec"].keys() >= {"limits", "isolation", "retry", "history", "stop"}


def test_the_reference_describes_every_field_with_its_type_and_default() -> None:
    text = (ROOT / "docs" / "MANIFEST.md").read_text(encoding="utf-8")
    for field in all_fields():
        name = field.path.removeprefix("spec.")
        row = next((line for line in text.splitlines() if line.startswith(f"| `{name}` |")), None)
        assert row is not None, f"docs/MANIFEST.md has no row for {field.path}"
        assert field.description in row, field.path
        assert not field.default or f"`{field.default}`" in row, field.path


@pytest.mark.parametrize("kind", RESOURCE_KINDS)
def test_the_reference_has_a_section_of_each_kind_with_each_of_its_fields(kind: str) -> None:
    text = (ROOT / "docs" / "MANIFEST.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## kind: {kind}\n")[2].partition("\n## ")[0]
    spec = MODELS[kind].model_fields["spec"].annotation
    assert isinstance(spec, type) and issubclass(spec, BaseModel)
    for name, info in spec.model_fields.items():
        key = info.alias or name
        row = next((line for line in section.splitlines() if line.startswith(f"| `spec.{key}` |")), None)
        assert row is not None, f"docs/MANIFEST.md has no row for {key} of {kind}"


def test_a_field_is_explained_with_type_default_and_children() -> None:
    logs = explain("spec.limits.logs")
    assert (logs.path, logs.type, logs.default, logs.required, logs.children) == (
        "spec.limits.logs", "size", "64Mi", False, (),
    )  # fmt: skip
    assert [child.path for child in explain("job.spec.limits.io").children][:2] == [
        "spec.limits.io.read",
        "spec.limits.io.write",
    ]
    assert [child.path for child in explain().children] == ["apiVersion", "kind", "metadata", "spec"]
    assert explain("spec.files.path").required
    assert explain("spec.restart").type == "Never | OnFailure | Always"


@pytest.mark.parametrize(
    ("path", "closest"),
    [
        ("spec.limits.memroy", "spec.limits.memory"),
        ("spec.memory", "spec.limits.memory"),
        ("sepc", "spec"),
        ("spec.zzz", None),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest(path: str, closest: str | None) -> None:
    with pytest.raises(UnknownField) as found:
        explain(path)
    assert found.value.nearest == closest

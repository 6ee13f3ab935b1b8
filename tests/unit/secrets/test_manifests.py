"""Manifests of secrets: what is accepted; and that no error, no print and no written form shows a value."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest

from joblet.manifest import (
    ManifestErrors,
    SecretManifest,
    SecretValue,
    canonical_json,
    manifest_to_json,
    read_manifests,
    references,
    resource_from_json,
    to_yaml,
)
from tests.unit.manifest.samples import lines, manifest_text, read

CANARY = "hunter2-canary"
HEAD = "apiVersion: joblet/v1\nkind: Secret\nmetadata: {name: db}\n"


def secret(spec: str, *, head: str = HEAD) -> SecretManifest:
    (manifest,) = read_manifests((head + spec).encode(), filename="s.yml")
    assert isinstance(manifest, SecretManifest)
    return manifest


def errors(text: str, filename: str = "s.yml") -> Sequence[str]:
    with pytest.raises(ManifestErrors) as found:
        read_manifests(text.encode(), filename=filename)
    return [str(error) for error in found.value.errors]


def test_text_and_base64_are_values() -> None:
    manifest = secret("spec: {data: {a: text, b: ''}, dataBase64: {c: AAEC}}")
    assert {key: value.reveal() for key, value in manifest.spec.values.items()} == {
        "a": b"text", "b": b"", "c": b"\0\1\2",
    }  # fmt: skip


def test_nothing_that_writes_or_prints_a_manifest_shows_a_value() -> None:
    manifest = secret(f"spec: {{data: {{a: {CANARY}}}}}")
    value = manifest.spec.data["a"]
    for text in (
        repr(manifest),
        str(manifest),
        to_yaml(manifest),
        canonical_json(manifest),
        manifest_to_json(manifest),
    ):
        assert CANARY not in text and "***" in text
    assert f"{value} {value!r}" == "*** ***"
    assert str([value]) == "[***]"
    with pytest.raises(TypeError):
        pickle.dumps(value)


def test_values_compare_by_what_they_hold() -> None:
    assert SecretValue(b"a") == SecretValue(b"a") != SecretValue(b"b")
    assert SecretValue(b"a") != "a" and hash(SecretValue(b"a")) == hash(SecretValue(b"a"))


def test_the_sealed_form_reads_back() -> None:
    text = f"spec: {{sealed: {{a: '14:{'0f' * 32}'}}}}"
    manifest = secret(text)
    assert resource_from_json(manifest_to_json(manifest)) == manifest
    assert read_manifests(to_yaml(manifest).encode(), filename="a.yml") == (manifest,)


@pytest.mark.parametrize(
    "spec",
    [
        f"spec: {CANARY}",
        "spec: 12345678",
        f"spec: [{CANARY}]",
        f"spec: {{data: {CANARY}}}",
        f"spec: {{data: [{CANARY}]}}",
        "spec: {data: {a: 12345678}}",
        f"spec: {{data: {{a: [{CANARY}]}}}}",
        f"spec: {{data: {{a: {{b: {CANARY}}}}}}}",
        f"spec: {{dataBase64: {{a: {CANARY}}}}}",
        "spec: {dataBase64: {a: 12345678}}",
        f"spec: {{sealed: {{a: {CANARY}}}}}",
        f"spec: {{data: {{a: !{CANARY} x}}}}",
        f"spec: {{data: {{a: *{CANARY}}}}}",
        f'spec: {{data: {{a: "{CANARY}"}}, data: {{a: {CANARY}}}}}',
        f"spec:\n  data:\n    a: {CANARY}\n   b: x",
        f'spec:\n  data:\n    a: "{CANARY}\n',
        f'spec: {{data: {{a: {CANARY}, "{CANARY} b": x}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["Secret", "secret", "Secert", "'Secret'"])
def test_no_error_in_a_secret_shows_what_was_found(kind: str, spec: str) -> None:
    head = HEAD.replace("kind: Secret", f"kind: {kind}")
    for line in errors(head + spec):
        assert CANARY not in line and "12345678" not in line, line


def test_no_error_in_a_secret_of_json_shows_what_was_found() -> None:
    head = '{"apiVersion": "joblet/v1", "kind": "Secret", "metadata": {"name": "db"}, '
    for rest in (f'"spec": {{"data": {{"a": {CANARY}}}}}}}', f'"spec": "{CANARY}"}}', '"spec": 12345678}'):
        assert all(CANARY not in line and "12345678" not in line for line in errors(head + rest, "s.json"))


def test_errors_still_say_where_and_what() -> None:
    (line,) = errors(HEAD + "spec: {data: {a: 1}}")
    assert line == "s.yml:4:18: spec.data.a: is not text; write it in quotes (what was found is not shown)"
    assert "is not a secret's key" in errors(HEAD + "spec: {data: {'a/b': x}}")[0]
    assert "did you mean data?" in errors(HEAD + "spec: {dat: {a: x}}")[0]
    assert "holds no value" in errors(HEAD + "spec: {}")[0]
    assert "in more than one of" in errors(HEAD + "spec: {data: {a: x}, dataBase64: {a: AA==}}")[0]


def test_other_kinds_in_the_same_file_show_what_was_found() -> None:
    text = manifest_text("command: [a]\ntimeout: 30") + "---\n" + HEAD + "spec: {data: {a: 12345678}}\n"
    found = errors(text)
    assert "30 has no unit" in found[0] and "12345678" not in found[1]


@pytest.mark.parametrize(
    ("size", "count", "what"),
    [(65537, 1, "is 65537 bytes long"), (60000, 10, "more than 524288 bytes in all"), (1, 65, "has 65 keys")],
)
def test_sizes_are_bounded(size: int, count: int, what: str) -> None:
    values = "".join(f"    k{number}: {'x' * size}\n" for number in range(count))
    assert what in errors(f"{HEAD}spec:\n  data:\n{values}")[0]


def test_a_job_refers_to_each_of_its_secrets_once_in_one_order() -> None:
    one = read(manifest_text("command: [a]\nsecrets: [{name: b}, {name: a, key: k, env: E}, {name: a, path: p}]"))[0]
    other = read(manifest_text("command: [a]\nsecrets: [{name: a, path: p}, {name: b}, {name: a, env: E, key: k}]"))[0]
    assert one == other
    assert list(references(one)) == ["secret/a", "secret/b"]


@pytest.mark.parametrize(
    ("secrets", "what"),
    [
        ("[{name: a, env: E, path: p}]", "env is given too"),
        ("[{name: a, env: E}, {name: b, env: E}]", '"E" is given in spec.env or another secret too'),
        ("[{name: a, env: TZ}]", '"TZ" is given in spec.env'),
        ("[{name: a, path: p}, {name: b, path: p}]", '"p" is given in another secret too'),
        ("[{name: a, path: ../p}]", "has an empty part"),
        ("[{name: a, path: /p}]", "is absolute"),
    ],
)
def test_contradictions_among_a_jobs_secrets_are_refused(secrets: str, what: str) -> None:
    assert what in lines(manifest_text(f"command: [a]\nenv: {{TZ: UTC}}\nsecrets: {secrets}"))[0]

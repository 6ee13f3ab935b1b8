"""The canonical form, hashing, comparing, writing: what means the same is the same, and only that."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from joblet.manifest import (
    ChangeKind,
    JobManifest,
    ManifestErrors,
    RecentTexts,
    canonical_json,
    compare,
    manifest_from_json,
    manifest_to_json,
    read_manifests,
    spec_hash,
    to_yaml,
)
from joblet.manifest.names import CAPABILITIES, SIGNALS
from tests.unit.manifest.samples import FULL, manifest_text, raw, read

KEYS = st.from_regex(r"[a-z]([a-z0-9]{0,5}[a-z0-9])?", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ARGUMENTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
SCRIPTS = ARGUMENTS.filter(lambda text: bool(text.strip()))
LINES = st.lists(
    st.sampled_from(["", " ", "a", "  b", "\t", "# c", "- d", "e: f", "---", "...", "é", "x "]), max_size=6
).map("\n".join)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


SIZES = st.one_of(st.integers(1 << 20, 1 << 50), st.sampled_from(["1Mi", "512Mi", "1.5Gi", "3T", "2000000", "7G"]))
DURATIONS = st.sampled_from(["1s", "90s", "1m30s", "500ms", "2d", "1h", "60m"])
LIMITS = optional(
    cpu=st.sampled_from(["150%", 1.5, 2, "0.25", "12.5%"]),
    cpus=st.sampled_from(["0", "1,0", "0-3,7"]),
    memory=SIZES,
    swap=SIZES,
    pids=st.integers(1, 4096),
    io=optional(read=SIZES, write=SIZES, readOps=st.integers(1, 999), writeOps=st.integers(1, 999)),
    disk=SIZES,
    logs=SIZES,
    enforcement=st.sampled_from(["strict", "best-effort"]),
)
FILES = st.dictionaries(KEYS, st.tuples(st.one_of(TEXT, LINES), st.sampled_from(["0644", "755"])), max_size=3).map(
    lambda files: [{"path": path, "content": content, "mode": mode} for path, (content, mode) in files.items()]
)
COMMON = optional(
    env=st.dictionaries(KEYS, st.one_of(ARGUMENTS, LINES), max_size=4),
    workdir=st.sampled_from(["/work", "/tmp", "/work/a b"]),
    files=FILES,
    limits=LIMITS,
    timeout=DURATIONS,
    stop=optional(signal=st.sampled_from(SIGNALS), grace=DURATIONS),
    retry=optional(
        onExitCodes=st.lists(st.integers(1, 99), unique=True),
        neverOnExitCodes=st.lists(st.integers(100, 255), unique=True),
    ),
    restart=st.sampled_from(["Never", "OnFailure", "Always"]),
    isolation=optional(
        network=st.sampled_from(["none", "host"]),
        user=st.integers(0, 65535),
        group=st.integers(0, 65535),
        seccomp=st.sampled_from(["default", "strict", "unconfined", "/profiles/p.json"]),
        hostname=KEYS,
        capabilities=st.lists(st.sampled_from(CAPABILITIES), unique=True, max_size=4),
    ),
    history=optional(keep=st.integers(1, 100), **{"for": DURATIONS}),
    suspend=st.booleans(),
)
WORK = st.one_of(
    st.fixed_dictionaries({"command": st.lists(ARGUMENTS, min_size=1, max_size=5).filter(lambda argv: argv[0] != "")}),
    st.fixed_dictionaries({"script": st.one_of(SCRIPTS, LINES.filter(lambda text: bool(text.strip())))}),
)
DOCUMENTS: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda name, labels, annotations, work, common: {
        "apiVersion": "joblet/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {**work, **common},
    },
    KEYS,
    st.dictionaries(KEYS, KEYS, max_size=3),
    st.dictionaries(KEYS, TEXT, max_size=3),
    WORK,
    COMMON,
)
SOME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    return value


@SOME
@given(DOCUMENTS)
def test_a_manifest_written_as_yaml_reads_back_as_the_same_manifest(document: dict[str, Any]) -> None:
    manifest = JobManifest.model_validate(document)
    text = to_yaml(manifest)
    assert read_manifests(text.encode(), filename="a.yml") == (manifest,)
    assert to_yaml(read_manifests(text.encode(), filename="a.yml")[0]) == text


@SOME
@given(DOCUMENTS)
def test_a_manifest_comes_back_from_the_store_s_form(document: dict[str, Any]) -> None:
    manifest = JobManifest.model_validate(document)
    text = manifest_to_json(manifest)
    assert manifest_from_json(text) == manifest
    assert manifest_to_json(manifest_from_json(text)) == text
    assert read_manifests(text.encode(), filename="a.json") == (manifest,)


@SOME
@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_neither_hash_nor_comparison(document: dict[str, Any], rng: random.Random) -> None:
    one, other = JobManifest.model_validate(document), JobManifest.model_validate(shuffled(document, rng))
    assert canonical_json(one) == canonical_json(other)
    assert spec_hash(one.spec) == spec_hash(other.spec)
    assert compare(one, other).kind is ChangeKind.NONE


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two documents that differ in one key of the spec at most; not each of the second kind is a valid one."""
    one, other = draw(DOCUMENTS), draw(DOCUMENTS)
    key = draw(st.sampled_from(sorted(one["spec"].keys() | other["spec"].keys())))
    mixed = {**one["spec"], key: other["spec"].get(key)}
    return one, {**one, "spec": {name: value for name, value in mixed.items() if value is not None}}


@SOME
@given(neighbours())
def test_two_specs_compare_as_equal_exactly_if_their_hashes_are(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Of neighbours, as two documents drawn by themselves never have the same spec."""
    left = JobManifest.model_validate(pair[0])
    try:
        right = JobManifest.model_validate(pair[1])
    except ValidationError:
        return
    same = compare(left, right).kind in (ChangeKind.NONE, ChangeKind.METADATA)
    assert same == (spec_hash(left.spec) == spec_hash(right.spec))


@SOME
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)), st.sampled_from(["a.yml", "a.json"]))
def test_the_reader_raises_nothing_but_its_own_errors_on_any_bytes(data: bytes, filename: str) -> None:
    with pytest.raises(ManifestErrors):
        read_manifests(data, filename=filename)


@SOME
@given(st.data())
def test_the_reader_raises_nothing_but_its_own_errors_on_a_damaged_manifest(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(FULL) - 1))
    end = data.draw(st.integers(start, min(len(FULL), start + 30)))
    patch = data.draw(st.text(st.sampled_from(list("{}[]:,&*!|>'\"%@`#-? \n\tax1.~")), max_size=8))
    try:
        manifests = read_manifests((FULL[:start] + patch + FULL[end:]).encode(), filename="a.yml")
    except ManifestErrors as found:
        assert all(error.line >= 1 and error.column >= 1 for error in found.errors)  # noqa: PT017  (some raise, some do not)
    else:
        assert manifests


def test_another_spelling_of_the_same_values_has_the_same_hash() -> None:
    one = "command: [x]\nlimits: {memory: 1Gi, cpu: 150%, cpus: '1,0'}\ntimeout: 90s\nfiles: [{path: a, content: b}]"
    other = (
        "files:\n- content: 'b'\n  path: \"a\"\n  mode: '644'\ncommand: ['x']\nworkdir: /work\nrestart: Never\n"
        "timeout: 1m30s\nlimits: {cpus: 0-1, io: {}, memory: 1073741824, swap: 0, cpu: 1.5}"
    )
    (left,), (right,) = read(manifest_text(one)), read(manifest_text(other))
    assert left == right
    assert spec_hash(left.spec) == spec_hash(right.spec)


def test_the_hash_of_a_spec_is_the_same_in_every_version() -> None:
    (manifest,) = read(FULL)
    # Kept by stores that exist: if this has to change, a migration has to rehash them.
    assert spec_hash(manifest.spec) == "cb902fc9c82f0e62f31b114ce1e17e59cd0a9ad33990724f206281a722749095"


def manifest(**spec: Any) -> JobManifest:
    return JobManifest.model_validate(raw(**{"command": ["x"], **spec}))


@pytest.mark.parametrize(
    ("before", "after", "kind", "path"),
    [
        ({}, {"limits": {"memory": "1Gi"}}, ChangeKind.IN_PLACE, "spec.limits.memory"),
        ({"limits": {"cpu": 1}}, {"limits": {"cpu": 2}}, ChangeKind.IN_PLACE, "spec.limits.cpu"),
        ({}, {"limits": {"io": {"read": "1Mi"}}}, ChangeKind.IN_PLACE, "spec.limits.io.read"),
        ({"limits": {"pids": 4}}, {}, ChangeKind.IN_PLACE, "spec.limits.pids"),
        ({}, {"suspend": True}, ChangeKind.IN_PLACE, "spec.suspend"),
        ({}, {"history": {"keep": 3}}, ChangeKind.IN_PLACE, "spec.history.keep"),
        ({}, {"limits": {"disk": "1Gi"}}, ChangeKind.RESTART, "spec.limits.disk"),
        ({}, {"limits": {"logs": "1Mi"}}, ChangeKind.RESTART, "spec.limits.logs"),
        ({}, {"command": ["y"]}, ChangeKind.RESTART, "spec.command"),
        ({}, {"env": {"A": "b"}}, ChangeKind.RESTART, "spec.env.A"),
        ({}, {"files": [{"path": "a.b", "content": "c"}]}, ChangeKind.RESTART, 'spec.files["a.b"].content'),
        ({}, {"stop": {"grace": "1s"}}, ChangeKind.RESTART, "spec.stop.grace"),
    ],
)
def test_each_change_has_its_consequence(before: Any, after: Any, kind: ChangeKind, path: str) -> None:
    comparison = compare(manifest(**before), manifest(**after))
    assert comparison.kind is kind
    assert path in [change.path for change in comparison.changes]


def test_a_change_shows_the_values_as_a_manifest_spells_them_defaults_included() -> None:
    (change,) = compare(manifest(stop={"grace": "5s"}), manifest()).changes
    assert (change.path, change.before, change.after) == ("spec.stop.grace", "5s", "10s")
    (change,) = compare(manifest(), manifest(limits={"memory": "1024Mi"})).changes
    assert (change.path, change.before, change.after) == ("spec.limits.memory", None, "1Gi")


def test_changed_labels_alone_restart_nothing() -> None:
    changed = JobManifest.model_validate({**raw(), "metadata": {"name": "a", "labels": {"x": "y"}}})
    comparison = compare(JobManifest.model_validate(raw()), changed)
    assert (comparison.kind, comparison.consequence) == (
        ChangeKind.METADATA,
        "labels and annotations change; nothing restarts",
    )


def test_a_new_job_compares_as_new_with_all_it_says() -> None:
    comparison = compare(None, manifest())
    assert comparison.kind is ChangeKind.NEW
    assert [change.path for change in comparison.changes] == ["apiVersion", "kind", "metadata.name", "spec.command"]


def test_yaml_is_written_for_people() -> None:
    document = raw(
        command=["sh", "-c", "echo hi; exit 3"],
        env={"GREETING": "yes", "N": "5"},
        files=[{"path": "a.sh", "content": "#!/bin/sh\n\techo\n", "mode": "0755"}],
        limits={"memory": 512 << 20, "cpu": 1.5},
    )
    assert to_yaml(JobManifest.model_validate(document)) == (
        "apiVersion: joblet/v1\nkind: Job\nmetadata:\n  name: a\nspec:\n"
        '  command: [sh, -c, "echo hi; exit 3"]\n'
        '  env:\n    GREETING: "yes"\n    "N": "5"\n'
        '  files:\n    - path: a.sh\n      mode: "0755"\n      content: |\n        #!/bin/sh\n        \techo\n'
        "  limits:\n    cpu: 150%\n    memory: 512Mi\n"
    )


def test_a_text_is_made_once_for_each_manifest_and_a_long_one_is_not_kept() -> None:
    made: list[str] = []

    def text_of(manifest: JobManifest) -> str:
        made.append(manifest.metadata.name)
        return manifest.metadata.name * (1 if manifest.metadata.name == "short" else 1000)

    texts = RecentTexts(text_of)
    short, again, long = (read(manifest_text("command: [x]", name))[0] for name in ("short", "short", "long"))
    assert [texts.of(one) for one in (short, short, again, long, long)] == ["short"] * 3 + ["long" * 1000] * 2
    assert made == ["short", "short", "long", "long"], "by object: to compare two would take as long"

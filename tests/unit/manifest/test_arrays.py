"""Arrays and matrices: which indexes a manifest has, what each gets, and what makes no sense."""

from __future__ import annotations

import json
from itertools import product
from math import prod
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.manifest import (
    ChangeKind,
    JobManifest,
    compare,
    index_manifest,
    indexes_of,
    jobs_of,
    manifest_from_json,
    manifest_to_json,
    needed_of,
    read_manifests,
    schema_of,
    to_yaml,
)
from tests.unit.manifest.samples import errors, raw

SCHEMA = jsonschema.Draft202012Validator(schema_of("Job"))
WIDE = [str(number) for number in range(200)]


def read(**fields: Any) -> JobManifest:
    document = raw(**{"command": ["x"], **fields})
    SCHEMA.validate(document)
    (manifest,) = jobs_of(read_manifests(json.dumps(document).encode(), filename="job.json"))
    assert manifest_from_json(manifest_to_json(manifest)) == manifest
    assert read_manifests(to_yaml(manifest).encode(), filename="job.yml") == (manifest,)
    return manifest


def values(manifest: JobManifest) -> list[dict[str, str]]:
    indexes = indexes_of(manifest.spec)
    assert indexes is not None
    return [dict(indexes.values(index)) for index in range(indexes.first, indexes.last + 1)]


# What is wrong, and whether a JSON Schema can say so too.
REFUSED: list[tuple[dict[str, Any], str, bool]] = [
    ({"array": {}}, "spec.array: does not say which indexes there are; write to: 99", False),
    ({"array": {"from": 3, "to": 1}}, "spec.array.to: 1 comes before the first index, 3", False),
    ({"array": {"to": 10_000}}, "spec.array.to: makes 10001 indexes; at most 10000 are allowed", False),
    ({"array": {"to": "9"}}, 'spec.array.to: "9" is not a whole number', True),
    ({"array": {"to": -1}}, "spec.array.to: -1 is out of range", True),
    ({"array": {"to": 9, "parallel": 0}}, "spec.array.parallel: 0 is out of range (1 to 1000)", True),
    ({"array": {"to": 9, "success": "most"}}, 'spec.array.success: "most" is not allowed here (use all, any', False),
    ({"array": {"to": 9, "success": {"atLeast": 11}}}, "11 is more than there are indexes (10)", False),
    ({"array": {"to": 9, "exclude": [{"os": "a"}]}}, "leaves out combinations of a matrix, and there is none", False),
    ({"array": None}, "spec.array: null is not a mapping", True),
    ({"array": {"to": 9}, "restart": "Always"}, "spec.restart: Always is for services", False),
    ({"array": {"to": 9}, "env": {"JOBLET_ARRAY_INDEX": "7"}}, "is a variable that the array sets itself", False),
    ({"matrix": {}}, "spec.matrix: has no axis", False),
    ({"matrix": {"os": []}}, "spec.matrix.os: the list is empty", True),
    ({"matrix": {"os": "a"}}, 'spec.matrix.os: "a" is not a list', True),
    ({"matrix": {"os": ["a", "a"]}}, 'spec.matrix.os: "a" is given twice', False),
    ({"matrix": {"os": [1, "1"]}}, 'spec.matrix.os: "1" is given twice', False),
    ({"matrix": {"os": [1.5]}}, "1.5 is neither text nor a whole number; write it in quotes", True),
    ({"matrix": {"os": [True]}}, "true is neither text nor a whole number; write it in quotes", True),
    ({"matrix": {"1": ["a"]}}, '"1" is not the name of an axis', True),
    ({"matrix": {"os": ["a"], "OS": ["b"]}}, 'would be the same variable as "os", JOBLET_MATRIX_OS', False),
    ({"matrix": {"a": WIDE, "b": WIDE}}, "spec.matrix: makes 40000 combinations; at most 10000", False),
    ({"matrix": {"os": ["a"]}, "array": {"to": 3}}, "spec.array.to: is not for a job with a matrix", False),
    ({"matrix": {"os": ["a"]}, "array": {"exclude": [{"o": "a"}]}}, "is no axis of the matrix (os)", False),
    ({"matrix": {"os": ["a"]}, "array": {"exclude": [{"os": "b"}]}}, '"b" is no value of that axis (a)', False),
    ({"matrix": {"os": ["a"]}, "array": {"exclude": [{"os": "a"}]}}, "leaves no combination over", False),
    ({"matrix": {"os": ["a"]}, "array": {"exclude": [{}]}}, "spec.array.exclude[0]: names no value", False),
    ({"matrix": {"os": ["a", "b"]}, "array": {"success": {"atLeast": 3}}}, "more than there are indexes (2)", False),
]


@pytest.mark.parametrize(("fields", "message", "by_schema"), REFUSED, ids=[message for _, message, _ in REFUSED])
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], message: str, by_schema: bool) -> None:
    document = raw(**{"command": ["x"], **fields})
    found = [f"{error.path}: {error.message}" for error in errors(json.dumps(document), "job.json")]
    assert any(message in one for one in found), found
    assert SCHEMA.is_valid(document) is not by_schema


def test_a_range_has_its_ends_and_short_words_mean_a_number() -> None:
    spec = read(array={"from": 5, "to": 10_004}).spec
    indexes = indexes_of(spec)
    assert indexes is not None
    assert (indexes.first, indexes.last, indexes.count, needed_of(spec, indexes.count)) == (5, 10_004, 10_000, 10_000)
    assert 5 in indexes and 10_005 not in indexes
    assert needed_of(read(array={"to": 9, "success": "any"}).spec, 10) == 1
    assert needed_of(read(array={"to": 9, "success": {"atLeast": 4}}).spec, 10) == 4
    assert indexes_of(read().spec) is None


def test_the_same_said_otherwise_changes_nothing() -> None:
    assert read(array={"from": 0, "to": 9, "parallel": 10, "success": "all"}) == read(array={"to": 9})
    assert read(matrix={"os": ["a"], "n": [1]}) == read(matrix={"n": ["1"], "os": ["a"]}, array={})


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        ({"to": 9, "parallel": 3}, ChangeKind.IN_PLACE),
        ({"to": 9, "success": "any"}, ChangeKind.IN_PLACE),
        ({"to": 9, "failFast": True}, ChangeKind.IN_PLACE),
        ({"to": 8}, ChangeKind.RESTART),
        ({"from": 1, "to": 9}, ChangeKind.RESTART),
    ],
)
def test_which_indexes_there_are_restarts_and_how_they_run_does_not(array: dict[str, Any], kind: ChangeKind) -> None:
    assert compare(read(array={"to": 9}), read(array=array)).kind is kind


def test_what_is_left_out_of_a_matrix_may_name_a_part_of_its_values() -> None:
    axes = {"os": ["a", "b"], "size": [1, 2], "up": ["x", "y"]}
    manifest = read(matrix=axes, array={"exclude": [{"os": "a", "size": 2}, {"up": "y", "os": "b"}]})
    assert [tuple(one.values()) for one in values(manifest)] == [
        *[("a", "1", "x"), ("a", "1", "y")],
        *[("b", "1", "x"), ("b", "2", "x")],
    ]


axis = st.lists(st.text("abc123", max_size=3), min_size=1, max_size=4, unique=True)


@given(st.dictionaries(st.sampled_from(["os", "size", "Mode", "z_9"]), axis, min_size=1))
def test_each_combination_is_one_index_in_an_order_that_hangs_on_names_alone(matrix: dict[str, list[str]]) -> None:
    manifest = read(matrix=matrix)
    found = values(manifest)
    assert len(found) == prod(map(len, matrix.values()))
    assert [tuple(one[name] for name in sorted(matrix)) for one in found] == list(
        product(*(matrix[name] for name in sorted(matrix)))
    )
    assert values(read(matrix=dict(reversed(matrix.items())))) == found


def test_an_index_has_nothing_of_the_array_as_a_whole() -> None:
    manifest = read(
        matrix={"os": ["a", "b"]},
        dependsOn=[{"job": "first"}],
        schedule={"every": "1h"},
        notify=[{"on": ["Failed"], "command": ["y"]}],
    )
    own = index_manifest(manifest, "n.run.1", 1)
    assert (own.metadata.name, own.spec.array, own.spec.matrix) == ("n.run.1", None, {})
    assert (own.spec.schedule, own.spec.depends_on, own.spec.notify) == (None, (), ())
    assert own.spec.env["JOBLET_MATRIX_OS"] == "b" and own.spec.env["JOBLET_ARRAY_INDEX"] == "1"
    assert own.spec.command == manifest.spec.command


def test_a_host_name_is_never_too_long_for_the_kernel() -> None:
    document = {**raw(array={"to": 999_999_999, "from": 999_999_990}, command=["x"]), "metadata": {"name": "n" * 63}}
    manifest = JobManifest.model_validate(document)
    hostname = index_manifest(manifest, "n.run.1", 999_999_999).spec.isolation.hostname
    assert hostname is not None and len(hostname) == 64 and hostname.endswith(".999999999")

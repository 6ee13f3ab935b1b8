"""What a batch script is told, read back, and refused where it is none of ours."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from jobletd.executor.slurm_node.request import (
    SHORTEST_SECONDS,
    Allocation,
    NotOnANode,
    RequestError,
    check,
    decode,
)

NOW = 1_000_000.0


def document(**changes: Any) -> dict[str, Any]:
    spec = changes.pop("spec", {"command": ["true"]})
    return {
        "version": 1,
        "attempt_id": "job-aaaa-2",
        "run_id": "job-aaaa",
        "number": 2,
        "manifest": {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec},
        "executor": {"shared_directory": "/srv/joblet", "cluster": "c"},
        **changes,
    }


def test_json_and_base64_of_it_mean_the_same() -> None:
    data = json.dumps(document()).encode()
    lines = base64.encodebytes(data)
    assert decode(data, NOW) == decode(lines, NOW)
    request = decode(data, NOW)
    assert (request.attempt_id, request.attempt.number, request.shared_directory) == ("job-aaaa-2", 2, "/srv/joblet")
    assert request.attempt.deadline_seconds is None


def test_time_in_the_queue_counts_where_the_moment_is_given() -> None:
    def left(**changes: Any) -> float | None:
        return decode(json.dumps(document(**changes)).encode(), NOW).attempt.deadline_seconds

    assert left(deadline_unix=NOW + 5, deadline_seconds=60) == 5
    assert left(deadline_unix=NOW - 5) == SHORTEST_SECONDS
    assert left(deadline_seconds=60) == 60


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no base64!",
        b"{",
        b"[1]",
        json.dumps(document(version=2)).encode(),
        json.dumps(document(attempt_id="../../etc-1")).encode(),
        json.dumps(document(attempt_id=7)).encode(),
        json.dumps(document(executor={"shared_directory": "relative"})).encode(),
        json.dumps(document(spec={"command": []})).encode(),
    ],
)
def test_what_is_no_request_is_refused_with_the_next_step(data: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        decode(data, NOW)
    assert refused.value.todo


@pytest.mark.parametrize(
    ("spec", "shared", "field"),
    [
        ({"command": ["a"], "volumes": [{"name": "v", "path": "/v"}]}, None, "spec.volumes"),
        ({"command": ["a"], "secrets": [{"name": "s"}]}, None, "spec.secrets"),
        ({"command": ["a"], "isolation": {"network": "bridge"}}, "/s", "spec.isolation.network"),
        ({"command": ["a"], "files": [{"path": "f", "sha256": "a" * 64, "size": 1}]}, None, "spec.files"),
    ],
)
def test_what_ends_at_one_host_is_refused_by_name(spec: dict[str, Any], shared: str | None, field: str) -> None:
    request = decode(json.dumps(document(spec=spec)).encode(), NOW)
    with pytest.raises(NotOnANode, match=field):
        check(request.attempt.manifest, shared)


def test_outside_of_slurm_there_is_no_allocation() -> None:
    assert Allocation.of_environment({"SLURMD_NODENAME": "n1", "SLURM_JOB_ID": "7"}) == Allocation("n1", "7")
    with pytest.raises(RequestError, match="SLURM_JOB_ID"):
        Allocation.of_environment({"SLURMD_NODENAME": "n1"})

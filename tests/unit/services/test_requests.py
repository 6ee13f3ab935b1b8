"""What requests may ask for."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from joblet.api.v1 import job_pb2
from joblet.manifest import ManifestErrors
from jobletd.executor import LogQuery
from jobletd.model import Phase
from jobletd.services.requests import (
    INLINE_BYTES,
    LARGEST_PAGE,
    PAGE,
    InvalidRequest,
    log_query_of,
    manifests_of,
    nanoseconds_of,
    page_size_of,
    phases_of,
)

JOB = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: job%d}\nspec: {command: [x]}\n---\n"


@pytest.mark.parametrize(("asked", "given"), [(0, PAGE), (1, 1), (10**6, LARGEST_PAGE)])
def test_a_page_has_a_default_and_a_bound(asked: int, given: int) -> None:
    assert page_size_of(job_pb2.ListRequest(page_size=asked)) == given


def test_phases_are_taken_in_any_case() -> None:
    assert phases_of(["running", "FAILED"]) == {Phase.RUNNING, Phase.FAILED}


def test_all_of_a_log_is_the_default() -> None:
    assert log_query_of(job_pb2.LogsRequest()) == LogQuery()


def test_a_log_query_is_taken_over() -> None:
    request = job_pb2.LogsRequest(stream="stderr", tail_lines=0, follow=True, since=Timestamp(seconds=1, nanos=5))
    assert log_query_of(request) == LogQuery(since_ns=1_000_000_005, tail_lines=0, stream="stderr", follow=True)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (job_pb2.LogsRequest(stream="out"), "stream"),
        (job_pb2.LogsRequest(attempt=-1), "attempt"),
        (job_pb2.LogsRequest(tail_lines=-1), "tail_lines"),
        (job_pb2.LogsRequest(since=Timestamp(seconds=-1)), "since"),
        (job_pb2.LogsRequest(since=Timestamp(seconds=1 << 62)), "since"),
        (job_pb2.LogsRequest(since=Timestamp(nanos=-5)), "since"),
    ],
)
def test_what_a_log_query_cannot_be_is_refused_by_field(request_: job_pb2.LogsRequest, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        log_query_of(request_)
    assert refused.value.field == field


def test_a_negative_page_and_an_unknown_phase_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="page_size"):
        page_size_of(job_pb2.ListRequest(page_size=-1))
    with pytest.raises(InvalidRequest, match="phases are SCHEDULED, PENDING"):
        phases_of(["done"])


def test_instants_that_sqlite_cannot_hold_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        nanoseconds_of(Timestamp(seconds=1 << 40), "since")


@pytest.mark.parametrize("count", [1, INLINE_BYTES // len(JOB) + 2])
def test_manifests_are_read_whether_few_or_many(count: int) -> None:
    text = "".join(JOB % number for number in range(count))
    read = asyncio.run(manifests_of(job_pb2.ApplyRequest(manifest=text.encode(), filename="x.yml")))
    assert len(read) == count


def test_a_manifest_without_a_file_name_is_named_all_the_same() -> None:
    with pytest.raises(ManifestErrors, match=r"^manifest:1:1: "):
        asyncio.run(manifests_of(job_pb2.ApplyRequest(manifest=b"{}")))

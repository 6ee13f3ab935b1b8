"""Errors as clients get them: the code, the message, and the details that programs read, never too large to be sent."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2

from joblet.errors import JobletError
from joblet.manifest import ManifestErrors, read_manifests
from jobletd import errors
from jobletd.model import Source
from jobletd.selectors import LabelSelector
from jobletd.services.requests import InvalidRequest
from jobletd.services.status_codes import CODES, DETAILS_BYTES, details, fitting, shortened


def sent(error: JobletError) -> list[AnyMessage]:
    return fitting(details(error), DETAILS_BYTES)


def unpacked(found: list[AnyMessage], kind: type) -> list[object]:
    wanted = [one for one in found if one.Is(kind.DESCRIPTOR)]  # type: ignore[attr-defined]
    messages = [kind() for _ in wanted]
    for one, message in zip(wanted, messages, strict=True):
        one.Unpack(message)
    return messages


def manifest_errors(text: str) -> ManifestErrors:
    with pytest.raises(ManifestErrors) as caught:
        read_manifests(text.encode(), filename="job.yml")
    return caught.value


def test_manifest_errors_are_field_violations_with_path_and_place() -> None:
    text = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: x}\nspec:\n  comand: [a]\n"
    (bad,) = unpacked(sent(manifest_errors(text)), error_details_pb2.BadRequest)
    violations = {one.field: one.description for one in bad.field_violations}  # type: ignore[attr-defined]
    assert violations["spec.comand"].startswith("job.yml:5:3: ")


def test_many_violations_stay_within_what_metadata_may_hold_and_say_how_many_are_left_out() -> None:
    fields = "".join(f"  wrong{number}: 1\n" for number in range(900))
    error = manifest_errors("apiVersion: joblet/v1\nkind: Job\nmetadata: {name: x}\nspec:\n" + fields)
    found = sent(error)
    assert sum(one.ByteSize() for one in found) < DETAILS_BYTES + 300
    (bad,) = unpacked(found, error_details_pb2.BadRequest)
    *shown, last = bad.field_violations  # type: ignore[attr-defined]
    assert len(shown) > 10
    assert last.description.startswith(f"and {len(error.errors) - len(shown)} more")


def test_every_error_has_our_reason_and_the_way_out() -> None:
    (info,) = unpacked(sent(errors.NoSuchJob("helo", ["hello", "help"])), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("NoSuchJob", "joblet")  # type: ignore[attr-defined]
    assert info.metadata["todo"] == "did you mean hello or help?"  # type: ignore[attr-defined]


def test_nearest_names_are_resources() -> None:
    found = unpacked(sent(errors.NoSuchJob("helo", ["hello", "help"])), error_details_pb2.ResourceInfo)
    assert [one.resource_name for one in found] == ["hello", "help"]  # type: ignore[attr-defined]


def test_a_conflict_names_job_and_owner() -> None:
    conflict = errors.OwnershipConflict("hello", Source("spool", "hello.yml"))
    (failure,) = unpacked(sent(conflict), error_details_pb2.PreconditionFailure)
    (violation,) = failure.violations  # type: ignore[attr-defined]
    assert (violation.type, violation.subject, violation.description) == ("Ownership", "hello", "spool:hello.yml")


@pytest.mark.parametrize(
    ("error", "field"),
    [(InvalidRequest("page_size", "-1 is negative"), "page_size"), (None, "label_selector")],
)
def test_a_wrong_field_of_a_request_is_named(error: JobletError | None, field: str) -> None:
    if error is None:
        with pytest.raises(JobletError) as caught:
            LabelSelector.parse("a in (")
        error = caught.value
    (bad,) = unpacked(sent(error), error_details_pb2.BadRequest)
    assert [one.field for one in bad.field_violations] == [field]  # type: ignore[attr-defined]


def test_what_cannot_be_now_is_a_precondition_and_what_is_wrong_in_itself_an_argument() -> None:
    codes = dict(CODES)
    assert codes[errors.WrongState] is codes[errors.OwnershipConflict] is grpc.StatusCode.FAILED_PRECONDITION
    assert codes[ManifestErrors] is codes[InvalidRequest] is grpc.StatusCode.INVALID_ARGUMENT
    assert codes[errors.WatcherTooSlow] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_long_text_is_cut_between_characters() -> None:
    assert shortened("é" * 10, 100) == "é" * 10
    assert shortened("é" * 10, 10) == "ééé..."

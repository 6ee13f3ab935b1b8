"""Our errors as gRPC status codes with rich details (google.rpc.*); anything unexpected as INTERNAL with an id, and no more."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from joblet.errors import JobletError
from joblet.manifest import ManifestErrors
from jobletd import errors
from jobletd.blobs.store import UploadRefused
from jobletd.dependencies import DependencyCycle
from jobletd.headroom import NoRoom
from jobletd.policy import NotAllowed
from jobletd.selectors import InvalidSelector
from jobletd.services.requests import InvalidRequest
from jobletd.store import StoreError, StoreFull

DOMAIN = "joblet"
# A status travels as metadata, of which a peer takes 8 KiB unless it was set up otherwise: the message (once with each byte
# as three, once in the details) and the details (in base64) stay below.
MESSAGE_BYTES = 500
DETAILS_BYTES = 3500
VIOLATION_BYTES = 500
CODES: tuple[tuple[type[JobletError], grpc.StatusCode], ...] = (
    (ManifestErrors, grpc.StatusCode.INVALID_ARGUMENT),
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (InvalidSelector, grpc.StatusCode.INVALID_ARGUMENT),
    (UploadRefused, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.DuplicateName, grpc.StatusCode.INVALID_ARGUMENT),
    (DependencyCycle, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.AmbiguousRef, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NoSuchJob, grpc.StatusCode.NOT_FOUND),
    (errors.OwnershipConflict, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.WrongState, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.WatcherTooSlow, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NoRoom, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
)
log = structlog.get_logger("grpc")


@asynccontextmanager
async def answered(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Turn what is raised inside into the call's status."""
    try:
        yield
    except JobletError as error:
        await abort(context, error)
    except (grpc.aio.AbortError, grpc.RpcError):
        raise
    except Exception as error:  # the client gets an id, the log gets the rest
        number = secrets.token_hex(4)
        log.exception("unexpected error in a call", id=number, error=str(error))
        await context.abort(
            grpc.StatusCode.INTERNAL, f"internal error {number}: the daemon's log tells more under this id"
        )


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: JobletError) -> NoReturn:
    code = next((code for kind, code in CODES if isinstance(error, kind)), grpc.StatusCode.FAILED_PRECONDITION)
    status = status_pb2.Status(code=code.value[0], message=shortened(str(error), MESSAGE_BYTES))
    status.details.extend(fitting(details(error), DETAILS_BYTES))
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


def details(error: JobletError) -> list[Message]:
    """What programs read."""
    found: list[Message] = [
        error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN, metadata={"todo": error.todo})
    ]
    if isinstance(error, ManifestErrors):
        for one in error.errors:
            description = f"{one.file}:{one.line}:{one.column}: {one.message}"
            found.append(violation(one.path, shortened(description, VIOLATION_BYTES)))
    if isinstance(error, InvalidRequest):
        found.append(violation(error.field, error.what))
    if isinstance(error, InvalidSelector):
        found.append(violation("label_selector", error.what))
    if isinstance(error, NotAllowed):
        found.extend(violation(problem.path, problem.what) for problem in error.problems)
    if isinstance(error, errors.NoSuchJob):
        found.extend(
            error_details_pb2.ResourceInfo(resource_type="Job", resource_name=name, description="nearest name")
            for name in error.nearest
        )
    if isinstance(error, errors.OwnershipConflict):
        conflict = error_details_pb2.PreconditionFailure.Violation(
            type="Ownership", subject=error.name, description=str(error.owner)
        )
        found.append(error_details_pb2.PreconditionFailure(violations=[conflict]))
    if isinstance(error, errors.WrongState):
        state = error_details_pb2.PreconditionFailure.Violation(type="State", description=error.what)
        found.append(error_details_pb2.PreconditionFailure(violations=[state]))
    return found


def violation(field: str, description: str) -> error_details_pb2.BadRequest:
    one = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
    return error_details_pb2.BadRequest(field_violations=[one])


def fitting(messages: Sequence[Message], size: int) -> list[AnyMessage]:
    """As many as fit into ``size`` bytes, all field violations in one; if some are left out, the last one says how many."""
    found: list[AnyMessage] = []
    violations: list[error_details_pb2.BadRequest.FieldViolation] = []
    left_out = 0
    for message in messages:
        size -= message.ByteSize()
        if isinstance(message, error_details_pb2.BadRequest):
            if size < 0:
                left_out += 1
            else:
                violations.extend(message.field_violations)
        elif size >= 0:
            wrapped = AnyMessage()
            wrapped.Pack(message)
            found.append(wrapped)
    if left_out:
        violations.extend(violation("", f"and {left_out} more: rnx validate -f FILE shows all").field_violations)
    if violations:
        wrapped = AnyMessage()
        wrapped.Pack(error_details_pb2.BadRequest(field_violations=violations))
        found.append(wrapped)
    return found


def shortened(text: str, size: int) -> str:
    """At most so many bytes of it."""
    data = text.encode()
    return text if len(data) <= size else data[: size - 3].decode(errors="ignore") + "..."

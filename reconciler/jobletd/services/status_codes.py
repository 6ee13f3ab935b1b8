"""Our errors as gRPC status codes with rich details (google.rpc.*); anything unexpected as INTERNAL with an id, and no more."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
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
from jobletd.selectors import InvalidSelector
from jobletd.store import StoreError

DOMAIN = "joblet"
CODES: tuple[tuple[type[JobletError], grpc.StatusCode], ...] = (
    (ManifestErrors, grpc.StatusCode.INVALID_ARGUMENT),
    (InvalidSelector, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.DuplicateName, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.AmbiguousRef, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NoSuchJob, grpc.StatusCode.NOT_FOUND),
    (errors.OwnershipConflict, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.WrongState, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.WatcherTooSlow, grpc.StatusCode.RESOURCE_EXHAUSTED),
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
    status = status_pb2.Status(
        code=code.value[0], message=str(error)[:4096], details=[packed(one) for one in details(error)]
    )
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


def details(error: JobletError) -> list[Message]:
    """What programs read."""
    found: list[Message] = [
        error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN, metadata={"todo": error.todo})
    ]
    if isinstance(error, ManifestErrors):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=one.path, description=f"{one.file}:{one.line}:{one.column}: {one.message}"
            )
            for one in error.errors[:100]
        ]
        found.append(error_details_pb2.BadRequest(field_violations=violations))
    if isinstance(error, errors.NoSuchJob):
        found.extend(
            error_details_pb2.ResourceInfo(resource_type="Job", resource_name=name, description="nearest name")
            for name in error.nearest
        )
    if isinstance(error, errors.OwnershipConflict):
        violation = error_details_pb2.PreconditionFailure.Violation(
            type="Ownership", subject=error.name, description=str(error.owner)
        )
        found.append(error_details_pb2.PreconditionFailure(violations=[violation]))
    return found


def packed(message: Message) -> AnyMessage:
    wrapped = AnyMessage()
    wrapped.Pack(message)
    return wrapped

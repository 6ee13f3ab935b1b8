"""From a failed gRPC call to an error that people can act on. The one place that knows gRPC's status codes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import grpc

from joblet.config import NodeConfig
from rnx.diagnosis_words import ISSUE
from rnx.failures import ClientError, Conflict, InvalidRequest, NotAllowed, NotFound, TryAgain, Unreachable

DETAILS_KEY = "grpc-status-details-bin"
_PLACE = re.compile(r".*?:\d+:\d+: ")


def explain_failure(error: grpc.RpcError, node: NodeConfig) -> ClientError:
    """What a failed call means. node: whom it went to."""
    code, text = error.code(), str(error.details() or "")
    todo, violations = details(error)
    what = text.removesuffix(f" ({todo})") if todo else text
    match code:
        case grpc.StatusCode.UNAVAILABLE if todo is None:
            return unreachable(text, node)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.RESOURCE_EXHAUSTED:
            return TryAgain(f"the daemon at {node.address} refused: {what}", todo=todo or "try again a little later")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unreachable(
                f"no answer from the daemon at {node.address} in time",
                todo="rnx doctor looks at the connection; the daemon's log tells whether the call reached it",
            )
        case grpc.StatusCode.UNAUTHENTICATED:
            return NotAllowed(what, todo=todo or "rnx doctor shows the certificate in use")
        case grpc.StatusCode.PERMISSION_DENIED:
            return NotAllowed(
                f"not allowed: {what}",
                todo=todo or f"use one whose certificate has the role admin; on the daemon's host: {ISSUE}",
            )
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(what, todo=todo or "rnx list shows all jobs")
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequest(invalid(what, violations), todo=todo or "")
        case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.ALREADY_EXISTS | grpc.StatusCode.ABORTED:
            return Conflict(what, todo=todo or "")
        case grpc.StatusCode.UNIMPLEMENTED:
            return ClientError(
                f"the daemon at {node.address} does not know this call", todo="rnx version compares the versions"
            )
    return ClientError(
        f"the daemon at {node.address} failed: {what or code.name}",
        todo=todo or "joblet's log on the host tells more; try again",
    )


def details(error: grpc.RpcError) -> tuple[str | None, list[tuple[str, str]]]:
    """From a status' rich details: the daemon's advice, and field and description of each violation.

    None for the advice: gRPC itself made the status, not the daemon.
    """
    from google.rpc import error_details_pb2, status_pb2

    advice: str | None = None
    violations: list[tuple[str, str]] = []
    for entry in error.trailing_metadata() or ():
        key, value = cast(tuple[str, str | bytes], entry)
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                advice = info.metadata.get("todo", "")
            elif detail.Unpack(bad):
                violations += [(violation.field, violation.description) for violation in bad.field_violations]
    return advice, violations


def invalid(what: str, violations: Sequence[tuple[str, str]]) -> str:
    """The text of an invalid request: one line a violation, ``file:line:column: path: message``; else the status' own."""
    lines = []
    for field, description in violations:
        place = _PLACE.match(description)
        if place is not None and field:
            lines.append(f"{place[0]}{field}: {description[place.end() :]}")
        else:
            lines.append(f"{field}: {description}" if field else description)
    return "\n".join(lines) or what or "the daemon found the request invalid"


def unreachable(text: str, node: NodeConfig) -> ClientError:
    """Why there is no connection: asks TLS itself, whose reasons gRPC does not pass on."""
    from rnx.diagnosis import Refused, probe

    finding = probe(node)
    if isinstance(finding, Refused):
        return NotAllowed(finding.what, where=node.address, todo=finding.todo)
    if finding is not None:
        return Unreachable(finding.what, where=node.address, todo=finding.todo)
    return Unreachable(
        "the connection to the daemon was lost" if "failed to connect" not in text else "cannot connect to the daemon",
        where=node.address,
        todo="it may be starting or stopping: try again; rnx doctor looks at the connection",
    )

"""Who may call what: each method of each service names the role it needs; one that names none is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from structlog.contextvars import bind_contextvars

from joblet.pki import Role
from jobletd.metrics import instruments
from jobletd.services.streams import passed_on
from jobletd.tls_front import Identity, Resolver
from jobletd.tracing.incoming import came_with

NEEDED: dict[str, Role] = {
    "/joblet.v1.JobService/Apply": Role.ADMIN,
    "/joblet.v1.JobService/Run": Role.ADMIN,
    "/joblet.v1.JobService/Delete": Role.ADMIN,
    "/joblet.v1.JobService/Stop": Role.ADMIN,
    "/joblet.v1.JobService/Get": Role.VIEWER,
    "/joblet.v1.JobService/List": Role.VIEWER,
    "/joblet.v1.JobService/Watch": Role.VIEWER,
    "/joblet.v1.JobService/Retry": Role.ADMIN,
    "/joblet.v1.JobService/Indexes": Role.VIEWER,
    "/joblet.v1.JobService/Logs": Role.VIEWER,
    "/joblet.v1.JobService/Events": Role.VIEWER,
    "/joblet.v1.ResourceService/GetResource": Role.VIEWER,
    "/joblet.v1.ResourceService/ListResources": Role.VIEWER,
    "/joblet.v1.ResourceService/DeleteResource": Role.ADMIN,
    "/joblet.v1.ResourceService/SyncSource": Role.ADMIN,
    "/joblet.v1.ResourceService/RetryWorkflow": Role.ADMIN,
    "/joblet.v1.ResourceService/StopWorkflow": Role.ADMIN,
    "/joblet.v1.ResourceService/WatchResource": Role.VIEWER,
    "/joblet.v1.FileService/FindMissing": Role.ADMIN,  # it would tell a viewer what is there
    "/joblet.v1.FileService/Upload": Role.ADMIN,
    "/joblet.v1.NodeService/GetNode": Role.VIEWER,
    "/joblet.v1.NodeService/Cordon": Role.ADMIN,
    "/joblet.v1.NodeService/Uncordon": Role.ADMIN,
    "/joblet.v1.NodeService/Drain": Role.ADMIN,
    "/joblet.v1.NodeService/Reload": Role.ADMIN,
    "/joblet.v1.MonitorService/WatchUsage": Role.VIEWER,
    "/joblet.v1.MonitorService/GetProfile": Role.VIEWER,
    "/joblet.v1.OperationService/Report": Role.ADMIN,  # it has lines of the daemon's log, and other clients' addresses
    "/joblet.v1.OperationService/GetLogLevel": Role.VIEWER,
    "/joblet.v1.OperationService/SetLogLevel": Role.ADMIN,
    "/joblet.v1.SlurmNodeService/ListAttempts": Role.SLURM,  # another host's daemon asks, and may do nothing else here
    "/joblet.v1.SlurmNodeService/ReadAttemptLog": Role.SLURM,
    "/joblet.v1.SlurmNodeService/FetchAttemptLog": Role.SLURM,
    "/joblet.v1.SlurmNodeService/FenceAttempt": Role.SLURM,
    "/joblet.v1.SlurmNodeService/ForgetAttempt": Role.SLURM,
    "/grpc.health.v1.Health/Check": Role.VIEWER,
    "/grpc.health.v1.Health/Watch": Role.VIEWER,
    "/grpc.health.v1.Health/List": Role.VIEWER,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.VIEWER,
}
caller: ContextVar[Identity] = ContextVar("caller")
audit = structlog.get_logger("audit")
log = structlog.get_logger("grpc")
# gRPC's Unix socket is 0600 in a directory that only root can enter: who comes there without the TLS front is root on this
# host. gRPC does not show SO_PEERCRED; what it shows of such a client, whose end has no name, is exactly LOCAL_PEER.
LOCAL_PEER = "unix:"
CALL_SECONDS = 60.0
LOCAL_ROOT = Identity("root", Role.ADMIN, "unix")

Handler = Any


class AccessControl(grpc.aio.ServerInterceptor):
    """Checks the caller's role before any method sees the request."""

    def __init__(self, resolver: Resolver, *, call_seconds: float = CALL_SECONDS, traced: bool = False) -> None:
        """call_seconds: the longest that a call may take which is no stream; may be set anew at any time. traced: whether it
        counts in which trace a call is made."""
        self._resolver = resolver
        self._traced = traced
        self.call_seconds = call_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        return _wrapped(handler, lambda context: self._admit(method, context), self.call_seconds)

    async def _admit(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        identity = self.identify(context.peer())
        needed = NEEDED.get(method)
        if identity is None:
            await self._refuse(
                context, method, Identity("", None, context.peer()), grpc.StatusCode.UNAUTHENTICATED, "unknown peer"
            )
        elif identity.role is None:
            text = f"the certificate of {identity.name!r} has no role: its OU must be admin, viewer or slurm"
            await self._refuse(context, method, identity, grpc.StatusCode.PERMISSION_DENIED, text)
        elif needed is None:
            await self._refuse(context, method, identity, grpc.StatusCode.PERMISSION_DENIED, "the method names no role")
        elif not identity.role.includes(needed):
            text = f"{method.rsplit('/', 1)[1]} needs the role {needed}, the certificate of {identity.name!r} has {identity.role}"
            await self._refuse(context, method, identity, grpc.StatusCode.PERMISSION_DENIED, text)
        else:
            instruments.api_calls.labels(method).inc()
            caller.set(identity)
            bind_contextvars(peer=identity.address)
            if self._traced:
                came_with(context.invocation_metadata())
            log.debug("call", peer=identity.address, client=identity.name, role=identity.role, method=method)

    def identify(self, peer: str) -> Identity | None:
        """The caller; None for a peer that the TLS front does not know (any more) and that has a name, so is nobody's."""
        return LOCAL_ROOT if peer == LOCAL_PEER else self._resolver(peer)

    async def _refuse(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        method: str,
        identity: Identity,
        code: grpc.StatusCode,
        text: str,
    ) -> None:
        instruments.api_calls_refused.labels(code.name).inc()
        audit.warning("call refused", peer=identity.address, client=identity.name, method=method, reason=text)
        await context.abort(code, text)


class NoMessage:
    """Stands for bytes that are no message of the method's. gRPC itself would call that an error of ours."""


NO_MESSAGE = NoMessage()
NO_MESSAGE_TEXT = "the request is no message of this method (are client and daemon of one version?)"


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return NO_MESSAGE

    return read


async def _messages(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    """A stream of requests up to the first that is none."""
    async for request in requests:
        await _check_message(request, context)
        yield request


async def _check_message(request: Any, context: Any) -> None:
    if request is NO_MESSAGE:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE_TEXT)


async def _checked(handler: Handler, request: Any, context: Any) -> Any:
    """The request, or the stream of them, as the handler may see it."""
    if handler.request_streaming:
        return _messages(request, context)
    await _check_message(request, context)
    return request


def _wrapped(handler: Handler, admit: Callable[[Any], Awaitable[None]], call_seconds: float) -> Handler:
    """The same handler behind the checks. call_seconds: bounds a call of one request and one answer."""
    deserialize = _reading(handler.request_deserializer)
    if not handler.response_streaming:
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def unary(request: Any, context: Any) -> Any:
            await admit(context)
            bound = asyncio.timeout(None if handler.request_streaming else call_seconds)
            try:
                async with bound:
                    return await inner(await _checked(handler, request, context), context)
            except TimeoutError:
                if not bound.expired():
                    raise
                text = f"it took longer than server.timeout in the daemon's configuration ({call_seconds:g}s)"
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, text)

        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(unary, deserialize, handler.response_serializer)
    inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def stream(request: Any, context: Any) -> None:
        await admit(context)
        answer = inner(await _checked(handler, request, context), context)
        if hasattr(answer, "__aiter__"):
            await passed_on(answer, context)
        else:
            await answer  # it writes through the context

    make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
    return make(stream, deserialize, handler.response_serializer)


def check_complete(methods: Iterable[str]) -> None:
    """Raises AssertionError if a method that is served names no role: a mistake of ours, seen at the start."""
    missing = sorted(set(methods) - NEEDED.keys())
    if missing:
        raise AssertionError(f"no role is named for {', '.join(missing)} (add it to NEEDED)")

"""Who may call what: each method of each service names the role it needs; one that names none is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

import grpc
import structlog

from joblet.pki import Role
from jobletd.tls_front import Identity, Resolver

NEEDED: dict[str, Role] = {
    "/joblet.v1.JobService/Apply": Role.ADMIN,
    "/joblet.v1.JobService/Run": Role.ADMIN,
    "/joblet.v1.JobService/Delete": Role.ADMIN,
    "/joblet.v1.JobService/Stop": Role.ADMIN,
    "/joblet.v1.JobService/Get": Role.VIEWER,
    "/joblet.v1.JobService/List": Role.VIEWER,
    "/joblet.v1.JobService/Watch": Role.VIEWER,
    "/joblet.v1.JobService/Logs": Role.VIEWER,
    "/joblet.v1.JobService/Events": Role.VIEWER,
    "/joblet.v1.ResourceService/GetResource": Role.VIEWER,
    "/joblet.v1.ResourceService/ListResources": Role.VIEWER,
    "/joblet.v1.ResourceService/DeleteResource": Role.ADMIN,
    "/joblet.v1.ResourceService/SyncSource": Role.ADMIN,
    "/joblet.v1.FileService/FindMissing": Role.ADMIN,  # it would tell a viewer what is there
    "/joblet.v1.FileService/Upload": Role.ADMIN,
    "/joblet.v1.NodeService/GetNode": Role.VIEWER,
    "/joblet.v1.NodeService/Reload": Role.ADMIN,
    "/grpc.health.v1.Health/Check": Role.VIEWER,
    "/grpc.health.v1.Health/Watch": Role.VIEWER,
    "/grpc.health.v1.Health/List": Role.VIEWER,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.VIEWER,
}
caller: ContextVar[Identity] = ContextVar("caller")
audit = structlog.get_logger("audit")
# gRPC's Unix socket is 0600 in a directory that only root can enter: who comes there without the TLS front is root on this
# host. gRPC does not show SO_PEERCRED; what it shows of such a client, whose end has no name, is exactly LOCAL_PEER.
LOCAL_PEER = "unix:"
CALL_SECONDS = 60.0
LOCAL_ROOT = Identity("root", Role.ADMIN, "unix")

Handler = Any


class AccessControl(grpc.aio.ServerInterceptor):
    """Checks the caller's role before any method sees the request."""

    def __init__(self, resolver: Resolver, *, call_seconds: float = CALL_SECONDS) -> None:
        """call_seconds: the longest that a call may take which is no stream; may be set anew at any time."""
        self._resolver = resolver
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
            text = f"the certificate of {identity.name!r} has no role: its OU must be admin or viewer"
            await self._refuse(context, method, identity, grpc.StatusCode.PERMISSION_DENIED, text)
        elif needed is None:
            await self._refuse(context, method, identity, grpc.StatusCode.PERMISSION_DENIED, "the method names no role")
        elif not identity.role.includes(needed):
            text = f"{method.rsplit('/', 1)[1]} needs the role {needed}, the certificate of {identity.name!r} has {identity.role}"
            await self._refuse(context, method, identity, grpc.StatusCode.PERMISSION_DENIED, text)
        else:
            caller.set(identity)

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
        audit.warning("call refused", peer=identity.address, client=identity.name, method=method, reason=text)
        await context.abort(code, text)


def _wrapped(handler: Handler, admit: Callable[[Any], Awaitable[None]], call_seconds: float) -> Handler:
    """The same handler behind the check. call_seconds: bounds a call of one request and one answer."""
    if not handler.response_streaming:
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def unary(request: Any, context: Any) -> Any:
            await admit(context)
            bound = asyncio.timeout(None if handler.request_streaming else call_seconds)
            try:
                async with bound:
                    return await inner(request, context)
            except TimeoutError:
                if not bound.expired():
                    raise
                text = f"it took longer than server.timeout in the daemon's configuration ({call_seconds:g}s)"
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, text)

        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(unary, handler.request_deserializer, handler.response_serializer)
    inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def stream(request: Any, context: Any) -> Any:
        await admit(context)
        answer = inner(request, context)
        if hasattr(answer, "__aiter__"):
            async for message in answer:
                yield message
        else:
            await answer  # it writes through the context

    make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
    return make(stream, handler.request_deserializer, handler.response_serializer)


def check_complete(methods: Iterable[str]) -> None:
    """Raises AssertionError if a method that is served names no role: a mistake of ours, seen at the start."""
    missing = sorted(set(methods) - NEEDED.keys())
    if missing:
        raise AssertionError(f"no role is named for {', '.join(missing)} (add it to NEEDED)")

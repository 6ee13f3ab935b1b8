"""The trace that a call says it belongs to, known to all that the call does."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from joblet.trace_context import TRACEPARENT, TRACESTATE, TraceContext


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a client. context: None if it said nothing that counts."""

    context: TraceContext | None


call: ContextVar[Call | None] = ContextVar("traced_call", default=None)


def came_with(metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
    """What a call's metadata say holds for all that the call does."""
    told = {str(key): value for key, value in metadata or () if isinstance(value, str)}
    call.set(Call(TraceContext.parse(told.get(TRACEPARENT, ""), told.get(TRACESTATE, ""))))

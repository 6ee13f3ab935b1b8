"""A span that is over, as the daemon's own type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joblet.trace_context import TraceContext


@dataclass(frozen=True, slots=True)
class Span:
    """above: its parent's span id, or nothing. fault: what went wrong, or nothing. served: it answers a client's call."""

    name: str
    context: TraceContext
    above: str
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    fault: str = ""
    served: bool = False

"""W3C trace context: where in a trace something belongs, as ``traceparent`` and ``tracestate`` say it. For the client too."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
STATE_LENGTH = 512  # what the standard asks to pass on
SAMPLED = 0x01
# A later version may append to this; the first one may not.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of one trace. trace_id: 32 hexadecimal digits. span_id: 16. sampled: whether it is recorded. state: as it came."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    def __str__(self) -> str:
        """The value of ``traceparent``."""
        return f"00-{self.trace_id}-{self.span_id}-{SAMPLED if self.sampled else 0:02x}"

    @classmethod
    def parse(cls, traceparent: str, tracestate: str = "") -> TraceContext | None:
        """None for what is no context: the standard asks to go on without one then."""
        match = _TRACEPARENT.fullmatch(traceparent.strip())
        if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
            return None
        if not int(match[2], 16) or not int(match[3], 16):
            return None
        fits = len(tracestate) <= STATE_LENGTH and _TRACESTATE.fullmatch(tracestate)
        return cls(match[2], match[3], bool(int(match[4], 16) & SAMPLED), tracestate if fits else "")

    def child(self, span_id: str | None = None) -> TraceContext:
        """A span below this one, with that id or a new one."""
        return replace(self, span_id=span_id or new_id(8))


@dataclass(frozen=True, slots=True)
class SpanPlace:
    """A span whose place is on record before it ends. above: the span id of its parent, empty for the first span of a trace."""

    context: TraceContext
    began_ns: int
    above: str = ""

    def __str__(self) -> str:
        """As the database has it."""
        return f"{self.context} {self.began_ns} {self.above or '-'} {self.context.state}".rstrip()

    @classmethod
    def parse(cls, text: str) -> SpanPlace:
        """Raises ValueError for what ``str()`` did not write."""
        traceparent, began_ns, above, *state = text.split(" ", 3)
        context = TraceContext.parse(traceparent, *state)
        if context is None:
            raise ValueError(f"{traceparent!r} is no trace context")
        return cls(context, int(began_ns), "" if above == "-" else above)

    def derived(self, name: str) -> TraceContext:
        """A span below this one whose id follows from its name: whoever needs it, after a restart too, finds the same one."""
        digest = hashlib.sha256(f"{self.context} {name}".encode()).hexdigest()
        return self.context.child(digest[:16])


def new_id(size_bytes: int) -> str:
    """Random, and never all zeros."""
    while not int(found := secrets.token_hex(size_bytes), 16):
        pass
    return found


def as_variables(context: TraceContext) -> dict[str, str]:
    """How a process hears of it."""
    state = {TRACESTATE.upper(): context.state} if context.state else {}
    return {TRACEPARENT.upper(): str(context), **state}


def from_variables(env: Mapping[str, str]) -> TraceContext | None:
    """What whoever started this process told it."""
    return TraceContext.parse(env.get(TRACEPARENT.upper(), ""), env.get(TRACESTATE.upper(), ""))


def as_metadata(context: TraceContext | None) -> tuple[tuple[str, str], ...]:
    """How a call passes it on."""
    if context is None:
        return ()
    return ((TRACEPARENT, str(context)), *(((TRACESTATE, context.state),) if context.state else ()))

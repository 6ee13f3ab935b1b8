"""The latest warnings and errors of the daemon's log, kept in memory for ``joblet report``."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from structlog.typing import EventDict

KEPT = 50
LONGEST_TEXT = 500
LEVELS = ("warning", "error", "critical")
_HEAD = ("timestamp", "level", "event")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log. text: the event and what belongs to it."""

    time: str
    level: str
    text: str


_lines: deque[Line] = deque(maxlen=KEPT)
_lock = threading.Lock()


def remember(_: object, __: str, event: EventDict) -> EventDict:
    """A processor: keeps what is bad, and passes everything on."""
    level = str(event.get("level", ""))
    if level in LEVELS:
        rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in _HEAD)
        line = Line(str(event.get("timestamp", "")), level, f"{event.get('event', '')} {rest}".strip()[:LONGEST_TEXT])
        with _lock:
            _lines.append(line)
    return event


def recent() -> list[Line]:
    """Oldest first."""
    with _lock:
        return list(_lines)

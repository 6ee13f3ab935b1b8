"""Times, durations and sizes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


def moment(stamp: Timestamp | None) -> str:
    """RFC 3339 in UTC, to the second; empty for none."""
    if stamp is None or not (stamp.seconds or stamp.nanos):
        return ""
    return datetime.fromtimestamp(stamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_moment(time_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds, as in the log files."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def seconds_between(start: Timestamp | None, end: Timestamp | None) -> float | None:
    """From one to the other, or to now; None without a start."""
    if start is None:
        return None
    last = datetime.now(UTC).timestamp() if end is None else end.seconds + end.nanos / 1e9
    return max(0.0, last - start.seconds - start.nanos / 1e9)


def duration(seconds: float | None) -> str:
    """``850ms``, ``2.61s``, ``3m05s``, ``2h10m``, ``4d03h``; empty for none."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.2f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"


def size(count: int) -> str:
    """``12.5 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"

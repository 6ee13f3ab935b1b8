"""Times as people type them: how long, and since when."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from rnx.failures import InvalidRequest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seconds_of(flag: str, text: str) -> float:
    """Seconds of ``90s`` or ``1h30m``. Raises InvalidRequest."""
    from joblet.manifest.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"{flag}: {error}") from error


def since_ns(text: str) -> int:
    """Nanoseconds since the epoch of ``10m`` (before now) or an RFC 3339 time. Raises InvalidRequest."""
    if text[:4].isdigit() and text[4:5] == "-":
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise InvalidRequest(
                f"--since: {text!r} is not a time", todo="write 2026-01-02T03:04:05Z or 10m"
            ) from error
        # Without a zone it is the reader's own clock that is meant, as with journalctl. Exactly: what was seen last comes again.
        return (moment.astimezone(UTC) - EPOCH) // timedelta(microseconds=1) * 1000
    try:
        seconds = seconds_of("--since", text)
    except InvalidRequest as error:
        todo = "write 10m, 1h30m, or 2026-01-02T03:04:05Z"
        raise InvalidRequest(f"--since: {text!r} is neither a duration nor a time", todo=todo) from error
    return int((time.time() - seconds) * 1e9)

"""Whether what is read back from an attempt's directory has the shape that was written: a damaged disk may have left anything.

Not a model of it: only as much as those who use it rely on, so that they need not doubt it themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jobletd.model import Reason

MOST = 2**63 - 1  # what the store and the API hold
_OUTCOMES: Mapping[str, tuple[tuple[str, type], ...]] = {
    "exited": (("code", int),),
    "killed": (("signal", int),),
    "not_started": (("code", int), ("error", str)),
    "unknown": (("why", str),),
}
_REST: tuple[tuple[str, type], ...] = (
    *(("cause", str), ("started_ns", int), ("cpu_seconds", float), ("log_dropped_bytes", int), ("log_error", str)),
    ("usage", dict),
    *(("outputs", dict), ("outputs_error", str)),
)


def fault_of_record(record: Mapping[str, Any]) -> str:
    """What is wrong with an exit record; empty: nothing."""
    outcome = record["outcome"]
    fields = _OUTCOMES.get(outcome.get("type")) if isinstance(outcome.get("type"), str) else None
    if fields is None or not all(_has(outcome, *field) for field in fields):
        return "its outcome"
    if not _has(record, "ended_ns", int):
        return "ended_ns"
    for name, kind in _REST:
        if record.get(name) is not None and not _has(record, name, kind):
            return name
    if not all(isinstance(text, str) for text in (record.get("usage") or {}).values()):
        return "usage"
    if not all(isinstance(text, str) and _can_be_stored(text) for text in (record.get("outputs") or {}).values()):
        return "outputs"
    if "reason" in record and record["reason"] not in list(Reason):
        return "reason"
    return ""


def is_number(value: object) -> bool:
    """Whether it is a number that can be stored."""
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) <= MOST
    return isinstance(value, int) and not isinstance(value, bool) and -MOST <= value <= MOST


def are_limits(limits: Any) -> bool:
    """Whether each of what claims to be CgroupLimits has a value of its kind."""
    io = limits.io
    counts = [limits.memory_bytes, limits.swap_bytes, limits.pids]
    if io is not None:
        counts += [io.read_bytes, io.write_bytes, io.read_ops, io.write_ops]
    texts = [limits.cpus, None if io is None else io.device]
    return (
        all(count is None or (isinstance(count, int) and is_number(count) and count >= 0) for count in counts)
        and all(text is None or isinstance(text, str) for text in texts)
        and (limits.cpu_percent is None or is_number(limits.cpu_percent))
        and limits.swap_bytes is not None
        and (io is None or io.device is not None)
    )


def _has(data: Mapping[str, Any], name: str, kind: type) -> bool:
    value = data.get(name)
    if kind is float:
        return is_number(value)
    if kind is int:
        return isinstance(value, int) and is_number(value)
    if kind is str:
        return isinstance(value, str) and _can_be_stored(value)
    return isinstance(value, kind)


def _can_be_stored(text: str) -> bool:
    """Not with half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

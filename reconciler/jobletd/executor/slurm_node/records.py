"""The documents that a node writes about an attempt, from and to the daemon's own words.

``exit.json`` is the init's exit record with what only the node can read out of it: figures of its hierarchy of cgroups, limits as
its kernel has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from joblet.sandbox import exit_record
from jobletd.executor import Ended, Running
from jobletd.executor.local.outcome import outcome_of
from jobletd.executor.local.record_shape import fault_of_record
from jobletd.executor.slurm_node.request import Allocation
from jobletd.model import End, LimitStatus, NotStarted, Reason, Unknown, Usage

VERSION = 1
LARGEST = 1 << 63
_FIGURES = tuple(field.name for field in fields(Usage))


class DamagedRecord(ValueError):
    """A record that is there and makes no sense."""


def state_document(attempt_id: str, allocation: Allocation, running: Running) -> dict[str, Any]:
    return {
        "version": VERSION,
        "attempt_id": attempt_id,
        **asdict(allocation),
        "boot_id": exit_record.boot_id(),
        "started_ns": running.started_ns,
        "limits": [astuple(limit) for limit in running.limits],
    }


def running_of(document: Mapping[str, Any]) -> Running:
    """Raises DamagedRecord."""
    try:
        return Running(int(document["started_ns"]), Usage(), _limits_of(document))
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedRecord(f"state.json is damaged: {error}") from error


def usage_document(usage: Usage, read_ns: int) -> dict[str, Any]:
    return {"version": VERSION, "read_ns": read_ns, "usage": asdict(usage)}


def usage_of(document: Mapping[str, Any]) -> tuple[Usage, int]:
    """What usage.json says, and when that was so. Raises DamagedRecord."""
    try:
        read_ns, found = document["read_ns"], {name: document["usage"].get(name) for name in Usage.__dataclass_fields__}
        if not all(value is None or _is_figure(value) for value in found.values()) or not _is_figure(read_ns):
            raise DamagedRecord("usage.json is damaged: a figure is none")
        whole = {
            name: value if value is None or name.endswith("_seconds") else int(value) for name, value in found.items()
        }
        return Usage(**whole), int(read_ns)
    except (TypeError, KeyError, AttributeError) as error:
        raise DamagedRecord(f"usage.json is damaged: {type(error).__name__}: {error}") from error


def _is_figure(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < LARGEST  # type: ignore[operator]


def exit_document(
    record: Mapping[str, Any] | None, ended: Ended, attempt_id: str, allocation: Allocation
) -> dict[str, Any]:
    """record: the init's; None if there is none."""
    return {
        **(record or bare_record(attempt_id, ended.end)),
        **asdict(allocation),
        "limits": [astuple(limit) for limit in ended.limits],
        "end": {
            "reason": ended.end.reason.value,
            "message": ended.end.message,
            "usage": asdict(ended.end.usage),
        },
    }


def bare_record(attempt_id: str, end: End) -> dict[str, Any]:
    """An exit record for an end that no init has told."""
    outcome = (
        exit_record.not_started(end.outcome.code, end.outcome.error)
        if isinstance(end.outcome, NotStarted)
        else exit_record.unknown(end.outcome.why if isinstance(end.outcome, Unknown) else "")
    )
    return {
        "version": exit_record.VERSION,
        "attempt": attempt_id,
        "boot_id": exit_record.boot_id(),
        "outcome": outcome,
        "cause": "",
        "started_ns": end.started_ns,
        "ended_ns": end.ended_ns,
        "usage": {},
        "cpu_seconds": 0.0,
    }


def ended_of(document: Mapping[str, Any]) -> Ended:
    """What exit.json says. Raises DamagedRecord."""
    try:
        if document["version"] != exit_record.VERSION:
            raise DamagedRecord(f"exit.json: version {document['version']!r} is not known")
        if fault := fault_of_record(document):
            raise DamagedRecord(f"exit.json is damaged: {fault}")
        told = document["end"]
        end = End(
            outcome=outcome_of(document["outcome"]),
            reason=Reason(told["reason"]),
            ended_ns=document["ended_ns"],
            started_ns=document.get("started_ns"),
            message=str(told["message"]),
            usage=Usage(**{name: told["usage"].get(name) for name in _FIGURES}),  # other versions have more, or less
            outputs=dict(document.get("outputs") or {}),
        )
        return Ended(end, _limits_of(document))
    except DamagedRecord:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedRecord(f"exit.json is damaged: {type(error).__name__}: {error}") from error


def _limits_of(document: Mapping[str, Any]) -> tuple[LimitStatus, ...]:
    limits: Sequence[Sequence[Any]] = document.get("limits") or ()
    return tuple(LimitStatus(*limit) for limit in limits)

"""From the exit record to what is told: a pure function."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from jobletd.executor.local.record_shape import is_number
from jobletd.model import End, Exited, Killed, NotStarted, Outcome, Reason, Unknown, Usage


def end_of(
    record: Mapping[str, Any], parse_usage: Callable[[Mapping[str, str]], Usage], limits: Mapping[str, str]
) -> End:
    """How the attempt ended. limits: what was asked for (``memory``, ``timeout``, ``grace``), for the message."""
    outcome = outcome_of(record["outcome"])
    usage = _usage_of(record, parse_usage)
    if usage.cpu_seconds is None:
        usage = replace(usage, cpu_seconds=record.get("cpu_seconds"))
    reason = reason_of(outcome, record, usage)
    message = message_of(outcome, reason, limits)
    if dropped := record.get("log_dropped_bytes"):
        message += f"; {dropped} bytes of output were lost ({record.get('log_error')})"
    if (missing := record.get("outputs_error")) and outcome == Exited(0):
        message += f"; outputs: {missing}"
    return End(
        outcome=outcome,
        reason=reason,
        ended_ns=record["ended_ns"],
        started_ns=record.get("started_ns"),
        message=message,
        usage=usage.after_the_end(),
        outputs=dict(record.get("outputs") or {}),
    )


def _usage_of(record: Mapping[str, Any], parse_usage: Callable[[Mapping[str, str]], Usage]) -> Usage:
    """What the kernel's texts say; what they cannot have said is left out."""
    try:
        usage = parse_usage(record.get("usage") or {})
    except (ValueError, IndexError):
        return Usage()
    figures = {field.name: getattr(usage, field.name) for field in fields(usage)}
    return replace(usage, **{name: value if is_number(value) else None for name, value in figures.items()})


def outcome_of(data: Mapping[str, Any]) -> Outcome:
    match data["type"]:
        case "exited":
            return Exited(data["code"])
        case "killed":
            return Killed(signal_name(data["signal"]))
        case "not_started":
            return NotStarted(data["code"], data["error"])
        case _:
            return Unknown(str(data.get("why", "")))


def reason_of(outcome: Outcome, record: Mapping[str, Any], usage: Usage) -> Reason:
    """The most telling one: an OOM kill before the stop that it may have raced with."""
    if isinstance(outcome, NotStarted):
        return Reason(record.get("reason", Reason.START_ERROR))
    if isinstance(outcome, Unknown):
        return Reason.LOST
    failed = outcome != Exited(0)
    if usage.oom_kills and failed and not record.get("cause"):
        return Reason.OOM_KILLED
    if record.get("cause") == "timeout":
        return Reason.TIMED_OUT
    if record.get("cause") in ("stop", "kill"):
        return Reason.STOPPED
    if isinstance(outcome, Killed):
        return Reason.SIGNAL
    return Reason.EXIT_CODE if failed else Reason.COMPLETED


def message_of(outcome: Outcome, reason: Reason, limits: Mapping[str, str]) -> str:
    """One sentence for people."""
    if isinstance(outcome, NotStarted):
        return outcome.error
    if isinstance(outcome, Unknown):
        return outcome.why
    how = f"exited with code {outcome.code}" if isinstance(outcome, Exited) else f"killed by {outcome.signal}"
    match reason:
        case Reason.OOM_KILLED:
            return f"{how}: the memory limit of {limits.get('memory', 'the host')} was exceeded"
        case Reason.TIMED_OUT:
            return f"{how} after its time limit ({limits.get('timeout', '')}; grace {limits.get('grace', '')})"
        case Reason.STOPPED:
            return f"{how} when stopped"
        case _:
            return how


def signal_name(number: int) -> str:
    """As in signal(7); real-time signals as SIGRTMIN+n."""
    try:
        return signal.Signals(number).name
    except ValueError:
        # 32 and 33 have no name: the C library keeps them for itself.
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"signal {number}"

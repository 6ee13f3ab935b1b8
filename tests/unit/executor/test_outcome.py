"""From the exit record to how an attempt ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from jobletd.executor.local.outcome import end_of, signal_name
from jobletd.model import Exited, Killed, NotStarted, Outcome, Reason, Unknown, Usage

LIMITS = {"memory": "64Mi", "timeout": "1s", "grace": "2s"}


def usage_of(raw: Mapping[str, str]) -> Usage:
    return Usage(oom_kills=int(raw["oom"]) if "oom" in raw else None)


def record(outcome: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": 1, "outcome": outcome, "cause": "", "started_ns": 5, "ended_ns": 7, "usage": {}, **more}


EXIT_0 = {"type": "exited", "code": 0}
EXIT_3 = {"type": "exited", "code": 3}
KILLED = {"type": "killed", "signal": 9}


@pytest.mark.parametrize(
    ("data", "outcome", "reason", "message"),
    [
        (record(EXIT_0), Exited(0), Reason.COMPLETED, "exited with code 0"),
        (record(EXIT_3), Exited(3), Reason.EXIT_CODE, "exited with code 3"),
        (record(KILLED), Killed("SIGKILL"), Reason.SIGNAL, "killed by SIGKILL"),
        (record(KILLED, usage={"oom": "1"}), Killed("SIGKILL"), Reason.OOM_KILLED, "memory limit of 64Mi was exceeded"),
        (record(EXIT_3, usage={"oom": "2"}), Exited(3), Reason.OOM_KILLED, "memory limit of 64Mi was exceeded"),
        # A child was killed, and the command coped with it.
        (record(EXIT_0, usage={"oom": "1"}), Exited(0), Reason.COMPLETED, "exited with code 0"),
        (record(KILLED, cause="timeout"), Killed("SIGKILL"), Reason.TIMED_OUT, "time limit (1s; grace 2s)"),
        (record(EXIT_0, cause="timeout"), Exited(0), Reason.TIMED_OUT, "exited with code 0 after its time limit"),
        (record(EXIT_0, cause="stop"), Exited(0), Reason.STOPPED, "exited with code 0 when stopped"),
        (record(KILLED, cause="kill"), Killed("SIGKILL"), Reason.STOPPED, "killed by SIGKILL when stopped"),
        (
            record({"type": "not_started", "code": 127, "error": "x: No such file or directory"}),
            NotStarted(127, "x: No such file or directory"),
            Reason.START_ERROR,
            "x: No such file or directory",
        ),
        (
            record({"type": "not_started", "code": 126, "error": "no io"}, reason="LimitNotEnforceable"),
            NotStarted(126, "no io"),
            Reason.LIMIT_NOT_ENFORCEABLE,
            "no io",
        ),
        (record({"type": "unknown", "why": "who knows"}), Unknown("who knows"), Reason.LOST, "who knows"),
    ],
)
def test_each_record_means_one_end(data: dict[str, Any], outcome: Outcome, reason: Reason, message: str) -> None:
    end = end_of(data, usage_of, LIMITS)
    assert (end.outcome, end.reason, end.started_ns, end.ended_ns) == (outcome, reason, 5, 7)
    assert message in end.message


def test_lost_output_is_told() -> None:
    end = end_of(record(EXIT_0, log_dropped_bytes=12, log_error="No space left on device"), usage_of, LIMITS)
    assert "12 bytes of output were lost (No space left on device)" in end.message


def test_cpu_time_falls_back_to_what_init_counted() -> None:
    assert end_of(record(EXIT_0, cpu_seconds=1.5), usage_of, LIMITS).usage.cpu_seconds == 1.5


def test_what_is_used_at_the_end_is_not_what_was_used() -> None:
    def now(_: Mapping[str, str]) -> Usage:
        return Usage(memory_bytes=1, memory_peak_bytes=2, pids=3)

    assert end_of(record(EXIT_0), now, LIMITS).usage == Usage(memory_peak_bytes=2)


def test_signals_have_their_names() -> None:
    assert (signal_name(15), signal_name(36)) == ("SIGTERM", "SIGRTMIN+2")


@pytest.mark.parametrize("text", ["many", "\u00b2", "9" * 5000, str(2**63)])
def test_figures_that_the_kernel_cannot_have_written_are_left_out(text: str) -> None:
    end = end_of(record(EXIT_3, usage={"oom": text}), usage_of, LIMITS)
    assert (end.outcome, end.reason, end.usage.oom_kills) == (Exited(3), Reason.EXIT_CODE, None)

"""Rates of what this host reads with each look, and of what another host notes once in a while."""

from __future__ import annotations

from typing import Any, cast

import pytest

from jobletd.model import Attempt, AttemptId, JobName, Phase, Run, RunId, Usage
from jobletd.monitoring.live import Live
from jobletd.monitoring.readings import readings

ATTEMPT = AttemptId("one-run-1")
SECOND_NS = 10**9


def live(cpu_seconds: float | None, usage_ns: int | None = None) -> Live:
    attempt = Attempt(ATTEMPT, RunId("run"), 1, Phase.RUNNING, 0, started_ns=100 * SECOND_NS)

    class Shown:
        attempts = (attempt,)

    return Live(JobName("one"), cast(Run, cast(Any, Shown())), Usage(cpu_seconds=cpu_seconds), usage_ns)


def test_each_look_at_this_host_is_a_reading() -> None:
    first = readings([live(1.0)], 50.0, {})
    assert first[ATTEMPT].rate("cpu_seconds") is None
    second = readings([live(2.0)], 54.0, first)
    assert second[ATTEMPT].rate("cpu_seconds") == pytest.approx(0.25)
    assert second[ATTEMPT].rate("io_read_bytes") is None  # this host cannot tell


def test_the_rate_of_what_a_node_notes_is_that_between_its_notes() -> None:
    first = readings([live(1.0, 110 * SECOND_NS)], 50.0, {})
    assert first[ATTEMPT].rate("cpu_seconds") == pytest.approx(0.1)  # since the start
    same = readings([live(1.0, 110 * SECOND_NS)], 52.0, first)
    assert same[ATTEMPT].rate("cpu_seconds") == pytest.approx(0.1)
    second = readings([live(6.0, 120 * SECOND_NS)], 60.0, same)
    assert second[ATTEMPT].rate("cpu_seconds") == pytest.approx(0.5)


def test_a_job_of_which_nothing_was_noted_yet_has_no_rate() -> None:
    first = readings([live(None)], 50.0, {})
    second = readings([live(None)], 52.0, first)
    assert second[ATTEMPT].rate("cpu_seconds") is None


def test_what_does_not_run_any_more_is_let_go() -> None:
    assert readings([], 52.0, readings([live(1.0)], 50.0, {})) == {}

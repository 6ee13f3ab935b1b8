"""The daemon's types as messages."""

from __future__ import annotations

import dataclasses

import pytest

from joblet.manifest import jobs_of, read_manifests
from jobletd.model import (
    Action,
    ApplyResult,
    Attempt,
    AttemptId,
    Condition,
    End,
    Exited,
    JobName,
    JobView,
    Killed,
    LimitStatus,
    NotStarted,
    Outcome,
    Phase,
    Reason,
    Run,
    RunId,
    Source,
    Unknown,
    Usage,
)
from jobletd.services import convert
from jobletd.services.jobs import PAGE_BYTES, page_of

(MANIFEST,) = jobs_of(
    read_manifests(
        b"apiVersion: joblet/v1\nkind: Job\nmetadata: {name: hello, labels: {team: data}}\nspec: {command: [echo, hi]}\n",
        filename="x",
    )
)
SECOND = 1_000_000_000


def run_that_ended(outcome: Outcome, phase: Phase = Phase.FAILED) -> Run:
    end = End(outcome, Reason.SIGNAL, 9 * SECOND, 5 * SECOND, "why", Usage(memory_peak_bytes=7, cpu_seconds=0.5))
    limit = LimitStatus("memory", "64Mi", "67108864", enforced=True)
    attempt = Attempt(AttemptId("hello-abcd1234-1"), RunId("abcd1234"), 1, phase, 4 * SECOND, limits=(limit,), end=end)
    return Run(
        RunId("abcd1234"), JobName("hello"), "uid", 2, "generation", phase, MANIFEST, 3 * SECOND,
        reason=Reason.SIGNAL, ended_ns=9 * SECOND, outcome=outcome, attempts=(attempt,),
    )  # fmt: skip


def view(*runs: Run) -> JobView:
    condition = Condition("Valid", "True", "Read", "", 1)
    return JobView("uid", MANIFEST, Source("spool", "hello.yml"), 2, 1, SECOND, 2 * SECOND, False, (condition,), runs)


@pytest.mark.parametrize(
    ("outcome", "code", "signal"),
    [
        (Exited(0), 0, ""),
        (Exited(3), 3, ""),
        (Killed("SIGKILL"), 137, "SIGKILL"),
        (NotStarted(127, "no such file"), 127, ""),
        (Unknown("the host was restarted"), None, ""),
    ],
)
def test_an_exit_code_is_there_only_if_it_is_known(outcome: Outcome, code: int | None, signal: str) -> None:
    message = convert.run(run_that_ended(outcome))
    for one in (message, message.attempts[0]):
        assert (one.exit_code if one.HasField("exit_code") else None, one.signal) == (code, signal)


def test_a_run_that_goes_on_has_neither_end_nor_exit_code() -> None:
    message = convert.run(dataclasses.replace(run_that_ended(Exited(0)), phase=Phase.RUNNING, ended_ns=None))
    assert not message.HasField("exit_code") and not message.HasField("ended")


def test_figures_that_the_host_cannot_tell_are_absent_not_zero() -> None:
    used = convert.run(run_that_ended(Exited(0))).attempts[0].usage
    assert (used.memory_peak_bytes, used.cpu_seconds) == (7, 0.5)
    assert not used.HasField("pids") and not used.HasField("oom_kills")


def test_a_job_carries_its_manifest_source_conditions_and_runs() -> None:
    message = convert.job(view(run_that_ended(Exited(0))))
    assert (message.name, message.source, message.generation) == ("hello", "spool:hello.yml", 2)
    assert (message.observed_generation, dict(message.labels)) == (1, {"team": "data"})
    assert read_manifests(message.manifest.encode(), filename="x") == (MANIFEST,)
    assert message.conditions[0].type == "Valid"
    assert message.runs[0].attempts[0].limits[0].effective == "67108864"
    assert message.runs[0].command == ["echo", "hi"]


def test_a_dry_run_names_no_run_that_it_would_start() -> None:
    result = ApplyResult(JobName("hello"), Action.CREATED, 1, "starts a run", RunId("abcd1234"), None, MANIFEST)
    assert convert.apply_result(result, dry_run=True).run_id == ""
    assert convert.apply_result(result, dry_run=False).run_id == "abcd1234"


def test_a_page_ends_before_its_message_becomes_too_large_but_has_at_least_one_job() -> None:
    large = dataclasses.replace(view(), conditions=(Condition("Valid", "True", "", "x" * (PAGE_BYTES // 2), 1),))
    assert len(page_of([large] * 5, 5)) == 1
    assert len(page_of([view()] * 5, 3)) == 3

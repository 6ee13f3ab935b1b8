"""What ``rnx why`` says, for each way in which a job does not run or has ended."""

from __future__ import annotations

from typing import Any

import pytest

from joblet.api.v1 import resource_pb2
from rnx.reasons import workflow_paragraph
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import MANIFEST, STARTED, Answers, entry, make_job, make_run


def attempted(phase: str, **more: Any) -> Any:
    run = make_run(phase=phase, **more)
    attempt = run.attempts.add(id="hello-k3x9q2ab-1", number=1, phase=phase, reason=run.reason)
    attempt.usage.memory_peak_bytes = 64 << 20
    attempt.usage.cpu_seconds = 1.25
    attempt.limits.add(name="memory", asked="64Mi", effective="67108864", enforced=True)
    return run


def said(rnx: Rnx, answers: Answers, *runs: Any, lines: bytes = b"", **job: Any) -> str:
    answers.jobs["hello"] = make_job("hello", *runs, **job)
    answers.logs = [[entry(lines)] if lines else []]
    found = rnx("why", "hello")
    assert (found.code, found.err) == (0, "")
    return " ".join(found.out.split())


def test_a_failed_run_is_explained_with_figures_and_the_last_lines_of_its_output(rnx: Rnx, answers: Answers) -> None:
    run = attempted(
        "FAILED", reason="OOMKilled", message="killed by SIGKILL: the memory limit of 64Mi was exceeded", exit_code=137
    )
    run.attempts[0].usage.oom_kills = 1
    assert said(rnx, answers, run, lines=b"loading\nrows: 12\n") == (
        "Job hello failed at 2026-01-02T03:03:07Z after 2.50s (run k3x9q2ab): OOMKilled, killed by SIGKILL: the memory limit "
        "of 64Mi was exceeded. It used at most 64.0 MiB of 64Mi of memory, 1.250 s of CPU time, with 1 process killed by "
        'the kernel for want of memory. The last it wrote: "loading / rows: 12". Raise spec.limits.memory, or let it use less.'
    )


def test_a_run_that_ended_well_or_was_stopped_says_so(rnx: Rnx, answers: Answers) -> None:
    assert said(rnx, answers, attempted("COMPLETED")).startswith(
        "Job hello ended well at 2026-01-02T03:03:07Z after 2.50s: its command exited with code 0"
    )
    stopped = attempted("STOPPED", reason="Superseded", message="killed by SIGTERM when stopped")
    assert "because its manifest was changed, and a newer run took its place" in said(rnx, answers, stopped)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"reason": "Queued", "queue_position": 3},
            "All places for running jobs are taken; it is number 3 in the line",
        ),
        ({"reason": "Cordoned", "message": "ann cordoned this host"}, "ann cordoned this host."),
        ({"reason": "Waiting", "message": "volume/data does not exist"}, "The reason: volume/data does not exist."),
    ],
)
def test_a_run_that_waits_says_for_what(rnx: Rnx, answers: Answers, more: dict[str, Any], expected: str) -> None:
    text = said(rnx, answers, make_run(phase="PENDING", **more))
    assert text.startswith("Job hello does not run yet: its run k3x9q2ab has been waiting for ")
    assert expected in text


def test_a_run_that_waits_for_another_job_tells_how_that_one_stands(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["first"] = make_job("first", make_run("a2b3c4d5", job="first", phase="PENDING", reason="Queued"))
    manifest = MANIFEST + "  dependsOn:\n  - job: first\n"
    message = "job first has not ended yet: its run a2b3c4d5 is PENDING"
    waiting = make_run(phase="PENDING", reason="Waiting", message=message)
    assert f"The reason: {message}. That run is PENDING, Queued." in said(rnx, answers, waiting, manifest=manifest)


def test_a_run_between_two_attempts_says_when_the_next_one_comes(rnx: Rnx, answers: Answers) -> None:
    run = attempted("SCHEDULED", reason="BackOff", message="exited with code 3")
    run.next_attempt.FromSeconds(STARTED + 60)
    text = said(rnx, answers, run, lines=b"no\n")
    assert "attempt 1 ended (BackOff: exited with code 3), and the next one comes at 2026-01-02T03:04:05Z." in text


def test_a_job_without_a_run_says_why(rnx: Rnx, answers: Answers) -> None:
    assert said(rnx, answers, suspend=True) == "Job hello has not run, because spec.suspend is true."


def test_what_else_is_wrong_is_told_too(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = job = make_job("hello", attempted("RUNNING"))
    job.conditions.add(type="LimitsEnforced", status="False", reason="NotEnforced", message="io: no controller")
    answers.logs = [[]]
    text = " ".join(rnx("why", "hello").out.split())
    assert "runs: its command has been running for" in text
    assert text.endswith("Besides, LimitsEnforced is False (NotEnforced): io: no controller.")


def test_a_job_that_does_not_exist_is_an_error_with_the_nearest(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello")
    assert "did you mean hello?" in rnx("why", "helo").err


def test_a_job_with_a_schedule_says_when_it_runs_next(rnx: Rnx, answers: Answers) -> None:
    job = answers.jobs["hello"] = make_job("hello")
    del job.runs[:]
    job.next_tick.FromSeconds(STARTED + 60)
    text = " ".join(rnx("why", "hello").out.split())
    assert text == "Job hello has not run yet. Its schedule runs it next at 2026-01-02T03:04:05Z."
    job.runs.append(attempted("STOPPED", reason="Missed"))
    answers.logs = [[]]
    text = " ".join(rnx("why", "hello").out.split())
    assert "because its startingDeadline was over before it could begin" in text
    assert text.endswith("Its schedule runs it next at 2026-01-02T03:04:05Z.")


def test_a_workflow_says_which_step_is_to_blame_and_what_comes_next() -> None:
    workflow = resource_pb2.Resource(kind="Workflow", name="nightly")
    workflow.status.update(phase="Failed", run="3", steps="3/3", next="2027-01-15T02:00:00Z", waiting="2")
    workflow.steps.add(name="a", job="nightly-a", phase="COMPLETED", run_id="r1")
    workflow.steps.add(
        name="b", job="nightly-b", phase="FAILED", reason="ExitCode", message="exited with code 3", run_id="r2"
    )
    workflow.steps.add(name="c", job="nightly-c", phase="SKIPPED", reason="NeedNotMet", message="needs b")
    assert workflow_paragraph(workflow) == (
        "Workflow nightly failed (run 3, 3/3 steps over). "
        "Step b is FAILED (ExitCode: exited with code 3); rnx why nightly-b tells more. "
        "Step c is SKIPPED (NeedNotMet: needs b). "
        "2 more runs wait for its end. Its schedule runs it next at 2027-01-15T02:00:00Z."
    )
    fresh = resource_pb2.Resource(kind="Workflow", name="new")
    fresh.status.update(phase="Suspended")
    assert workflow_paragraph(fresh) == "Workflow new does not run, because spec.suspend is true."


def test_a_job_in_an_engines_queue_says_what_it_waits_for(rnx: Rnx, answers: Answers) -> None:
    run = attempted("INITIALIZING", reason="Queued", message="waits in Slurm's queue as job 17: Resources")
    run.attempts[0].engine = "slurm"
    text = said(rnx, answers, run)
    assert text.startswith("Job hello has been in slurm's hands for ")
    assert text.endswith("It waits in Slurm's queue as job 17: Resources.")

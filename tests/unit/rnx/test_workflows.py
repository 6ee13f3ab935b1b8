"""A workflow named wherever a job may be: how it stands, its end, its steps' output; and the output of a whole array."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from joblet.api.v1 import job_pb2, resource_pb2
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import STARTED, Answers, Running, entry, make_job, make_run, refusal
from tests.unit.rnx.test_arrays import array_run, index
from tests.unit.rnx.test_command_line import call

Step = tuple[str, str, str]  # its name, phase and run
BOTH = (("extract", "COMPLETED", "runextr1"), ("load", "FAILED", "runload1"))


def workflow(phase: str = "Failed", *steps: Step, run: int = 3, ended: bool = True) -> resource_pb2.Resource:
    found = resource_pb2.Resource(kind="Workflow", name="nightly", generation=2, source="grpc:admin")
    found.status.update({"phase": phase, **({"run": str(run), "steps": f"{len(steps)}/2"} if run else {})})
    if run:
        found.workflow_run.number, found.workflow_run.phase, found.workflow_run.trigger = run, phase, "schedule"
        found.workflow_run.created.FromSeconds(STARTED)
        if ended:
            found.workflow_run.ended.FromMilliseconds(STARTED * 1000 + 2500)
    for name, state, run_id in steps:
        step = found.steps.add(name=name, job=f"nightly-{name}", phase=state, run_id=run_id)
        if run_id:
            step.started.FromSeconds(STARTED)
        if state == "FAILED":
            step.reason, step.message = "ExitCode", "exited with code 3"
    return found


@pytest.fixture
def nightly(answers: Answers) -> Answers:
    """It has failed; both of its steps have a run."""
    answers.resources["Workflow/nightly"] = workflow("Failed", *BOTH)
    for name, phase, run_id in BOTH:
        answers.jobs[f"nightly-{name}"] = make_job(f"nightly-{name}", make_run(run_id, phase=phase))
    answers.logs_of = {
        "runextr1": [entry(b"rows of mon"), entry(b"day\nmore\n"), entry(b"warned\n", stream="stderr")],
        "runload1": [entry(b"no end")],
    }
    return answers


def test_its_status_names_the_run_and_each_step_with_its_job(rnx: Rnx, nightly: Answers) -> None:
    lines = rnx("status", "workflow/nightly").out.splitlines()
    assert lines[:3] == ["Workflow:      nightly", "Run:           3 (schedule)", "Status:        Failed"]
    assert "Duration:      2.50s" in lines and "Over:          2/2 steps" in lines
    head, extract, load = lines[lines.index("Steps:") + 1 :]
    assert head.split() == ["STEP", "STATUS", "REASON", "STARTED", "DURATION", "JOB", "RUN", "MESSAGE"]
    assert extract.split()[:2] == ["extract", "COMPLETED"] and "nightly-extract  runextr1" in extract
    assert load.split()[:3] == ["load", "FAILED", "ExitCode"] and load.endswith("exited with code 3")
    data = json.loads(rnx("status", "workflow/nightly", "--json").out)
    assert (data["run"], data["status"], data["durationSeconds"], data["waiting"]) == (3, "Failed", 2.5, 0)
    assert [step["job"] for step in data["steps"]] == ["nightly-extract", "nightly-load"]
    assert rnx("status", "workflow/nightly", "-o", "name").out == "workflow/nightly\n"
    assert "nightly-load" in rnx("describe", "workflow/nightly").out
    assert rnx("status", "workflow/nightly", "--index", "1").code == 2


def test_one_that_has_not_run_says_so(rnx: Rnx, answers: Answers) -> None:
    answers.resources["Workflow/nightly"] = workflow("Scheduled", run=0)
    answers.resources["Workflow/nightly"].status["next"] = "2026-06-01T02:30:00Z"
    out = rnx("status", "workflow/nightly").out
    assert "Status:        Scheduled" in out and "Next Run:      2026-06-01T02:30:00Z" in out
    assert json.loads(rnx("status", "workflow/nightly", "--json").out)["run"] is None


@pytest.mark.parametrize(
    ("goal", "last", "code", "said"),
    [
        ("completed", workflow("Succeeded", ("extract", "COMPLETED", "runextr1")), 0, "run 3 Succeeded"),
        ("completed", workflow("Failed", *BOTH), 1, "run 3 Failed: load FAILED (ExitCode)"),
        ("finished", workflow("Stopped", *BOTH), 0, "run 3 Stopped"),
        ("running", workflow("Running", ("extract", "RUNNING", "runextr1"), ended=False), 0, "run 3 Running"),
    ],
)
def test_who_waits_hears_of_its_end_through_a_restart(
    rnx: Rnx, answers: Answers, goal: str, last: resource_pb2.Resource, code: int, said: str
) -> None:
    """Also of an end that its steps show a moment before it is on record."""
    early = workflow("Running", ("extract", "PENDING", "runextr1"), ended=False)
    almost = workflow("Failed", ("extract", "FAILED", "runextr1"), ended=False)
    answers.resources["Workflow/nightly"] = early
    answers.changes = [[early, almost], refusal(grpc.StatusCode.UNAVAILABLE, "no"), [early, last]]
    answers.hold.set()
    found = rnx("wait", "workflow/nightly", "--for", goal)
    assert (found.code, said in found.out) == (code, True), found
    answers.hold.clear()


MANIFEST = """{apiVersion: joblet/v1, kind: Workflow, metadata: {name: nightly}, spec: {%s
    steps: [{name: extract, job: {command: ["true"]}}]}}"""


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [("", 1, "workflow/nightly run 3 Failed: load FAILED (ExitCode)\n"), ("schedule: {every: 1h}, ", 0, "")],
)
def test_apply_waits_for_a_workflow_unless_its_schedule_says_when_it_runs(
    rnx: Rnx, nightly: Answers, tmp_path: Path, more: str, code: int, said: str
) -> None:
    (tmp_path / "flow.yml").write_text(MANIFEST % more)
    nightly.apply = lambda _: [job_pb2.ApplyResult(kind="Workflow", name="nightly", action="created")]
    found = rnx("apply", "--wait", "-f", tmp_path / "flow.yml")
    assert (found.code, found.out) == (code, f"workflow/nightly created\n{said}"), found.err


def test_a_wait_has_a_bound(rnx: Rnx, answers: Answers) -> None:
    answers.resources["Workflow/nightly"] = workflow("Running", ("extract", "RUNNING", "runextr1"), ended=False)
    found = rnx("wait", "workflow/nightly", "--timeout", "50ms")
    assert found.code == 124 and "workflow/nightly is Running (1/2 steps over) after 50ms" in found.err


def test_a_stop_means_all_of_it(rnx: Rnx, nightly: Answers) -> None:
    assert rnx("stop", "workflow/nightly", "--force").out == "workflow/nightly run 3 stopping\n"
    (asked,) = nightly.asked(resource_pb2.StopWorkflowRequest)
    assert (asked.name, asked.force) == ("nightly", True)
    nightly.resources["Workflow/nightly"] = workflow("Stopped", *BOTH)
    assert rnx("stop", "--wait", "workflow/nightly").out.endswith("workflow/nightly run 3 Stopped\n")
    assert "run runextr1 stopping" in rnx("stop", "job/nightly-extract").out


def test_each_line_of_its_output_begins_with_its_step_and_none_is_broken(rnx: Rnx, nightly: Answers) -> None:
    found = rnx("log", "workflow/nightly", "--tail", "5")
    assert found.out == "extract  rows of monday\nextract  more\nload  no end\n"
    assert (found.err, found.code) == ("extract  warned\n", 0)
    assert {request.tail_lines for request in nightly.asked(job_pb2.LogsRequest)} == {5}
    assert rnx("log", "workflow/nightly", "--attempt", "2").code == 2


def test_who_follows_sees_steps_as_they_begin_until_the_run_has_ended(rnx: Rnx, nightly: Answers) -> None:
    nothing = workflow("Scheduled", run=0)
    first = workflow("Running", ("extract", "RUNNING", "runextr1"), ("load", "WAITING", ""), ended=False)
    nightly.resources["Workflow/nightly"] = nothing
    nightly.changes = [[nothing, first, first, workflow("Failed", *BOTH)]]
    nightly.jobs["nightly-extract"] = make_job("nightly-extract", make_run("runextr1", phase="RUNNING"))
    found = rnx("log", "-f", "workflow/nightly")
    assert sorted(found.out.splitlines()) == ["extract  more", "extract  rows of monday", "load  no end"]
    assert len(nightly.asked(job_pb2.LogsRequest)) == 2


def test_who_follows_leaves_it_to_the_next_run_when_another_one_takes_its_place(rnx: Rnx, nightly: Answers) -> None:
    nightly.resources["Workflow/nightly"] = workflow("Running", BOTH[0], ended=False)
    nightly.changes = [[workflow("Running", ("load", "RUNNING", "runload1"), run=4, ended=False)]]
    assert rnx("log", "-f", "workflow/nightly").out == "extract  rows of monday\nextract  more\n"


@pytest.mark.parametrize(
    ("last", "code", "said"),
    [
        (workflow("Succeeded", *BOTH), 0, ""),
        (workflow("Failed", *BOTH), 1, "rnx: workflow/nightly run 3 Failed: load FAILED (ExitCode)\n"),
        (workflow("Running", run=4, ended=False), 125, "rnx: run 4 of workflow/nightly took the place of run 3\n"),
    ],
)
def test_who_runs_one_and_waits_has_its_output_and_an_exit_code_through_a_restart(
    rnx: Rnx, nightly: Answers, last: resource_pb2.Resource, code: int, said: str
) -> None:
    begun = workflow("Running", ("extract", "RUNNING", "runextr1"), ended=False)
    almost = workflow("Running", *BOTH, ended=False)
    nightly.resources["Workflow/nightly"] = begun
    nightly.changes = [[begun], refusal(grpc.StatusCode.UNAVAILABLE, "no"), [almost, last], [last]]
    nightly.hold.set()  # a stream ends with what it tells
    found = rnx("run", "--workflow", "nightly", "--wait")
    nightly.hold.clear()
    assert sorted(found.out.splitlines()) == ["extract  more", "extract  rows of monday", "load  no end"]
    assert (found.code, found.err.removeprefix("extract  warned\n").startswith(said)) == (code, True), found
    (asked,) = nightly.asked(resource_pb2.RetryWorkflowRequest)
    assert (asked.name, asked.whole, asked.force) == ("nightly", True, False)


def test_a_run_that_waits_in_the_line_is_not_waited_for(rnx: Rnx, nightly: Answers) -> None:
    nightly.place = 2
    found = rnx("run", "--workflow", "nightly", "--wait")
    assert (found.code, found.out) == (6, "")
    assert "runs again after run 3 has ended (place 2 in the line)" in found.err
    assert rnx("run", "--workflow", "nightly", "--json").code == 2


def test_an_output_that_is_gone_keeps_no_other_from_being_shown(rnx: Rnx, nightly: Answers) -> None:
    nightly.logs_of["runextr1"] = refusal(grpc.StatusCode.FAILED_PRECONDITION, "the output was removed")
    found = rnx("log", "workflow/nightly")
    assert (found.out, found.code) == ("load  no end\n", 6)
    assert "rnx: extract: the output was removed" in found.err


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_of_an_array_the_output_of_all_indexes_is_shown(rnx: Rnx, answers: Answers, follow: tuple[str, ...]) -> None:
    run = array_run("COMPLETED", count=3)
    run.job, run.array.first = "sweep", 4
    answers.jobs["sweep"] = make_job("sweep", run)
    answers.indexes = [index(4, "SUCCEEDED"), index(5, "FAILED"), index(6, "SKIPPED")]
    answers.indexes[2].ClearField("run")
    answers.logs_of = {"run00004": [entry(b"four\n")], "run00005": [entry(b"five\n", stream="stderr")]}
    answers.watch = [[job_pb2.WatchEvent(type=job_pb2.WatchEvent.ADDED, job=answers.jobs["sweep"])]]
    found = rnx("log", *follow, "sweep")
    assert (found.out, found.err, found.code) == ("sweep.4  four\n", "sweep.5  five\n", 0)
    assert rnx("log", "sweep", "--attempt", "1").code == 2


def test_the_indexes_of_a_step_are_told_apart(rnx: Rnx, nightly: Answers) -> None:
    nightly.jobs["nightly-load"] = make_job("nightly-load", array_run("COMPLETED", count=2))
    nightly.jobs["nightly-load"].runs[0].id = "runload1"
    nightly.indexes = [index(0, "SUCCEEDED"), index(1, "SUCCEEDED")]
    nightly.logs_of |= {"run00000": [entry(b"zero\n")], "run00001": [entry(b"one\n")]}
    assert rnx("log", "workflow/nightly").out.endswith("extract  more\nload.0  zero\nload.1  one\n")


@pytest.mark.parametrize("command", ["status", "log", "stop", "wait", "why", "describe", "events"])
def test_a_job_may_be_named_with_its_kind(rnx: Rnx, answers: Answers, command: str) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    answers.watch = [[job_pb2.WatchEvent(type=job_pb2.WatchEvent.ADDED, job=answers.jobs["hello"])]]
    assert rnx(command, "job/hello").code == 0


@pytest.mark.parametrize("command", ["status", "log", "stop", "wait", "why"])
def test_what_does_not_run_is_refused_with_the_way_to_see_it(rnx: Rnx, answers: Answers, command: str) -> None:
    found = rnx(command, "volume/data")
    assert found.code == 2 and "a Volume does not run" in found.err and "rnx describe volume/data" in found.err
    misspelt = rnx(command, "workfow/nightly")
    assert misspelt.code == 2 and "did you mean workflow?" in misspelt.err


def test_status_of_a_job_loads_no_models_for_its_name(service: Running, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    code = f"""
import sys
from rnx.main import run
run(["--config", {str(service.directory / "rnx-config.yml")!r}, "status", "job/hello", "-o", "name"])
print(*(name for name in ("pydantic", "rich", "joblet.manifest") if name in sys.modules), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"k3x9q2ab\n", b"\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("status ", [b"hello", b"workflow/nightly"]),
        ("log work", [b"workflow/nightly"]),
        ("wait job/", [b"job/hello"]),
        ("delete workflow/n", [b"workflow/nightly"]),
        ("run --workflow ni", [b"nightly"]),
        ("run --job he", [b"hello"]),
    ],
)
def test_shells_complete_workflows_too(service: Running, answers: Answers, words: str, expected: list[bytes]) -> None:
    answers.jobs = {"hello": make_job("hello")}
    answers.resources = {"Workflow/nightly": workflow()}
    line = f"rnx --config {service.directory / 'rnx-config.yml'} {words}"
    ended = call(_RNX_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(line.count(" ")))
    assert ended.stdout.split() == expected, ended

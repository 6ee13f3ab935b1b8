"""Schedules as the client makes and shows them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from joblet.api.v1 import job_pb2
from joblet.manifest import jobs_of, read_manifests
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import Answers, make_job, make_run

NEXT = Timestamp(seconds=1_800_000_000)  # 2027-01-15T08:00:00Z


def awaited(answers: Answers, name: str = "later") -> job_pb2.Job:
    job = make_job(name)
    del job.runs[:]
    job.next_tick.CopyFrom(NEXT)
    answers.jobs[name] = job
    answers.apply = lambda request: [job_pb2.ApplyResult(name=name, action="created")]
    return job


@pytest.mark.parametrize(
    ("typed", "seconds"), [("2099-01-31T02:00:00+01:00", None), ("90m", 5400), ("1d", 86_400), ("1s", 1)]
)
def test_run_with_a_schedule_answers_with_the_job_and_its_time(
    rnx: Rnx, answers: Answers, typed: str, seconds: int | None
) -> None:
    awaited(answers)
    before = time.time()
    said = rnx("run", "--schedule", typed, "true")
    assert said.out.splitlines() == [
        "ID:            later",
        "Status:        SCHEDULED",
        "StartTime:     2027-01-15T08:00:00Z",
    ]
    (request,) = answers.asked(job_pb2.ApplyRequest)
    (manifest,) = jobs_of(read_manifests(request.manifest, filename="run"))
    assert manifest.spec.schedule is not None
    at = manifest.spec.schedule.at
    if seconds is None:
        assert at == 4_073_504_400  # 2099-01-31T01:00:00Z
    else:
        assert at is not None and before + seconds <= at <= time.time() + seconds + 1
    assert json.loads(rnx("run", "--json", "--schedule", typed, "true").out)["status"] == "SCHEDULED"


def test_a_job_that_waits_for_its_first_run_is_shown_as_scheduled(rnx: Rnx, answers: Answers) -> None:
    awaited(answers)
    status = rnx("status", "later").out
    assert "Status:        SCHEDULED\nNext Run:      2027-01-15T08:00:00Z" in status
    assert json.loads(rnx("status", "later", "--json").out)["nextTick"].startswith("2027-01-15T08:00:00")
    assert "SCHEDULED" in rnx("list").out
    assert "SCHEDULED" in rnx("get").out


def test_a_run_of_a_schedule_shows_its_tick_and_the_next_one(rnx: Rnx, answers: Answers) -> None:
    run = make_run(job="nightly")
    run.tick.CopyFrom(Timestamp(seconds=1_799_913_600))
    job = make_job("nightly", run)
    job.next_tick.CopyFrom(NEXT)
    answers.jobs["nightly"] = job
    status = rnx("status", "nightly").out
    assert "Scheduled:     2027-01-14T08:00:00Z" in status
    assert "Next Run:      2027-01-15T08:00:00Z" in status


def test_apply_waits_for_no_run_that_comes_by_a_schedule(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    awaited(answers, "nightly")
    path = tmp_path / "job.yml"
    path.write_text(
        "{apiVersion: joblet/v1, kind: Job, metadata: {name: nightly}, spec: {command: [x], schedule: {every: 1d}}}"
    )
    assert rnx("apply", "--wait", "-f", str(path)).code == 0
    assert not answers.asked(job_pb2.WatchRequest)


def test_force_is_passed_on(rnx: Rnx, answers: Answers) -> None:
    run = make_run(job="nightly")
    answers.jobs["nightly"] = make_job("nightly", run)
    answers.jobs[run.id] = answers.jobs["nightly"]
    rnx("run", "--job", "nightly", "--force")
    rnx("run", "--job", "nightly")
    assert [request.force for request in answers.asked(job_pb2.RunRequest)] == [True, False]


def preview(rnx: Rnx, directory: Path, schedule: str, *flags: str) -> list[list[str]]:
    path = directory / "job.yml"
    path.write_text(
        "{apiVersion: joblet/v1, kind: Job, metadata: {name: nightly}, "
        f"spec: {{command: ['true'], schedule: {schedule}}}}}"
    )
    said = rnx("schedule", "preview", str(path), *flags)
    assert said.code == 0, said.err
    return [line.split("  ") for line in said.out.splitlines()[1:]]


BERLIN = '{cron: "30 2 * * *", timezone: Europe/Berlin}'


def test_a_preview_shows_local_time_and_utc_and_marks_what_the_change_of_clocks_does(rnx: Rnx, tmp_path: Path) -> None:
    assert preview(rnx, tmp_path, BERLIN, "--next", "3", "--after", "2027-03-27T00:00:00Z") == [
        ["2027-03-27T02:30:00+01:00", "2027-03-27T01:30:00Z", "-"],
        [
            "2027-03-28T03:00:00+02:00",
            "2027-03-28T01:00:00Z",
            "clocks went forward by 1h at 02:00; 02:30 does not exist on that day",
        ],
        ["2027-03-29T02:30:00+02:00", "2027-03-29T00:30:00Z", "-"],
    ]
    autumn = preview(rnx, tmp_path, BERLIN, "--next", "2", "--after", "2026-10-25T00:00:00Z")
    assert [row[2] for row in autumn] == ["02:30 comes twice: the first", "clocks went back by 1h at 03:00"]
    by_the_clock = '{cron: "30 * * * *", timezone: Europe/Berlin}'
    hourly = preview(rnx, tmp_path, by_the_clock, "--next", "2", "--after", "2026-10-25T00:00:00Z")
    assert [row[2].rpartition("; ")[2] for row in hourly] == [
        "02:30 comes twice: the first",
        "02:30 comes twice: the second",
    ]


def test_a_preview_needs_no_daemon_and_counts_jitter_in(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    rows = preview(rnx, tmp_path, "{every: 1h, jitter: 10m}", "--next", "20")
    assert len(rows) == 20
    assert len({row[1][14:] for row in rows}) == 1
    assert not answers.requests


def test_a_manifest_without_a_schedule_has_no_preview(rnx: Rnx, tmp_path: Path) -> None:
    path = tmp_path / "job.yml"
    path.write_text("{apiVersion: joblet/v1, kind: Job, metadata: {name: a}, spec: {command: ['true']}}")
    said = rnx("schedule", "preview", str(path))
    assert (said.code, said.err.splitlines()[0]) == (2, f"rnx: {path}: no job or workflow of it has a schedule")


def test_a_preview_takes_workflows_beside_jobs(rnx: Rnx, tmp_path: Path) -> None:
    path = tmp_path / "all.yml"
    path.write_text(
        "{apiVersion: joblet/v1, kind: Workflow, metadata: {name: nightly}, spec: {schedule: {cron: '30 2 * * *', "
        "timezone: Europe/Berlin}, steps: [{name: a, job: {command: [x]}}]}}\n---\n"
        "{apiVersion: joblet/v1, kind: Job, metadata: {name: nightly}, spec: {command: [x], schedule: {every: 1d}}}\n"
    )
    shown = json.loads(rnx("schedule", "preview", str(path), "--after", "2027-03-27T12:00:00Z", "--json").out)
    assert list(shown) == ["workflow/nightly", "nightly"]
    assert shown["workflow/nightly"][0]["utc"] == "2027-03-28T01:00:00Z"
    assert "does not exist on that day" in shown["workflow/nightly"][0]["remarks"][0]


def test_wide_tables_show_the_next_run_of_what_has_a_schedule(rnx: Rnx, answers: Answers) -> None:
    awaited(answers)
    run = make_run(job="nightly")
    answers.jobs["nightly"] = make_job("nightly", run)
    answers.jobs["nightly"].next_tick.CopyFrom(NEXT)
    answers.jobs["once"] = make_job("once", make_run("abcd1234", job="once"))
    for command in (("list",), ("get", "jobs")):
        head, *rows = rnx(*command, "-o", "wide").out.splitlines()
        begin = head.index("NEXT")
        shown = {next(word for word in row.split() if word in answers.jobs): row[begin:].split()[0] for row in rows}
        assert shown == {"later": "2027-01-15T08:00:00Z", "nightly": "2027-01-15T08:00:00Z", "once": "-"}, command

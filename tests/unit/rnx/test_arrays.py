"""Arrays as people see them: in lists, index by index, in one paragraph; and what they may ask to run again."""

from __future__ import annotations

import json

import pytest

from joblet.api.v1 import job_pb2
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import Answers, entry, make_job, make_run

FAILED = (7, 8)


def array_run(phase: str = "RUNNING", count: int = 100, **more: int | str) -> job_pb2.Run:
    run = make_run(phase=phase)
    run.ClearField("exit_code")
    counts = {"succeeded": 42, "running": 8, "failed": 2, "not_begun": 48, **more}
    run.array.CopyFrom(job_pb2.ArrayStatus(count=count, needed=count, parallel=8, failed_indexes="7-8", **counts))  # type: ignore[arg-type]
    return run


def index(number: int, state: str, **more: str) -> job_pb2.Index:
    one = job_pb2.Index(index=number, state=state, values=more)
    if state != "NOT_BEGUN":
        phase = {"SUCCEEDED": "COMPLETED"}.get(state, state)
        one.run.CopyFrom(make_run(f"run0000{number}", phase=phase))
        one.run.index = number
        one.run.attempts.add(id=f"{one.run.id}-1", number=1, phase=phase)
    if state == "FAILED":
        one.run.reason, one.run.message, one.run.exit_code = "ExitCode", "exited with code 3", 3
    return one


@pytest.fixture
def array(answers: Answers) -> Answers:
    answers.jobs["hello"] = make_job("hello", array_run())
    answers.indexes = [
        index(number, "FAILED" if number in FAILED else "RUNNING" if number > 90 else "SUCCEEDED")
        for number in range(100)
    ]
    return answers


@pytest.mark.parametrize("arguments", [("list",), ("get", "jobs"), ("status", "hello"), ("tree",)])
def test_a_summary_says_how_many_came_to_what(rnx: Rnx, array: Answers, arguments: tuple[str, ...]) -> None:
    assert "42/100 succeeded, 8 running, 2 failed" in rnx(*arguments).out


def test_of_a_large_array_those_that_did_not_simply_succeed_are_shown(rnx: Rnx, array: Answers) -> None:
    lines = rnx("status", "hello").out.splitlines()
    table = lines[lines.index("Indexes:") + 1 :]
    assert [line.split()[0] for line in table[:4]] == ["INDEX", "7", "8", "91"]
    assert "... and 89 more; rnx status hello --indexes shows all" in table[-1]
    tree = rnx("tree").out
    assert "index 7 FAILED ExitCode exit 3" in tree and "index 6 " not in tree


def test_every_index_is_shown_to_who_asks(rnx: Rnx, array: Answers) -> None:
    assert len(rnx("status", "hello", "--indexes").out.splitlines()) == 101
    failed = json.loads(rnx("status", "hello", "--state", "failed", "--json").out)
    assert [(one["index"], one["run"]["exitCode"]) for one in failed] == [(7, 3), (8, 3)]
    assert rnx("status", "hello", "--state", "failed", "-o", "name").out == "7\n8\n"
    status = json.loads(rnx("status", "hello", "--json").out)
    assert (status["array"]["succeeded"], status["array"]["failedIndexes"], status["index"]) == (42, "7-8", None)


def test_a_small_array_with_a_matrix_is_shown_with_its_values(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", array_run(count=2))
    answers.indexes = [index(0, "SUCCEEDED", os="a", size="1"), index(1, "NOT_BEGUN", os="a", size="2")]
    out = rnx("status", "hello").out
    assert "VALUES" in out and out.count("os=a size=") == 2 and "more; rnx status" not in out


def test_why_names_the_failed_indexes_and_quotes_the_first(rnx: Rnx, array: Answers) -> None:
    array.jobs["hello"] = make_job("hello", array_run("FAILED", succeeded=98, running=0, not_begun=0))
    array.logs = [[entry(b"no such frame\n")]]
    said = " ".join(rnx("why", "hello").out.split())
    assert said == (
        "Job hello failed at 2026-01-02T03:03:07Z after 2.50s (run k3x9q2ab): 98/100 succeeded, 2 failed. Failed: 7-8. "
        "Index 7 (run run00007): ExitCode, exited with code 3. Index 8 (run run00008): ExitCode, exited with code 3. "
        'The last it wrote: "no such frame". rnx retry hello runs anew what did not succeed.'
    )


def test_an_index_is_named_after_a_dot_or_by_an_option(rnx: Rnx, array: Answers) -> None:
    assert rnx("log", "hello", "--index", "7").code == 3  # the service knows no such name: it is asked for hello.7
    assert array.asked(job_pb2.GetRequest)[-1].ref == "hello.7"


@pytest.mark.parametrize("named", [("hello.7",), ("hello", "--index", "7")])
def test_who_follows_an_index_waits_until_it_begins(rnx: Rnx, array: Answers, named: tuple[str, ...]) -> None:
    array.jobs["hello.7"] = make_job("hello.7", make_run("index007"))
    change = job_pb2.WatchEvent(type=job_pb2.WatchEvent.MODIFIED, job=array.jobs["hello"])
    array.watch = [[change, change, change]]
    array.indexes = [index(7, "NOT_BEGUN")]
    array.later_indexes = [[index(7, "NOT_BEGUN")], [index(7, "RUNNING")]]
    array.logs = [[entry(b"begin\n")]]
    assert rnx("log", "-f", *named).out == "begin\n"
    assert len(array.asked(job_pb2.IndexesRequest)) == 3


@pytest.mark.parametrize(
    ("arguments", "ranges"),
    [
        (("hello",), []),
        (("job/hello",), []),
        (("hello", "--index", "3, 5-9"), [(3, 3), (5, 9)]),
    ],
)
def test_a_retry_names_what_is_to_run_again(
    rnx: Rnx, array: Answers, arguments: tuple[str, ...], ranges: list[tuple[int, int]]
) -> None:
    found = rnx("retry", *arguments)
    assert "2 indexes run again (run newrun00)" in found.out, found.err
    (request,) = array.asked(job_pb2.RetryRequest)
    assert [(one.first, one.last) for one in request.indexes] == ranges


def test_a_workflow_is_retried_as_before_and_a_name_that_means_two_things_is_asked_about(
    rnx: Rnx, array: Answers
) -> None:
    array.workflows = {"nightly", "hello"}
    for arguments in (("nightly",), ("hello", "--from", "load"), ("workflow/hello",)):
        assert "runs again (run 3)" in rnx("retry", *arguments).out
    unclear = rnx("retry", "hello")
    assert unclear.code == 2 and "rnx retry job/hello, or workflow/hello" in unclear.err
    assert array.asked(job_pb2.RetryRequest) == []
    assert "run again" in rnx("retry", "job/hello").out


@pytest.mark.parametrize("text", ["x", "3-", "-3", "9-5", "1,,2", "1٣"])
def test_what_is_no_range_of_indexes_is_refused(rnx: Rnx, array: Answers, text: str) -> None:
    found = rnx("retry", "hello", f"--index={text}")
    assert found.code == 2 and "write 3,5-9" in found.err


def test_who_waits_gets_the_arrays_outcome(rnx: Rnx, array: Answers) -> None:
    run = array_run("FAILED")
    run.reason = "IndexesFailed"
    array.jobs["hello"] = make_job("hello", run)
    array.watch = [[job_pb2.WatchEvent(type=job_pb2.WatchEvent.ADDED, job=array.jobs["hello"])]]
    assert rnx("wait", "hello").code == 1

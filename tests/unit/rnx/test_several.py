"""Several nodes at once: one table, each failure with its node, and an exit code that says what went wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import grpc
import pytest
import yaml

from joblet.api.v1 import job_pb2
from rnx import several
from rnx.failures import ClientError, NotFound, Unreachable
from rnx.several import Several
from tests.ports import held_port
from tests.timing import PATIENCE
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import Answers, Running, entry, make_job, make_run, refusal, serve
from tests.unit.rnx.test_workflows import workflow


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(tmp_path_factory.mktemp("second")) as running:
        yield running


@pytest.fixture
def other(second: Running) -> Answers:
    for one in fields(Answers):
        setattr(second.answers, one.name, getattr(Answers(), one.name))
    return second.answers


@pytest.fixture
def nodes(service: Running, second: Running, other: Answers, tmp_path: Path) -> Iterator[Path]:
    """Nodes a and b that answer, and one that is away. The fixture ``answers`` is a's, ``other`` is b's."""
    found = {}
    for name, running in (("a", service), ("b", second)):
        found[name] = yaml.safe_load(running.config(f"{name}.yml").read_text())["nodes"]["default"]
    with held_port() as closed:
        found["away"] = {**found["a"], "address": f"127.0.0.1:{closed}"}
        path = tmp_path / "rnx-config.yml"
        path.touch(0o600)
        path.write_text(yaml.safe_dump({"version": "3.0", "nodes": found}, sort_keys=False))
        yield path


def test_a_workflow_is_looked_at_followed_and_waited_for_on_all_nodes_that_have_it(
    rnx: Rnx, answers: Answers, other: Answers, nodes: Path
) -> None:
    for one, phase in ((answers, "Succeeded"), (other, "Failed")):
        one.resources["Workflow/nightly"] = workflow(phase, ("extract", "COMPLETED", "runextr1"))
        one.jobs["nightly-extract"] = make_job("nightly-extract", make_run("runextr1"))
        one.logs_of["runextr1"] = [entry(b"rows\n")]
    both = ("--node", "a,b")
    rows = [line.split() for line in rnx("status", "workflow/nightly", *both, config=nodes).out.splitlines()]
    assert [(row[0], row[1], row[3]) for row in rows[1:]] == [("a", "nightly", "Succeeded"), ("b", "nightly", "Failed")]
    data = json.loads(rnx("status", "workflow/nightly", "--json", *both, config=nodes).out)
    assert [(one["node"], one["status"]) for one in data] == [("a", "Succeeded"), ("b", "Failed")]
    followed = rnx("log", "-f", "workflow/nightly", *both, config=nodes).out
    assert sorted(followed.splitlines()) == ["a  extract  rows", "b  extract  rows"]
    waited = rnx("wait", "workflow/nightly", *both, config=nodes)
    assert waited.code == 1 and "b  workflow/nightly run 3 Failed" in waited.out
    del other.resources["Workflow/nightly"]
    assert rnx("wait", "workflow/nightly", *both, config=nodes).code == 0


def test_jobs_of_several_nodes_are_one_table_with_the_node_of_each(
    rnx: Rnx, answers: Answers, other: Answers, nodes: Path
) -> None:
    answers.jobs = {"web": make_job("web", make_run(job="web", phase="RUNNING")), "x": make_job("x")}
    other.jobs = {"web": make_job("web", make_run("zzzz9999", job="web"))}
    said = rnx("get", "jobs", "--node", "b,a", config=nodes)
    assert (said.code, said.err) == (0, "")
    header, *rows = [line.split() for line in said.out.splitlines()]
    assert header[:3] == ["NODE", "NAME", "STATUS"]
    assert [row[:3] for row in rows] == [["b", "web", "COMPLETED"], ["a", "web", "RUNNING"], ["a", "x", "-"]]
    data = json.loads(rnx("get", "web", "--node", "a,b", "--json", config=nodes).out)
    assert [(one["node"], one["metadata"]["name"], one["status"]["runs"][0]["id"]) for one in data] == [
        ("a", "web", "k3x9q2ab"),
        ("b", "web", "zzzz9999"),
    ]
    assert rnx("list", "--node", "a,b", "-o", "name", config=nodes).out == "a/job/web\na/job/x\nb/job/web\n"
    assert rnx("list", "--node", "a,b", config=nodes).out.splitlines()[0].split()[:3] == ["NODE", "ID", "NAME"]
    status = rnx("--node", "a,b", "status", "web", "-o", "wide", config=nodes).out.splitlines()
    assert [line.split()[:3] for line in status[1:]] == [["a", "k3x9q2ab", "web"], ["b", "zzzz9999", "web"]]


def test_a_node_that_is_away_keeps_no_other_from_answering_and_is_told_with_its_name(
    rnx: Rnx, answers: Answers, nodes: Path
) -> None:
    answers.jobs = {"web": make_job("web")}
    said = rnx("list", "--all-nodes", config=nodes)
    assert said.code == 4 and [line.split()[0] for line in said.out.splitlines()[1:]] == ["a"]
    assert said.err.startswith("rnx: away: 127.0.0.1:") and said.err.count("rnx:") == 1


def test_what_one_node_does_not_have_is_no_failure_and_what_none_has_is_one(
    rnx: Rnx, answers: Answers, other: Answers, nodes: Path
) -> None:
    other.jobs = {"web": make_job("web", make_run(job="web"))}
    for words in (("get", "web"), ("status", "web"), ("delete", "web")):
        said = rnx(*words, "--node", "a,b", config=nodes)
        assert (said.code, said.err) == (0, ""), words
    for words in (
        ("get", "nothing"),
        ("status", "nothing"),
        ("delete", "nothing"),
        ("log", "nothing"),
        ("wait", "nothing"),
    ):
        said = rnx(*words, "--node", "a,b", config=nodes)
        assert said.code == 3 and "nothing" in said.err and said.out == "", words
    assert rnx("delete", "nothing", "--ignore-not-found", "--node", "a,b", config=nodes).code == 0


def test_an_apply_goes_to_each_node_and_one_that_refuses_keeps_no_other_from_it(
    rnx: Rnx, answers: Answers, other: Answers, nodes: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yml").write_text(make_job(name).manifest)

    def applied(request: job_pb2.ApplyRequest) -> list[job_pb2.ApplyResult]:
        name = Path(request.filename).stem
        return [job_pb2.ApplyResult(kind="Job", name=name, action="created", consequence="starts a run")]

    answers.apply = other.apply = applied
    files = ("-f", tmp_path / "one.yml", "-f", tmp_path / "two.yml")
    said = rnx("apply", *files, "--node", "a,b", config=nodes)
    assert said.code == 0, said.err
    assert [line.split()[:3] for line in said.out.splitlines()] == [
        ["NODE", "NAME", "ACTION"],
        *[[node, f"job/{name}", "created"] for node in ("a", "b") for name in ("one", "two")],
    ]
    answers.refusals = {"Apply": refusal(grpc.StatusCode.FAILED_PRECONDITION, "one belongs to spool:one.yml")}
    before = len(other.requests)
    said = rnx("apply", *files, "--node", "a,b", "-o", "json", config=nodes)
    assert said.code == 6 and "rnx: a:" in said.err and "belongs to spool:one.yml" in said.err
    assert [(one["node"], one["name"]) for one in json.loads(said.out)] == [("b", "one"), ("b", "two")]
    assert [request.dry_run for request in other.requests[before:]] == [True, True, False, False]
    (tmp_path / "two.yml").write_text("kind: Job")
    assert rnx("apply", *files, "--node", "a,b", config=nodes).code == 2, "what is wrong in itself goes nowhere"
    assert len(other.requests) == before + 4


def test_each_line_of_a_log_begins_with_its_node(rnx: Rnx, answers: Answers, other: Answers, nodes: Path) -> None:
    for one, text in ((answers, b"from a\nmore\n"), (other, b"from b\nno end of line")):
        one.jobs = {"web": make_job("web", make_run(job="web"))}
        one.logs = [[entry(text[:3], partial=True), entry(text[3:]), entry(b"err\n", stream="stderr")]]
    said = rnx("log", "web", "--node", "a,b", config=nodes)
    assert said.code == 0
    assert sorted(said.out.splitlines()) == ["a  from a", "a  more", "b  from b", "b  no end of line"]
    assert sorted(said.err.splitlines()) == ["a  err", "b  err"]


def test_events_are_in_the_order_of_their_time(rnx: Rnx, answers: Answers, other: Answers, nodes: Path) -> None:
    for one, seconds in ((answers, (1, 5)), (other, (3,))):
        for second in seconds:
            event = job_pb2.Event(job="web", reason=f"At{second}", type="Normal", count=1)
            event.last.FromSeconds(1_767_322_985 + second)
            one.events.append(event)
    rows = [line.split() for line in rnx("events", "--node", "a,b", config=nodes).out.splitlines()]
    place = rows[0].index("REASON")
    assert [row[0] for row in rows[1:]] == ["a", "b", "a"]
    assert [next(word for word in row if word.startswith("At")) for row in rows[1:]] == [
        "At1",
        "At3",
        "At5",
    ] and place > 0


def test_waiting_ends_when_it_came_to_that_on_every_node(
    rnx: Rnx, answers: Answers, other: Answers, nodes: Path
) -> None:
    done, failed = make_run(job="web"), make_run(job="web", phase="FAILED", exit_code=3, reason="ExitCode")
    for one, run in ((answers, done), (other, failed)):
        one.jobs = {"web": make_job("web", run)}
        one.watch = [[job_pb2.WatchEvent(type="ADDED", job=one.jobs["web"])]] * 2
    said = rnx("wait", "web", "--node", "a,b", config=nodes)
    assert said.code == 1 and sorted(said.out.splitlines()) == [
        "a  job/web COMPLETED (Completed)",
        "b  job/web FAILED (ExitCode)",
    ]
    assert rnx("wait", "web", "--for", "finished", "--node", "a,b", config=nodes).code == 0


def test_commands_about_one_node_say_so_and_names_are_checked(rnx: Rnx, nodes: Path) -> None:
    for words in (("stop", "x", "--node", "a,b"), ("--all-nodes", "describe", "x"), ("--all-nodes", "drain")):
        said = rnx(*words, config=nodes)
        assert said.code == 2 and "talks to one node" in said.err, words
    said = rnx("list", "--node", "a,c", config=nodes)
    assert said.code == 2 and "has no node 'c'" in said.err
    said = rnx("list", "--node", "a", "--all-nodes", config=nodes)
    assert said.code == 2 and "exclude each other" in said.err


def test_so_many_are_asked_at_a_time_and_no_more() -> None:
    names = [f"n{number}" for number in range(3 * several.AT_ONCE)]
    asking, most, lock = 0, 0, threading.Lock()
    full = threading.Event()

    def work(_: str, daemon: object) -> None:
        nonlocal asking, most
        with lock:
            asking += 1
            most = max(most, asking)
            if asking == several.AT_ONCE:
                full.set()
        assert full.wait(10 * PATIENCE), "they are asked in parallel"
        with lock:
            asking -= 1

    nodes = Several(dict.fromkeys(names, lambda: None))  # type: ignore[arg-type, return-value]
    assert list(nodes.ask(work)) == names and most == several.AT_ONCE


@pytest.mark.parametrize(
    ("errors", "codes", "expected"),
    [
        ((), (), 0),
        ((), (0, 0), 0),
        ((Unreachable,), (0,), 4),
        ((Unreachable, Unreachable), (), 4),
        ((Unreachable, NotFound), (), 1),
        ((), (7, 0, 7), 7),
        ((Unreachable,), (7,), 1),
    ],
)
def test_the_exit_code_is_that_of_the_failures_and_1_if_they_differ(
    errors: tuple[type[ClientError], ...], codes: tuple[int, ...], expected: int
) -> None:
    nodes = Several({})
    nodes.failures = {f"n{number}": kind("is wrong") for number, kind in enumerate(errors)}
    assert nodes.tell(*codes) == expected

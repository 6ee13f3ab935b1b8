"""What list, get, status, describe and events print, literally."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest
import yaml

from joblet.api.v1 import job_pb2, node_pb2, resource_pb2
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import MANIFEST, STARTED, Answers, Running, make_job, make_run


def limited_run() -> job_pb2.Run:
    run = make_run(phase="FAILED", reason="OOMKilled", message="the memory limit of 64Mi was exceeded", exit_code=137)
    run.signal = "SIGKILL"
    attempt = run.attempts.add(id="hello-k3x9q2ab-1", number=1, phase="FAILED", reason="OOMKilled", exit_code=137)
    attempt.ended.FromSeconds(STARTED + 2)
    attempt.usage.memory_peak_bytes = 64 << 20
    attempt.usage.cpu_seconds = 1.25
    attempt.usage.oom_kills = 1
    attempt.limits.add(name="memory", asked="64Mi", effective="67108864", enforced=True)
    attempt.limits.add(name="io.read", asked="10Mi", effective="", enforced=False, message="no io controller")
    return run


def test_status_prints_its_lines(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    said = rnx("status", "hello")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "ID:            k3x9q2ab",
        "Job:           hello",
        "Command:       echo hi",
        "Status:        COMPLETED",
        "Reason:        Completed",
        "Created:       2026-01-02T03:03:04Z",
        "Started:       2026-01-02T03:03:05Z",
        "Ended:         2026-01-02T03:03:07Z",
        "Duration:      2.50s",
        "Exit Code:     0",
        "Attempts:      0",
        "Generation:    1",
        "Source:        grpc:admin",
    ]


def test_status_shows_limits_as_asked_and_as_read_back_and_what_was_used(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", limited_run())
    lines = rnx("status", "k3x9").out.splitlines()
    for expected in (
        "Status:        FAILED",
        "Reason:        OOMKilled",
        "Message:       the memory limit of 64Mi was exceeded",
        "Exit Code:     137",
        "Signal:        SIGKILL",
        "Memory Peak:   64.0 MiB",
        "CPU Time:      1.250s",
        "OOM Kills:     1",
        "  memory   asked 64Mi  effective 67108864",
        "  io.read  asked 10Mi  effective -         NOT ENFORCED: no io controller",
    ):
        assert expected in lines


def test_status_of_a_waiting_run_names_its_place_in_the_queue(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(phase="PENDING", reason="Queued", queue_position=3))
    out = rnx("status", "hello").out
    assert "Queue:         place 3\n" in out
    assert "\nStarted:\nEnded:\nDuration:\nExit Code:\n" in out


def test_status_in_json_has_every_key(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", limited_run())
    data = json.loads(rnx("status", "hello", "--json").out)
    assert (data["id"], data["status"], data["exitCode"], data["durationSeconds"]) == ("k3x9q2ab", "FAILED", 137, 2.5)
    assert data["started"] == "2026-01-02T03:03:05.000000000Z"
    assert data["nextAttempt"] is None
    usage = data["attempts"][0]["usage"]
    assert (usage["memoryPeakBytes"], usage["memoryBytes"]) == (64 << 20, None)


def test_list_shows_a_plain_table_that_cuts_nothing_off(rnx: Rnx, answers: Answers) -> None:
    long = ["sh", "-c", "x" * 300]
    run = make_run("aaaa1111", job="b", phase="RUNNING")
    run.command[:] = long
    run.started.GetCurrentTime()
    answers.jobs = {"b": make_job("b", run), "a": make_job("a", make_run()), "idle": make_job("idle", suspend=True)}
    header, first, second, third = rnx("list").out.splitlines()
    assert header.split() == ["ID", "NAME", "STATUS", "STARTED", "DURATION", "EXIT", "COMMAND"]
    assert first.split() == ["k3x9q2ab", "a", "COMPLETED", "2026-01-02T03:03:05Z", "2.50s", "0", "echo", "hi"]
    assert second.endswith("x" * 300) and second.split()[:3] == ["aaaa1111", "b", "RUNNING"]
    assert third.split() == ["-", "idle", *["-"] * 5]


def test_list_asks_for_every_page(rnx: Rnx, answers: Answers) -> None:
    answers.jobs = {f"j{number:03}": make_job(f"j{number:03}") for number in range(25)}
    answers.page_size = 10
    assert rnx("list", "-o", "name").out.split() == sorted(answers.jobs)
    assert len(answers.asked(job_pb2.ListRequest)) == 3


def test_list_passes_labels_and_phases_on(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(phase="FAILED"))
    data = json.loads(rnx("list", "--json", "-l", "team=data", "--phase", "failed,stopped").out)
    assert [(one["id"], one["name"], one["status"]) for one in data] == [("k3x9q2ab", "hello", "FAILED")]
    (request,) = answers.asked(job_pb2.ListRequest)
    assert (request.label_selector, list(request.phases)) == ("team=data", ["FAILED", "STOPPED"])


def test_get_gives_the_manifest_with_a_status_beside_it(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    data = json.loads(rnx("get", "hello", "-o", "json").out)
    assert data["spec"] == {"command": ["echo", "hi"]}
    assert data["status"]["runs"][0]["id"] == "k3x9q2ab"
    assert yaml.safe_load(rnx("get", "jobs", "hello", "-o", "yaml").out) == data
    assert isinstance(json.loads(rnx("get", "--json").out), list)
    assert rnx("get", "hello", "-o", "name").out == "job/hello\n"
    assert rnx("get", "hello", "--manifest").out == MANIFEST


def test_get_shows_tables(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(), labels={"team": "data"})
    assert rnx("get").out.splitlines() == [
        "NAME   STATUS     REASON     GENERATION  UPDATED               SOURCE",
        "hello  COMPLETED  Completed  1           2026-01-02T03:03:04Z  grpc:admin",
    ]
    assert rnx("get", "-o", "wide").out.splitlines()[1].split()[-4:] == ["k3x9q2ab", "-", "grpc:admin", "team=data"]


def test_a_source_that_is_not_there_is_an_error_and_an_empty_one_is_none(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    answers.resources["GitSource/fleet"] = resource_pb2.Resource(kind="GitSource", name="fleet")
    missed = rnx("tree", "flet")
    assert missed.code == 3 and "there is no source 'flet'" in missed.err and "did you mean fleet?" in missed.err
    for source in ("fleet", "git:fleet", "spool"):
        assert (rnx("tree", source).code, rnx("tree", source).out) == (0, "")
    assert rnx("tree", "grpc").out.startswith("grpc\n")


def test_tree_shows_source_file_job_run_and_attempt(rnx: Rnx, answers: Answers) -> None:
    run = make_run()
    run.attempts.add(number=1, phase="FAILED", reason="ExitCode", exit_code=3)
    run.attempts.add(number=2, phase="COMPLETED", reason="Completed", exit_code=0)
    for name, source in (("a", "git:fleet@1a2b3c4d5e6f:jobs/a.yml"), ("b", "spool:b.yml"), ("c", "grpc:admin")):
        answers.jobs[name] = make_job(name, *([run] if name == "a" else []))
        answers.jobs[name].source = source
    assert rnx("tree").out.splitlines() == [
        "git:fleet",
        "└─ jobs/a.yml @ 1a2b3c4d5e6f",
        "   └─ job/a generation 1",
        "      └─ run k3x9q2ab COMPLETED Completed",
        "         ├─ attempt 1 FAILED ExitCode exit 3",
        "         └─ attempt 2 COMPLETED Completed exit 0",
        "grpc",
        "└─ admin",
        "   └─ job/c generation 1",
        "spool",
        "└─ b.yml",
        "   └─ job/b generation 1",
    ]
    assert rnx("tree", "spool").out.splitlines()[0] == "spool"
    assert rnx("tree", "fleet").out.splitlines() == rnx("tree", "git:fleet").out.splitlines()


def test_describe_tells_all_of_a_job(rnx: Rnx, answers: Answers) -> None:
    job = make_job("hello", make_run("bbbb2222"), make_run(), labels={"team": "data"})
    condition = job.conditions.add(type="Conflict", status="True", reason="OtherFile", message="b.yml declares it too")
    condition.since.FromSeconds(STARTED)
    answers.jobs["hello"] = job
    event = job_pb2.Event(id=1, job="hello", type="Normal", reason="Started", message="attempt 1 runs", count=2)
    event.last.FromSeconds(STARTED)
    answers.events = [event]
    out = rnx("describe", "hello").out
    assert answers.asked(job_pb2.GetRequest)[0].history
    for part in (
        "Condition:     Conflict=True OtherFile: b.yml declares it too\n",
        "Labels:\n  team: data\n",
        "Runs:\n  ID        STATUS     REASON     STARTED               DURATION  EXIT  ATTEMPTS\n  bbbb2222  COMPLETED",
        "  2026-01-02T03:03:05Z  Normal  Started  attempt 1 runs (x2)\n",
        "Manifest:\n  apiVersion: joblet/v1\n",
    ):
        assert part in out


def test_events_are_a_table_or_json(rnx: Rnx, answers: Answers) -> None:
    event = job_pb2.Event(id=7, job="hello", run_id="k3x9q2ab", type="Warning", reason="OOM", message="m", count=3)
    event.first.FromSeconds(STARTED)
    event.last.FromSeconds(STARTED)
    answers.events = [event]
    assert rnx("events", "hello").out.splitlines()[1].split() == [
        "2026-01-02T03:03:05Z", "Warning", "OOM", "hello", "k3x9q2ab", "3", "m",
    ]  # fmt: skip
    (data,) = json.loads(rnx("events", "--json").out)
    assert (data["reason"], data["count"], data["run"]) == ("OOM", 3, "k3x9q2ab")
    assert json.loads(rnx("events", "-w", "--json").out)["id"] == 7


def test_followed_events_are_a_line_each_with_the_keys_that_scripts_rely_on(rnx: Rnx, answers: Answers) -> None:
    event = job_pb2.Event(id=7, job="hello", type="Warning", reason="OOM", message="two\nlines \u2028\x1b[1m", count=1)
    event.first.FromSeconds(STARTED)
    event.last.FromSeconds(STARTED)
    answers.events = [event, event]
    lines = rnx("events", "-w", "-o", "json").out.split("\n")
    assert len(lines) == 3 and lines[2] == ""
    assert list(json.loads(lines[0]).items()) == [
        *(("id", 7), ("job", "hello"), ("run", None), ("type", "Warning"), ("reason", "OOM")),
        *(("message", "two\nlines \u2028\x1b[1m"), ("count", 1)),
        *(("first", "2026-01-02T03:03:05.000000000Z"), ("last", "2026-01-02T03:03:05.000000000Z")),
    ]


def test_following_events_begins_with_the_latest_ones(rnx: Rnx, answers: Answers) -> None:
    for flags, tail in (
        ([], 0),
        (["-w"], 10),
        (["-w", "--since", "1h"], 0),
        (["-w", "--tail", "3"], 3),
        (["--tail", "5"], 5),
    ):
        assert rnx("events", *flags).code == 0
        assert answers.requests[-1].tail == tail, flags


def test_control_characters_of_a_job_do_not_reach_the_terminal(rnx: Rnx, answers: Answers) -> None:
    run = make_run(message="\x1b]0;title\x07 gone")
    run.command[:] = ["echo", "\x1b[31mred"]
    answers.jobs["hello"] = make_job("hello", run)
    for arguments in (["status", "hello"], ["list"], ["describe", "hello"]):
        assert b"\x1b" not in rnx(*arguments).stdout
    assert r"\x1b[31mred" in rnx("list").out


@pytest.mark.parametrize("width", [100, 30])
def test_on_a_terminal_ids_stay_whole_and_only_the_command_is_shortened(
    service: Running, answers: Answers, width: int
) -> None:
    run = make_run("aaaa1111", phase="RUNNING")
    run.command[:] = ["sh", "-c", "x" * 300]
    answers.jobs["hello"] = make_job("hello", run)
    config = str(service.directory / "rnx-config.yml")
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    ended = subprocess.run(
        [sys.executable, "-m", "rnx", "--config", config, "list"],
        stdout=theirs,
        timeout=60,
        check=True,
        env=environment | {"COLUMNS": str(width), "TERM": "xterm"},
    )
    os.close(theirs)
    text = b""
    with suppress(OSError):  # EIO: the other side is closed and all is read
        while chunk := os.read(ours, 4096):
            text += chunk
    os.close(ours)
    assert ended.returncode == 0
    line = text.decode().splitlines()[1]
    colour = "\x1b[36m"
    assert line.startswith(f"aaaa1111  hello  {colour if width == 100 else ''}RUNNING")
    assert ("…" in line) == (width == 100)


def test_nodes_of_a_cluster_are_shown_beside_the_daemons_own_host(rnx: Rnx, answers: Answers) -> None:
    answers.executors = [node_pb2.ExecutorState(name="slurm", available=False, reason="no answer")]
    answers.engine_nodes = [
        node_pb2.EngineNode(
            engine="slurm", name="n1", state="drained", reason="disk", partitions=["main", "big"], cpus=8, cpus_used=3,
            load=1.5, memory_bytes=2 << 30, memory_used_bytes=1 << 30,
        )
    ]  # fmt: skip
    lines = rnx("get", "nodes", "-o", "wide").out.splitlines()
    assert lines[0].split() == ["NAME", "EXECUTOR", "STATE", "PARTITIONS", "CPUS", "LOAD", "MEMORY", "REASON"]
    assert lines[1].split()[:4] == ["box", "local", "ready", "-"]
    assert lines[2].split() == ["n1", "slurm", "drained", "main,big", "3/8", "1.50", "1.0", "GiB/2.0", "GiB", "disk"]
    assert json.loads(rnx("get", "nodes", "n1", "-o", "json").out)["reason"] == "disk"
    missing = rnx("get", "nodes", "n9")
    assert missing.code == 3 and "rnx get nodes" in missing.err
    assert "slurm away" in rnx("nodes").out


def test_status_names_the_node_and_the_engines_job(rnx: Rnx, answers: Answers) -> None:
    run = limited_run()
    run.attempts[0].engine, run.attempts[0].engine_job, run.attempts[0].node = "slurm", "17", "n2"
    answers.jobs["hello"] = make_job("hello", run)
    lines = rnx("status", "hello").out.splitlines()
    assert "Node:          n2" in lines and "Slurm Job:     17" in lines

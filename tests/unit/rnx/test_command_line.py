"""The command line itself: help, completion, pipes, signals, and what is imported for it."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import rnx
from rnx.catalog import ENTRIES
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import Answers, Running, entry, make_job, make_run

HEAVY = ("grpc", "google.protobuf", "pydantic", "rich", "asyncio", "yaml", "cryptography", "joblet.manifest")


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "rnx", *arguments],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_neither_grpc_nor_pydantic(argument: str) -> None:
    code = f"""
import sys
from rnx.main import run
status = run({argument.split()!r})
print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
raise SystemExit(status)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"\n")


def test_list_imports_neither_pydantic_nor_rich(service: Running, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    code = f"""
import sys
from rnx.main import run
status = run(["--config", {str(service.directory / "rnx-config.yml")!r}, "list", "-o", "wide"])
print(*(name for name in ("pydantic", "rich", "joblet.manifest") if name in sys.modules), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"\n")


def test_no_command_needs_anything_of_linux_or_the_daemon() -> None:
    for path in Path(rnx.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                forbidden = ("jobletd", "joblet.sandbox", "joblet.cgroup", "fcntl", "resource", "pwd", "pyinotify")
                assert not name.startswith(forbidden), f"{path} imports {name}"


@pytest.mark.parametrize("name", ENTRIES)
def test_every_command_has_help_with_an_example(rnx: Rnx, name: str) -> None:
    said = rnx(name, "--help")
    assert said.code == 0
    assert f"Example:\n    rnx {name}" in said.out


def test_the_overview_names_every_command(rnx: Rnx) -> None:
    out = rnx("--help").out
    for entry_ in ENTRIES.values():
        assert f"  {entry_.name} " in out and entry_.summary in out
    assert call("--version").stdout == b"rnx 0.1.0\n"


def test_a_misspelt_command_is_met_with_the_right_one(rnx: Rnx) -> None:
    said = rnx("lits")
    assert said.code == 2
    assert "Did you mean 'list'" in said.err
    assert rnx("list", "--nonsense").code == 2
    assert rnx().code == 2


def test_explain_and_schema_work_without_a_configuration(rnx: Rnx) -> None:
    said = rnx("explain", "spec.limits.memory", config=Path("/nonexistent"))
    assert said.out.startswith("Field:         spec.limits.memory\nType:          size\n")
    assert rnx("explain").out.count("\n  ") == 4
    said = rnx("explain", "spec.limits.memroy")
    assert (said.code, said.err.splitlines()[1]) == (2, "  did you mean spec.limits.memory?")
    published = Path(__file__).parents[3] / "schemas/job.v1.schema.json"
    import json

    assert json.loads(rnx("schema").out) == json.loads(published.read_text())


def test_shells_complete_commands_and_job_names(service: Running, answers: Answers) -> None:
    answers.jobs = {"hello": make_job("hello"), "other": make_job("other")}
    config = str(service.directory / "rnx-config.yml")
    for words, expected in (("rnx sta", b"status"), (f"rnx --config {config} status he", b"hello")):
        ended = call(_RNX_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
        assert ended.stdout.split() == [expected], ended


def test_a_reader_who_goes_away_is_no_error(service: Running, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    answers.logs = [[entry(b"x" * 65536 + b"\n") for _ in range(20)] for _ in range(8)]
    with subprocess.Popen(
        [sys.executable, "-m", "rnx", "--config", service.directory / "rnx-config.yml", "log", "hello"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_ctrl_c_ends_the_following_and_says_that_the_job_goes_on(service: Running, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(phase="RUNNING"))
    with subprocess.Popen(
        [sys.executable, "-m", "rnx", "--config", service.directory / "rnx-config.yml", "wait", "hello"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        from joblet.api.v1 import job_pb2

        asked = threading.Event()
        while not answers.asked(job_pb2.WatchRequest) and process.poll() is None:
            asked.wait(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"\nrnx: the job goes on\n")


def test_a_fault_of_ours_shows_no_traceback(rnx: Rnx, monkeypatch: pytest.MonkeyPatch) -> None:
    import joblet.manifest

    def broken(path: str) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(joblet.manifest, "explain", broken)
    said = rnx("explain")
    assert said.code == 1
    assert said.err.startswith("rnx: unexpected RuntimeError: oh\n  this is a fault of rnx")
    assert "Traceback" not in said.err

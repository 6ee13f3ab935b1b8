"""run, log, wait, stop: what becomes of flags, and how output and exit codes come back."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest

from joblet.api.v1 import job_pb2
from joblet.manifest import JobManifest, jobs_of, read_manifests
from rnx import watching
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import STARTED, Answers, entry, make_job, make_run, refusal


def accept(answers: Answers, run: job_pb2.Run) -> None:
    """Take any manifest as the job whose run that is."""
    answers.jobs[run.job] = make_job(run.job, run)
    answers.apply = lambda request: [job_pb2.ApplyResult(name=run.job, action="created", run_id=run.id)]


def sent(answers: Answers) -> JobManifest:
    (request,) = answers.asked(job_pb2.ApplyRequest)
    (manifest,) = jobs_of(read_manifests(request.manifest, filename=request.filename))
    return manifest


def finish(answers: Answers, run: job_pb2.Run) -> None:
    answers.watch = [[job_pb2.WatchEvent(type="ADDED", job=make_job(run.job, run)), job_pb2.WatchEvent(type="SYNCED")]]


def test_run_answers_at_once_with_its_four_lines(rnx: Rnx, answers: Answers) -> None:
    accept(answers, make_run(phase="PENDING"))
    said = rnx("run", "echo", "hi")
    assert said.code == 0
    assert said.out.splitlines() == [
        "ID:            k3x9q2ab",
        "Command:       echo hi",
        "Status:        PENDING",
        "StartTime:     2026-01-02T03:03:04Z",
    ]
    assert json.loads(rnx("run", "--json", "echo", "hi").out)["id"] == "k3x9q2ab"


def test_the_flags_of_run_become_a_manifest(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    accept(answers, make_run(phase="PENDING"))
    (tmp_path / "tool.sh").write_text("#!/bin/sh\n")
    (tmp_path / "tool.sh").chmod(0o755)
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/sub/a.txt").write_text("ä")
    flags = (
        *(
            "--max-cpu",
            "150",
            "--max-memory",
            "512",
            "--max-iobps",
            "1000000",
            "--cpu-cores",
            "0-1",
            "--network",
            "host",
        ),
        *("--env", "A=1", "-e", "B=x=y", "--workdir", "/tmp", "--label", "team=data", "--timeout", "1h30m"),
        *("--priority", "70", "--executor", "local"),
        *("--upload", tmp_path / "tool.sh", "--upload-dir", tmp_path / "data"),
        *("--volume", "a", "--volume", "b:/data", "--volume", "c:/old:ro"),
    )
    assert rnx("run", *flags, "/usr/bin/Python3.11", "-c", "pass").code == 0
    manifest = sent(answers)
    spec = manifest.spec
    assert manifest.metadata.name.rpartition("-")[0] == "python3-11"
    assert (manifest.metadata.labels, spec.env) == ({"team": "data"}, {"A": "1", "B": "x=y"})
    assert spec.command == ("/usr/bin/Python3.11", "-c", "pass")
    assert (spec.limits.cpu_percent, spec.limits.memory_bytes, spec.limits.cpus) == (150.0, 512 << 20, "0-1")
    assert spec.limits.io is not None
    assert (spec.limits.io.read_bytes, spec.limits.io.write_bytes) == (1000000, 1000000)
    assert (spec.isolation.network, spec.workdir, spec.timeout_seconds) == ("host", "/tmp", 5400.0)
    assert (spec.priority, spec.executor) == (70, "local")
    assert [(one.name, one.path, one.read_only) for one in spec.volumes] == [
        *(("b", "/data", False), ("c", "/old", True), ("a", "/volumes/a", False)),
    ]
    assert [(file.path, file.mode, answers.contents[file.sha256 or ""].decode()) for file in spec.files] == [
        ("sub/a.txt", 0o644, "ä"),
        ("tool.sh", 0o755, "#!/bin/sh\n"),
    ]


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["ps", "aux"], ("ps", "aux")),
        (["--", "ls", "-l"], ("ls", "-l")),
        (["ls", "--json", "-w", "--", "x"], ("ls", "--json", "-w", "--", "x")),
        (["sh", "-c", "echo $HOME | cat"], ("sh", "-c", "echo $HOME | cat")),
    ],
)
def test_what_follows_the_command_is_its_own(
    rnx: Rnx, answers: Answers, typed: list[str], command: tuple[str, ...]
) -> None:
    accept(answers, make_run(phase="PENDING"))
    assert rnx("run", *typed).code == 0
    assert sent(answers).spec.command == command


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--volume", "data:/data:no", "true"], "--volume data:/data:no: is not a volume"),
        (["--schedule", "soon", "true"], '--schedule: "soon" is not a duration (use 90s, 5m, 1h30m, 500ms or 7d)'),
        (["--schedule", "2020-01-31T02:00:00Z", "true"], "--schedule 2020-01-31T02:00:00Z: that time is over"),
        (["--schedule", "5m", "--wait", "true"], "--wait does not go with --schedule"),
        (["--force", "true"], "--force goes with --job and --workflow"),
        (["--env", "A", "true"], "--env A: there is no value"),
        (["--upload", "/nonexistent", "true"], "--upload /nonexistent: No such file or directory"),
        (["--upload", "/dev/null", "true"], "--upload /dev/null: is no regular file"),
        (["--upload", "/usr", "true"], "--upload /usr: is a directory"),
        (["--upload-dir", "/nonexistent", "true"], "--upload-dir /nonexistent: there is no such directory"),
        (["--secret", "a:", "true"], "--secret a:: a part is empty"),
        (
            ["--job", "a", "--max-cpu", "5"],
            "--job runs an existing job as it is and takes no command and no other flags",
        ),
        ([], "there is no command"),
    ],
)
def test_what_run_cannot_do_is_refused_before_anything_is_sent(
    rnx: Rnx, answers: Answers, flags: list[str], expected: str
) -> None:
    said = rnx("run", *flags)
    assert said.code == 2
    first, second = said.err.splitlines()
    assert first == f"rnx: {expected}"
    assert second.startswith("  ")
    assert not answers.requests


def test_errors_about_the_composed_manifest_name_the_flag(rnx: Rnx, answers: Answers) -> None:
    answers.apply = lambda request: []
    from google.rpc import error_details_pb2

    violation = error_details_pb2.BadRequest.FieldViolation(
        field="spec.limits.cpus", description='rnx-run.json:1:150: "x" is not a list of cores'
    )
    answers.refusals["Apply"] = refusal(
        grpc.StatusCode.INVALID_ARGUMENT,
        "whatever",
        more=(error_details_pb2.BadRequest(field_violations=[violation]),),
    )
    said = rnx("run", "--cpu-cores", "x", "true")
    assert said.code == 2
    assert said.err.splitlines()[0] == 'rnx: --cpu-cores: "x" is not a list of cores'


def test_a_name_in_use_is_not_taken_over(rnx: Rnx, answers: Answers) -> None:
    accept(answers, make_run(job="mine"))
    said = rnx("run", "--name", "mine", "true")
    assert said.code == 6
    assert said.err.startswith("rnx: there is a job mine already\n  rnx run --job mine runs it again")
    assert not answers.asked(job_pb2.ApplyRequest)
    assert rnx("run", "--name", "fresh", "true").code == 0


def test_run_job_triggers_a_run_of_an_existing_job(rnx: Rnx, answers: Answers) -> None:
    accept(answers, make_run(phase="PENDING"))
    assert rnx("run", "--job", "hello").out.startswith("ID:            k3x9q2ab\n")
    assert [request.name for request in answers.asked(job_pb2.RunRequest)] == ["hello"]


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (make_run(), 0),
        (make_run(phase="FAILED", reason="ExitCode", exit_code=7), 7),
        (make_run(phase="FAILED", reason="Signal", exit_code=143, signal="SIGTERM"), 143),
        (make_run(phase="FAILED", reason="OOMKilled", exit_code=1), 137),
        (make_run(phase="FAILED", reason="TimedOut", exit_code=143), 124),
        (make_run(phase="FAILED", reason="StartError", exit_code=127), 127),
        (make_run(phase="FAILED", reason="Lost"), 125),
        (make_run(phase="STOPPED", reason="Stopped", exit_code=143), 143),
        (make_run(phase="STOPPED", reason="Stopped", exit_code=0), 1),
    ],
    ids=lambda value: value.reason if isinstance(value, job_pb2.Run) else str(value),
)
def test_run_wait_gives_output_and_exit_code_of_the_job(
    rnx: Rnx, answers: Answers, run: job_pb2.Run, code: int
) -> None:
    accept(answers, run)
    answers.logs = [[entry(b"out\n"), entry(b"err\n", stream="stderr")], [entry(b"\xff\x00 no end", partial=True)]]
    finish(answers, run)
    said = rnx("run", "--wait", "whatever")
    assert said.code == code
    assert said.stdout == b"out\n\xff\x00 no end"
    assert said.stderr.startswith(b"err\n")
    assert (b"rnx: hello " in said.stderr) == (run.reason not in ("Completed", "ExitCode"))


def test_log_passes_its_options_on(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    options = ("--tail", "5", "--since", "2026-01-02T03:04:05Z", "--stream", "stderr", "--attempt", "2", "-f")
    assert rnx("log", "hello", *options).code == 0
    (request,) = answers.asked(job_pb2.LogsRequest)
    assert (request.ref, request.tail_lines, request.stream, request.attempt, request.follow) == (
        "k3x9q2ab", 5, "stderr", 2, True,
    )  # fmt: skip
    assert request.since.ToJsonString() == "2026-01-02T03:04:05Z"
    assert rnx("log", "hello").code == 0
    assert not answers.asked(job_pb2.LogsRequest)[-1].HasField("tail_lines")
    said = rnx("log", "hello", "--since", "yesterday")
    assert said.code == 2 and "neither a duration nor a time" in said.err and "2026-01-02T03:04:05Z" in said.err


def test_timestamps_stand_before_lines_only(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    time_ns = STARTED * 10**9 + 42
    answers.logs = [
        [entry(b"a", time_ns=time_ns, partial=True), entry(b"b\n", time_ns=time_ns), entry(b"c\n", time_ns=time_ns)]
    ]
    stamp = b"2026-01-02T03:03:05.000000042Z "
    assert rnx("log", "hello", "--timestamps").stdout == stamp + b"ab\n" + stamp + b"c\n"


def test_following_goes_on_where_it_was_when_the_daemon_comes_back(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    first, second = STARTED * 10**9, STARTED * 10**9 + 1
    before = [entry(b"0\n", time_ns=first), entry(b"1\n", time_ns=second), entry(b"2\n", time_ns=second)]
    again = [*before[1:], entry(b"3\n", time_ns=second), entry(b"4\n", time_ns=second + 1)]
    answers.logs = [
        before, refusal(grpc.StatusCode.UNAVAILABLE, "it stops"), again, [entry(b"5\n", time_ns=second + 1)],
    ]  # fmt: skip
    said = rnx("log", "-f", "hello")
    assert (said.code, said.out.split()) == (0, ["0", "1", "2", "3", "4", "5"])
    assert answers.asked(job_pb2.LogsRequest)[1].since.ToNanoseconds() == second


def test_without_follow_a_lost_daemon_is_an_error(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run())
    answers.logs = [refusal(grpc.StatusCode.UNAVAILABLE, "it stops")]
    said = rnx("log", "hello")
    assert (said.code, said.err.splitlines()[1]) == (1, "  try again a little later")


@pytest.mark.parametrize(
    ("phase", "goal", "code"),
    [
        ("COMPLETED", "completed", 0),
        ("FAILED", "completed", 1),
        ("FAILED", "finished", 0),
        ("STOPPED", "finished", 0),
        ("RUNNING", "running", 0),
        ("COMPLETED", "running", 0),
        ("FAILED", "running", 1),
    ],
)
def test_wait_ends_when_it_came_to_that_or_cannot_any_more(
    rnx: Rnx, answers: Answers, phase: str, goal: str, code: int
) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(phase="PENDING"))
    finish(answers, make_run(phase=phase))
    said = rnx("wait", "hello", "--for", goal)
    assert said.code == code
    assert said.out.startswith(f"job/hello {phase}")


def test_wait_gives_up_after_its_timeout(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(phase="RUNNING"))
    answers.watch = [[job_pb2.WatchEvent(type="ADDED", job=answers.jobs["hello"])]]
    said = rnx("wait", "hello", "--timeout", "300ms")
    assert said.code == 124
    assert said.err == "rnx: hello is RUNNING after 300ms\n  it goes on; rnx status hello shows it\n"
    assert rnx("wait", "hello", "--timeout", "5").code == 2


def test_waiting_survives_a_restart_of_the_daemon(rnx: Rnx, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(phase="RUNNING"))
    answers.refusals["Watch"] = refusal(grpc.StatusCode.UNAVAILABLE, "it starts")

    def come_back(self: watching.Patience, error: Exception) -> None:
        answers.refusals.clear()
        finish(answers, make_run())

    monkeypatch.setattr(watching.Patience, "wait", come_back)
    assert rnx("wait", "hello").code == 0


def test_waiting_for_a_job_that_is_deleted_ends(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(phase="RUNNING"))
    answers.watch = [[job_pb2.WatchEvent(type="DELETED", job=answers.jobs["hello"])]]
    said = rnx("wait", "hello")
    assert (said.code, said.err.splitlines()[0]) == (3, "rnx: the job hello was deleted")


def test_stop_names_the_run(rnx: Rnx, answers: Answers) -> None:
    answers.jobs["hello"] = make_job("hello", make_run(phase="RUNNING"))
    assert rnx("stop", "hello", "--force").out == "run k3x9q2ab stopping\n"
    assert answers.asked(job_pb2.StopRequest)[0].force
    finish(answers, make_run(phase="STOPPED"))
    assert rnx("stop", "hello", "--wait").out == "run k3x9q2ab STOPPED\n"

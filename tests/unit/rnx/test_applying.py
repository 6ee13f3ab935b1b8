"""apply, diff, validate, delete: files in, one line a job out, nothing half done."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest

from joblet.api.v1 import job_pb2
from joblet.manifest import read_manifests, to_yaml
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import Answers, make_job, make_run, refusal


def manifest(name: str, command: str = "echo") -> str:
    return f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{command: [{command}]}}\n"


def created(request: job_pb2.ApplyRequest) -> list[job_pb2.ApplyResult]:
    """As the daemon answers for jobs that it does not know yet."""
    return [
        job_pb2.ApplyResult(
            name=one.metadata.name,
            action="created",
            consequence="starts a run",
            run_id="" if request.dry_run else "k3x9q2ab",
            desired_manifest=to_yaml(one),
        )
        for one in read_manifests(request.manifest, filename=request.filename)
    ]


def test_apply_tells_what_became_of_each_manifest(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    actions = iter(["configured", "unchanged"])

    def apply(request: job_pb2.ApplyRequest) -> list[job_pb2.ApplyResult]:
        action = next(actions)
        return [job_pb2.ApplyResult(name="a", action=action, consequence="restarts the run")]

    answers.apply = apply
    (tmp_path / "a.yml").write_text(manifest("a"))
    assert rnx("apply", "-f", tmp_path / "a.yml").out == "job/a configured (restarts the run)\n"
    assert rnx("apply", "-f", tmp_path / "a.yml").out == "job/a unchanged\n"
    request = answers.asked(job_pb2.ApplyRequest)[0]
    assert (request.manifest, request.filename) == (manifest("a").encode(), str(tmp_path / "a.yml"))


def test_what_apply_did_can_be_had_as_a_document_or_as_names(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    answers.apply = created
    (tmp_path / "a.yml").write_text(manifest("a") + "---\n" + manifest("b"))
    first, second = json.loads(rnx("apply", "-f", tmp_path / "a.yml", "-o", "json").out)
    assert first == {
        "kind": "Job", "name": "a", "action": "created", "consequence": "starts a run", "generation": 0,
        "run": "k3x9q2ab", "dryRun": False,
    }  # fmt: skip
    assert second["name"] == "b"
    assert rnx("apply", "-f", tmp_path / "a.yml", "-o", "name", "--dry-run").out == "job/a\njob/b\n"
    assert "dryRun: true" in rnx("apply", "-f", tmp_path / "a.yml", "-o", "yaml", "--dry-run").out


def test_apply_takes_files_and_directories(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    answers.apply = created
    (tmp_path / "jobs/deep").mkdir(parents=True)
    (tmp_path / "jobs/.git").mkdir()
    for path, name in (("one.yml", "one"), ("jobs/two.yaml", "two"), ("jobs/deep/three.yml", "three")):
        (tmp_path / path).write_text(manifest(name))
    for path in ("jobs/x.yml.backup", "jobs/.y.yml", "jobs/.git/z.yml"):
        (tmp_path / path).write_text("not: a manifest")
    flat = rnx("apply", "-f", tmp_path / "one.yml", "-f", tmp_path / "jobs")
    assert flat.out == "job/one created (starts a run)\njob/two created (starts a run)\n"
    deep = rnx("apply", "-R", "-f", tmp_path / "jobs", "--dry-run")
    assert deep.out == "job/two created (starts a run) (dry run)\njob/three created (starts a run) (dry run)\n"


def test_apply_shows_every_fault_of_every_file_and_sends_nothing(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text(manifest("good"))
    (tmp_path / "a.yml").write_text(manifest("a") + "specs: {}\n")
    (tmp_path / "b.yml").write_text("apiVersion: joblet/v1\nkind: Job\nmetadata: {name: B_}\nspec: {command: 1}\n")
    said = rnx("apply", "-f", tmp_path)
    assert (said.code, said.out) == (2, "")
    lines = said.err.splitlines()
    assert lines[0].startswith(f"{tmp_path}/a.yml:5:1: specs: ")
    assert [line.split(": ")[0] for line in lines[1:3]] == [f"{tmp_path}/b.yml:3:18", f"{tmp_path}/b.yml:4:17"]
    assert lines[-1] == "  nothing was changed: correct the places named and try again"
    assert not answers.requests


def test_one_name_in_two_files_is_an_error(rnx: Rnx, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(manifest("same"))
    (tmp_path / "b.yml").write_text(manifest("same"))
    said = rnx("validate", "-f", tmp_path)
    assert said.code == 2
    assert said.err.startswith(f"{tmp_path}/b.yml: the job same is declared in {tmp_path}/a.yml too\n")


def test_several_files_are_put_to_the_daemon_before_the_first_is_applied(
    rnx: Rnx, answers: Answers, tmp_path: Path
) -> None:
    def apply(request: job_pb2.ApplyRequest) -> list[job_pb2.ApplyResult]:
        if b"bad" in request.manifest:
            answers.refusals["Apply"] = refusal(
                grpc.StatusCode.FAILED_PRECONDITION, "job 'bad' belongs to spool:bad.yml", todo="change it in bad.yml"
            )
        return created(request)

    answers.apply = apply
    for name in ("bad", "good", "later"):
        (tmp_path / f"{name}.yml").write_text(manifest(name))
    said = rnx("apply", "-f", tmp_path)
    assert (said.code, said.out) == (6, "")
    assert said.err == "rnx: job 'bad' belongs to spool:bad.yml\n  change it in bad.yml\n"
    assert all(request.dry_run for request in answers.asked(job_pb2.ApplyRequest))


@pytest.mark.parametrize(
    ("run", "code", "line"),
    [
        (make_run(), 0, "job/hello COMPLETED (Completed)"),
        (make_run(phase="FAILED", reason="ExitCode", exit_code=3), 3, "job/hello FAILED (ExitCode)"),
    ],
)
def test_apply_wait_ends_with_the_run(
    rnx: Rnx, answers: Answers, tmp_path: Path, run: job_pb2.Run, code: int, line: str
) -> None:
    answers.apply = created
    answers.jobs["hello"] = make_job("hello", run)
    waiting = make_job("hello", make_run(phase="RUNNING"))
    answers.watch = [
        [
            job_pb2.WatchEvent(type="ADDED", job=waiting),
            job_pb2.WatchEvent(type="SYNCED"),
            job_pb2.WatchEvent(type="MODIFIED", job=answers.jobs["hello"]),
        ]
    ]
    (tmp_path / "a.yml").write_text(manifest("hello"))
    said = rnx("apply", "-f", tmp_path / "a.yml", "--wait")
    assert (said.code, said.out.splitlines()[-1]) == (code, line)


def test_diff_names_the_consequence_and_has_diffs_exit_codes(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text(manifest("a", "echo, new"))
    result = job_pb2.ApplyResult(
        name="a",
        action="configured",
        consequence="restarts the run",
        current_manifest=manifest("a"),
        desired_manifest=manifest("a", "echo, new"),
    )
    answers.apply = lambda request: [result]
    said = rnx("diff", "-f", path)
    assert said.code == 1
    assert said.out.splitlines() == [
        "# job/a: restarts the run",
        "--- job/a",
        f"+++ {path}",
        "@@ -1,4 +1,4 @@",
        " apiVersion: joblet/v1",
        " kind: Job",
        " metadata: {name: a}",
        "-spec: {command: [echo]}",
        "+spec: {command: [echo, new]}",
    ]
    assert answers.asked(job_pb2.ApplyRequest)[0].dry_run
    result.current_manifest = result.desired_manifest
    assert (rnx("diff", "-f", path).code, rnx("diff", "-f", path).out) == (0, "")
    assert rnx("diff", "-f", tmp_path / "none.yml").code == 2
    answers.refusals["Apply"] = refusal(grpc.StatusCode.PERMISSION_DENIED, "Apply needs the role admin")
    assert rnx("diff", "-f", path).code == 2


@pytest.mark.parametrize("command", ["validate", "apply"])
def test_jobs_of_several_files_that_would_wait_for_each_other_are_refused_before_any_is_sent(
    rnx: Rnx, answers: Answers, tmp_path: Path, command: str
) -> None:
    for name, other in (("a", "b"), ("b", "a"), ("c", "b")):
        text = manifest(name).replace("spec: {", f"spec: {{dependsOn: [{{job: {other}}}], ")
        (tmp_path / f"{name}.yml").write_text(text)
    said = rnx(command, "-f", tmp_path)
    assert (
        said.code == 2
        and "a.yml: job a: spec.dependsOn: jobs would wait for each other for ever: a -> b -> a" in said.err
    )
    assert answers.asked(job_pb2.ApplyRequest) == []


def test_validate_needs_no_configuration_and_no_daemon(rnx: Rnx, tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text(manifest("a") + "---\n" + manifest("b"))
    said = rnx("validate", "-f", path, config=tmp_path / "none.yml")
    assert (said.code, said.out) == (0, f"{path}: valid (2 manifests)\n")


def test_delete_goes_on_after_a_name_that_is_not_there(rnx: Rnx, answers: Answers, tmp_path: Path) -> None:
    answers.jobs = {"a": make_job("a"), "b": make_job("b")}
    said = rnx("delete", "a", "x", "b")
    assert (said.code, said.out) == (3, "job/a deleted\njob/b deleted\n")
    assert said.err == "rnx: no job or run 'x'\n  did you mean a?\n"
    assert rnx("delete", "x", "--ignore-not-found").code == 0
    (tmp_path / "a.yml").write_text(manifest("a"))
    assert rnx("delete", "-f", tmp_path / "a.yml").out == "job/a deleted\n"
    assert rnx("delete").code == 2

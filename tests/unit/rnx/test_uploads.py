"""What the client uploads: only what may go, only what the daemon does not have, and nothing at all if one thing is wrong."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from joblet.api.v1 import job_pb2
from rnx.failures import InvalidRequest
from rnx.uploads import of_directory
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import Answers

JOB = """\
apiVersion: joblet/v1
kind: Job
metadata: {name: hello}
spec:
  command: [./run.sh]
  files: [{path: run.sh, from: ./run.sh}, {path: again, from: run.sh}, {path: data, from: sub/data}]
"""


@pytest.fixture
def manifest(tmp_path: Path, answers: Answers) -> Path:
    answers.apply = lambda _: [job_pb2.ApplyResult(name="hello", action="created", kind="Job")]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/data").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o750)
    path = tmp_path / "job.yml"
    path.write_text(JOB)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_apply_uploads_what_is_missing_and_says_what_from_stands_for(
    rnx: Rnx, answers: Answers, manifest: Path, tmp_path: Path
) -> None:
    assert rnx("apply", "-f", manifest).code == 0
    assert answers.contents == {sha(tmp_path / name): (tmp_path / name).read_bytes() for name in ("run.sh", "sub/data")}
    (request,) = answers.asked(job_pb2.ApplyRequest)
    assert request.manifest == JOB.encode()  # as it was written, so that places in errors are right
    assert {(getattr(one, "from"), one.sha256, one.mode) for one in request.files} == {
        ("run.sh", sha(tmp_path / "run.sh"), 0o750),
        ("sub/data", sha(tmp_path / "sub/data"), 0o644),
    }
    uploads = answers.requests.count(None)
    assert rnx("apply", "-f", manifest).code == 0
    assert answers.requests.count(None) == uploads  # nothing was sent again


@pytest.mark.parametrize("command", [["diff"], ["apply", "--dry-run"]])
def test_what_only_looks_uploads_nothing(rnx: Rnx, answers: Answers, manifest: Path, command: list[str]) -> None:
    rnx(*command, "-f", manifest)
    assert answers.contents == {}
    (request,) = answers.asked(job_pb2.ApplyRequest)
    assert request.dry_run and len(request.files) == 2


def test_a_file_that_is_not_there_or_lies_outside_stops_everything(
    rnx: Rnx, answers: Answers, manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.sh").unlink()
    said = rnx("apply", "-f", manifest)
    assert (said.code, answers.requests) == (2, [])
    assert said.err.startswith(f"rnx: {manifest}: from: run.sh: No such file or directory")
    (tmp_path / "run.sh").symlink_to("/etc/passwd")
    said = rnx("apply", "-f", manifest)
    assert (said.code, answers.requests) == (2, [])
    assert "a link leads out of the manifest's directory" in said.err


def test_a_directory_goes_with_modes_links_and_what_is_below(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/tool").write_text("x")
    (tmp_path / "a/b/tool").chmod(0o4755)
    (tmp_path / "a/up").symlink_to("../top")
    (tmp_path / "dir").symlink_to("a/b")
    (tmp_path / "top").write_text("y")
    entries, contents = of_directory(str(tmp_path), "d")
    assert [(one["path"], one.get("mode"), one.get("link")) for one in entries] == [
        ("a/b/tool", "0755", None),
        ("a/up", None, "../top"),
        ("dir", None, "a/b"),
        ("top", "0644", None),
    ]
    assert [os.path.relpath(one.path, tmp_path) for one in contents] == ["a/b/tool", "top"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside", ".."])
def test_a_link_that_leads_out_of_a_directory_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(InvalidRequest, match="link: the link leads out"):
        of_directory(str(tmp_path), "d")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="pipe: is no file, directory or link"):
        of_directory(str(tmp_path), "d")


def test_a_name_that_is_not_utf_8_and_too_many_files_are_refused(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    os.mkdir(os.fsencode(odd) + b"/\xff")
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        of_directory(str(odd), "d")
    many = tmp_path / "many"
    many.mkdir()
    for number in range(1001):
        (many / str(number)).touch()
    with pytest.raises(InvalidRequest, match="more than 1000 files"):
        of_directory(str(many), "d")

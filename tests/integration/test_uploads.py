"""Uploads with a real daemon: what arrives in the job is what was on the client's disk, nothing else does, nothing stays."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from joblet.api.v1 import file_pb2, file_pb2_grpc
from tests.integration.host import PATIENCE, Host, eventually, job_host

EXAMPLE = Path(__file__).parents[2] / "examples/upload/report.yml"
JOB = """\
apiVersion: joblet/v1
kind: Job
metadata: {{name: {name}}}
spec:
  command: [sh, -euc, {script}]
  files: {files}
  limits: {{disk: {disk}}}
"""


def small(config: dict[str, Any]) -> None:
    config["uploads"] = {"maxFileBytes": "110Mi", "maxTotalBytes": "250Mi"}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host(configure=small) as host:
        yield host


def stub(host: Host, role: str = "admin") -> Any:
    host.client(role)
    return file_pb2_grpc.FileServiceStub(host.channels[role])


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def kept(host: Host) -> set[str]:
    return {path.name for path in (host.root / "state/blobs/sha256").iterdir()}


def incoming(host: Host) -> list[Path]:
    return list((host.root / "state/blobs/incoming").iterdir())


def begin(data: bytes, *, size: int | None = None) -> file_pb2.UploadRequest:
    return file_pb2.UploadRequest(begin=file_pb2.Content(sha256=sha(data), size=len(data) if size is None else size))


def big_file(path: Path, mebibytes: int) -> str:
    """Of bytes that do not repeat. Returns its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(mebibytes):
            block = hashlib.shake_128(number.to_bytes(8, "big")).digest(1 << 20)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def test_100_megabytes_arrive_as_they_were(host: Host, tmp_path: Path) -> None:
    digest = big_file(tmp_path / "big.bin", 100)
    ended = host.rnx("run", "-w", "--upload", tmp_path / "big.bin", "sha256sum", "big.bin", timeout=120)
    assert (ended.status, ended.out) == (0, f"{digest}  big.bin\n"), ended.err
    assert digest in kept(host) and incoming(host) == []
    ended = host.rnx("run", "-w", "--upload", tmp_path / "big.bin", "stat", "-c", "%s %a %U", "big.bin", timeout=120)
    assert (ended.status, ended.out) == (0, f"{100 << 20} 644 root\n"), ended.err


def test_a_directory_arrives_with_modes_links_and_odd_names(host: Host, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "data" / "deep").mkdir(parents=True)
    (tree / "bin/tool").write_text("#!/bin/sh\nexec cat current/fact\n")
    (tree / "bin/tool").chmod(0o755)
    (tree / "data/deep/fact").write_bytes(b"\0\xff\n")
    (tree / "current").symlink_to("data/deep")
    (tree / "a name with ' quotes\n").write_text("x")
    ended = host.rnx("run", "-w", "--upload-dir", tree, "bin/tool")
    assert (ended.status, ended.stdout) == (0, b"\0\xff\n"), ended.err
    listed = host.rnx("run", "-w", "--upload-dir", tree, "find", ".", "-mindepth", "1", "-printf", "%M %u %p %l\\0")
    assert sorted(listed.out.split("\0")[:-1]) == sorted(
        [
            "-rw-r--r-- root ./a name with ' quotes\n ", "drwxr-xr-x root ./bin ", "-rwxr-xr-x root ./bin/tool ",
            "lrwxrwxrwx root ./current data/deep", "drwxr-xr-x root ./data ", "drwxr-xr-x root ./data/deep ",
            "-rw-r--r-- root ./data/deep/fact ",
        ]
    )  # fmt: skip
    (tree / "out").symlink_to("../../etc/passwd")
    refused = host.rnx("run", "--upload-dir", tree, "true")
    assert (refused.status, "out: the link leads out of the directory" in refused.err) == (2, True)


def test_a_thousand_small_files_arrive(host: Host, tmp_path: Path) -> None:
    tree = tmp_path / "many"
    tree.mkdir()
    for number in range(1000):
        (tree / f"{number:04}").write_text(f"{number}\n")
    ended = host.rnx("run", "-w", "--upload-dir", tree, "sh", "-c", "cat * | sha256sum", timeout=120)
    expected = sha("".join(f"{number}\n" for number in range(1000)).encode())
    assert (ended.status, ended.out) == (0, f"{expected}  -\n"), ended.err


def test_the_example_is_applied_twice_and_the_second_time_changes_nothing(host: Host, tmp_path: Path) -> None:
    assert host.rnx("diff", "-f", EXAMPLE).status == 1
    applied = host.rnx("apply", "-f", EXAMPLE, "--wait")
    assert applied.out.splitlines()[-1] == "job/upload COMPLETED (Completed)", applied.err
    assert host.log("upload").decode().splitlines()[1] == "tuesday,340"
    before = (host.root / "daemon.log").read_text().count("] upload ")
    again = host.rnx("apply", "-f", EXAMPLE)
    assert again.out == "job/upload unchanged\n"
    assert (host.root / "daemon.log").read_text().count("] upload ") == before
    assert host.rnx("diff", "-f", EXAMPLE).status == 0
    manifest = host.rnx("get", "upload", "--manifest").out
    assert host.rnx("apply", "-f", "-", stdin=manifest).out == "job/upload unchanged\n"
    for path in EXAMPLE.parent.iterdir():
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(path.stat().st_mode)
    (tmp_path / "visits.csv").write_text("sunday,1\n")
    changed = host.rnx("diff", "-f", tmp_path / EXAMPLE.name)
    assert changed.status == 1 and sha(b"sunday,1\n") in changed.out
    assert host.rnx("apply", "-f", tmp_path / EXAMPLE.name, "--wait").status == 0
    assert host.job("upload").generation == 2
    assert host.log("upload") == b"visits a day, busiest first:\nsunday,1\n"


def test_what_is_too_large_for_the_host_or_for_the_job_is_told(host: Host, tmp_path: Path) -> None:
    big_file(tmp_path / "larger.bin", 111)
    refused = host.rnx("run", "--upload", tmp_path / "larger.bin", "true", timeout=120)
    assert refused.status == 2 and f"has {111 << 20} bytes, at most {110 << 20} are allowed" in refused.err
    assert "uploads.maxFileBytes" in refused.err
    big_file(tmp_path / "some.bin", 8)
    manifest = tmp_path / "full.yml"
    manifest.write_text(JOB.format(name="full", script="'true'", files="[{path: a, from: some.bin}]", disk="4Mi"))
    ended = host.rnx("apply", "-f", manifest, "--wait")
    assert ended.status == 126
    assert host.run("full").reason == "StartError"
    assert "spec.limits.disk is too small for spec.files: a" in host.run("full").message


def test_a_wrong_checksum_is_refused_and_leaves_nothing(host: Host) -> None:
    before = kept(host)
    messages = [
        begin(b"good"),
        file_pb2.UploadRequest(data=b"good"),
        begin(b"right"),
        file_pb2.UploadRequest(data=b"wrong"),
    ]
    with pytest.raises(grpc.RpcError) as refused:
        stub(host).Upload(iter(messages), timeout=30 * PATIENCE)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not what its checksum says" in str(refused.value.details())
    assert kept(host) == before and incoming(host) == []


def test_an_interrupted_upload_leaves_nothing(host: Host) -> None:
    before = kept(host)

    def messages() -> Iterator[file_pb2.UploadRequest]:
        yield begin(b"never", size=1 << 20)
        yield file_pb2.UploadRequest(data=bytes(1 << 10))
        eventually(lambda: len(incoming(host)) == 1, what="the content on its way")
        call.cancel()
        yield file_pb2.UploadRequest(data=bytes(1 << 10))

    call = stub(host).Upload.future(messages(), timeout=60 * PATIENCE)
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result()
    eventually(lambda: incoming(host) == [], what="the removal")
    assert kept(host) == before


def test_an_upload_that_the_daemon_does_not_survive_leaves_nothing(host: Host) -> None:
    before = kept(host)

    def messages() -> Iterator[file_pb2.UploadRequest]:
        yield begin(b"never", size=1 << 20)
        yield file_pb2.UploadRequest(data=bytes(1 << 10))
        eventually(lambda: len(incoming(host)) == 1, what="the content on its way")
        assert host.daemon is not None
        host.daemon.kill()
        host.daemon.wait()

    with pytest.raises(grpc.RpcError):
        stub(host).Upload(messages(), timeout=60 * PATIENCE)
    assert len(incoming(host)) == 1
    host.start()
    assert incoming(host) == [] and kept(host) == before


def test_a_viewer_may_neither_upload_nor_ask_what_is_there(host: Host) -> None:
    files = stub(host, "viewer")
    for method, request in (
        (files.Upload, iter([begin(b"x")])),
        (files.FindMissing, file_pb2.FindMissingRequest()),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            method(request, timeout=30 * PATIENCE)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_content_that_is_not_there_and_a_file_in_the_spool_that_nobody_can_read_are_refused(host: Host) -> None:
    files = f"[{{path: a, sha256: {sha(b'nowhere')}, size: 7}}]"
    with pytest.raises(grpc.RpcError) as refused:
        host.apply(JOB.format(name="nowhere", script="'true'", files=files, disk="4Mi"))
    assert "does not have the content" in str(refused.value.details())
    text = JOB.format(name="spooled", script="'true'", files="[{path: a, from: ./x}]", disk="4Mi")
    (host.spool / "x.yml").write_text(text)
    error = host.spool / "status/x.yml.error.yml"
    eventually(error.exists, what="the error file")
    assert "give the text itself as content" in error.read_text()
    os.unlink(host.spool / "x.yml")


def test_a_damaged_content_does_not_start_a_job(host: Host, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("whole")
    manifest = tmp_path / "damaged.yml"
    manifest.write_text(JOB.format(name="damaged", script="'true'", files="[{path: a, from: data}]", disk="4Mi"))
    assert host.rnx("apply", "-f", manifest, "--wait").status == 0
    (host.root / "state/blobs/sha256" / sha(b"whole")).write_text("hole")
    assert host.rnx("run", "-w", "--job", "damaged").status == 126
    assert "Input/output error: a" in host.run("damaged").message


def test_nothing_of_the_host_but_the_contents_is_in_the_workspace(host: Host, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    ended = host.rnx("run", "-w", "--upload", tmp_path / "one", "sh", "-c", "ls -A; ls /proc/self/fd | wc -l")
    assert (ended.status, ended.out) == (0, "one\n4\n")
    mounts = subprocess.run(["cat", "/proc/mounts"], capture_output=True, text=True, check=True).stdout
    assert "blobs" not in mounts

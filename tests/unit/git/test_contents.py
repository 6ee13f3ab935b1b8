"""``files: from:`` in a repository: a file of the same commit, and never anything else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from joblet.manifest import FileSpec
from jobletd.model import JobName
from tests.git_repository import Repository, job
from tests.unit.git.followed import Followed
from tests.unit.git.test_repositories import LFS, refused


def reads(name: str, *sources: str, mode: str = "") -> str:
    files = ", ".join(f"{{path: f{number}, from: {source}{mode}}}" for number, source in enumerate(sources))
    return job(name).replace("stop:", f"files: [{files}], stop:")


def files_of(followed: Followed, name: str) -> tuple[FileSpec, ...]:
    return followed.desired.jobs[JobName(name)][0].spec.files


def content_of(followed: Followed, file: FileSpec) -> bytes:
    assert file.sha256 is not None
    return Path(followed.blobs.path(file.sha256)).read_bytes()


def test_a_file_beside_the_manifest_is_taken_from_the_same_commit(repository: Repository, followed: Followed) -> None:
    repository.write(
        {"jobs/a.yml": reads("a", "./run.sh", "data/x.bin"), "jobs/run.sh": "one", "jobs/data/x.bin": b"\0\xff"}
    )
    os.chmod(repository.clone / "jobs/run.sh", 0o755)
    repository.commit()
    followed.look_well()
    script, data = files_of(followed, "a")
    assert (content_of(followed, script), script.mode) == (b"one", 0o755)
    assert (content_of(followed, data), data.mode, data.size) == (b"\0\xff", 0o644, 2)
    repository.commit({"jobs/run.sh": "two"})
    followed.look_well()
    assert content_of(followed, files_of(followed, "a")[0]) == b"two"
    assert followed.desired.generation("a") == 2
    repository.commit({"README": "nothing of it"})
    followed.look_well()
    assert followed.desired.generation("a") == 2


def test_a_large_file_is_taken_and_one_beyond_the_bound_of_uploads_is_refused(
    repository: Repository, followed: Followed
) -> None:
    large = os.urandom(1 << 20) * 3
    repository.commit({"a.yml": reads("a", "large.bin"), "large.bin": large})
    followed.set(path=".")
    followed.look_well()
    (file,) = files_of(followed, "a")
    assert file.sha256 == hashlib.sha256(large).hexdigest() and content_of(followed, file) == large
    assert not list(followed.mirrors.glob(".content-*"))
    repository.commit({"large.bin": b"\0" * ((8 << 20) + 1)})
    fault = followed.look()
    assert fault is not None and fault.reason == "InvalidManifest"
    assert "a.yml:1:1" in str(fault) and "uploads.maxFileBytes allows 8388608" in str(fault)
    assert followed.desired.generation("a") == 1


@pytest.mark.parametrize(
    ("target", "source", "why"),
    [
        ("/etc/passwd", "link", "is a symbolic link"),
        ("../outside", "link", "is a symbolic link"),
        ("real", "link", "is a symbolic link"),
        ("/etc", "link/passwd", "lies behind a symbolic link"),
        ("real", "absent", "there is no such file in the commit"),
        ("real", "real/x", "which is no directory"),
        ("real", "directory", "is a directory"),
    ],
)
def test_a_link_or_what_is_no_file_of_the_commit_is_refused(
    repository: Repository, followed: Followed, target: str, source: str, why: str
) -> None:
    repository.write({"jobs/a.yml": reads("a", source), "jobs/real": "x", "jobs/directory/x": "x"})
    (repository.clone / "jobs/link").symlink_to(target)
    repository.commit()
    refused(followed, "jobs/a.yml:1:1: job a: spec.files[0].from", why, "Ann Author")


@pytest.mark.parametrize("source", ["../secret", "/etc/passwd", "x/../../secret"])
def test_a_path_out_of_the_manifests_directory_is_refused(
    repository: Repository, followed: Followed, source: str
) -> None:
    repository.commit({"jobs/a.yml": reads("a", source), "secret": "x"})
    followed.set(path="jobs")
    refused(followed, "jobs/a.yml:4:", "from")


def test_a_submodule_and_a_pointer_to_large_file_storage_are_no_contents(
    repository: Repository, followed: Followed, tmp_path: Path
) -> None:
    other = Repository(tmp_path / "other")
    other.commit({"o": "x"})
    repository.write({"a.yml": reads("a", "sub")})
    repository.run("submodule", "--quiet", "add", other.url, "sub")
    repository.commit()
    refused(followed, "a.yml:1:1", "is a submodule, which is not followed")
    repository.commit({"a.yml": reads("a", "sub/o")})
    refused(followed, "a.yml:1:1", "lies below sub, which is no directory of this repository")
    repository.commit({"a.yml": reads("a", "model.bin"), "model.bin": LFS})
    refused(followed, "a.yml:1:1", "model.bin: is a pointer to Git LFS")


def test_a_store_that_is_full_is_tried_again_at_the_next_look(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": reads("a", "data"), "data": "x" * 1000})
    followed.blobs.reserve(8 << 20)
    for _ in range(7):
        followed.blobs.reserve(8 << 20)
    refused(followed, "a.yml:1:1", "there is no room for 1000 bytes")
    followed.blobs.release(64 << 20)
    followed.look_well()
    assert content_of(followed, files_of(followed, "a")[0]) == b"x" * 1000


def test_a_content_that_was_cleaned_away_is_taken_again(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": reads("a", "data"), "data": "x"})
    followed.look_well()
    followed.blobs.remove_unused((), float("inf"))
    repository.commit({"b.yml": job("b")})
    followed.look_well()
    assert content_of(followed, files_of(followed, "a")[0]) == b"x"

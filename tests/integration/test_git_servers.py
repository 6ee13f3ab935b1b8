"""What users of GitOps engines ran into, against real git servers on loopback: https by git's own backend, and a real sshd."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.git_repository import Repository, job
from tests.integration.git_server import TOKEN, HttpsServer, SshServer, serving
from tests.unit.git.followed import Followed

pytestmark = pytest.mark.native_only(
    reason="what git does is the same whatever the cgroups are, and takes minutes there"
)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n".format("4d" * 32)


@dataclass(frozen=True)
class Server:
    """url: of a bare repository below ``directory``. secret: what it asks for."""

    directory: Path
    url: Callable[[Path], str]
    secret: Mapping[str, bytes]


@pytest.fixture(scope="module", params=["https", "ssh"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("git")
    with ExitStack() as stack:
        if request.param == "https":
            https = HttpsServer(directory)
            stack.enter_context(serving(https))
            secret = {"token": TOKEN.encode(), "ca.crt": https.ca.encode()}
            yield Server(directory, lambda origin: f"{https.url}/{origin.name}", secret)
        else:
            keys = tmp_path_factory.mktemp("ssh")
            ssh = SshServer(keys)
            stack.enter_context(serving(ssh))
            secret = {"ssh-key": ssh.key.encode(), "known-hosts": ssh.known_hosts.encode()}
            yield Server(directory, ssh.url, secret)


@pytest.fixture
def repository(server: Server, tmp_path: Path) -> Repository:
    return Repository(tmp_path / "clone", server.directory / f"{tmp_path.name}.git")


@pytest.fixture
def followed(server: Server, repository: Repository, tmp_path: Path) -> Followed:
    followed = Followed(tmp_path / "mirrors", server.url(repository.origin))
    followed.secret = server.secret
    followed.set(credentials="fleet-git")
    return followed


def refused(followed: Followed, reason: str, *words: str) -> None:
    fault = followed.look()
    assert fault is not None and fault.reason == reason, str(fault)
    assert all(word in str(fault) for word in words), (words, str(fault))


def test_a_branch_a_tag_a_commit_or_a_range_of_versions_is_followed(repository: Repository, followed: Followed) -> None:
    first = repository.commit({"a.yml": job("a", "[one]")})
    repository.run("tag", "-a", "-m", "First", "v1.0.0")
    second = repository.commit({"a.yml": job("a", "[two]")})
    repository.run("tag", "v1.1.0")
    repository.push("v1.0.0", "v1.1.0")
    third = repository.commit({"a.yml": job("a", "[three]")})
    for ref, commit in (
        ({}, third),
        ({"branch": "main"}, third),
        ({"tag": "v1.0.0"}, first),
        ({"semver": "^1.0"}, second),
        ({"commit": first}, first),
    ):
        followed.set(ref=ref)
        followed.look_well()
        assert followed.source.applied is not None and followed.source.applied.revision == commit, ref
    followed.set(ref={"branch": "nosuch"})
    refused(followed, "NoSuchRevision", "refs/heads/nosuch", f"{first[:12]} stays in force")
    followed.set(ref={"commit": "0" * 40})
    refused(followed, "NoSuchRevision", f"{first[:12]} stays in force")


def test_a_force_push_is_followed_and_said_and_so_is_a_history_that_begins_anew(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a")})
    old = repository.commit({"a.yml": job("a", "[second]")})
    followed.look_well()
    new = repository.commit({"a.yml": job("a", "[third]")}, "--amend")
    followed.look_well()
    repository.run("checkout", "--quiet", "--orphan", "fresh")
    other = repository.commit({"a.yml": job("a", "[fourth]")})
    repository.push("+fresh:main")
    followed.look_well()
    told = [message for _, reason, message in followed.desired.events if reason == "HistoryRewritten"]
    assert [all(one[:12] in text for one in pair) for text, pair in zip(told, ((old, new), (new, other)), strict=True)]
    assert followed.desired.generation("a") == 3


def test_a_history_that_was_rewritten_to_nothing_is_held_back(repository: Repository, followed: Followed) -> None:
    repository.commit({f"{name}.yml": job(name) for name in "abc"})
    followed.look_well()
    repository.remove("a.yml", "b.yml", "c.yml")
    repository.commit({"README": "empty"}, "--amend")
    refused(followed, "DeletionGuard", "removes 3 of 3", "rnx sync fleet --allow-delete")
    assert set(followed.jobs) == {"a", "b", "c"}


def test_a_repository_that_disappears_changes_nothing_and_is_followed_when_it_is_back(
    repository: Repository, followed: Followed
) -> None:
    commit = repository.commit({"a.yml": job("a")})
    followed.look_well()
    hidden = repository.origin.rename(repository.origin.with_suffix(".away"))
    refused(followed, "NotSynced", f"{commit[:12]} stays in force")
    followed.source = followed.make()  # a daemon that starts anew meanwhile
    refused(followed, "NotSynced", f"{commit[:12]} stays in force")
    assert set(followed.jobs) == {"a"}
    hidden.rename(repository.origin)
    repository.commit({"b.yml": job("b")})
    followed.look_well()
    assert set(followed.jobs) == {"a", "b"}


def test_a_branch_that_is_deleted_changes_nothing(repository: Repository, followed: Followed) -> None:
    commit = repository.commit({"a.yml": job("a")})
    repository.push("HEAD:refs/heads/live")
    followed.set(ref={"branch": "live"})
    followed.look_well()
    repository.push(":live")
    refused(followed, "NoSuchRevision", "refs/heads/live", f"{commit[:12]} stays in force")
    assert set(followed.jobs) == {"a"}


def test_pointers_links_and_huge_files_in_a_manifests_place_are_refused_with_file_and_author(
    repository: Repository, followed: Followed
) -> None:
    good = repository.commit({"a.yml": job("a")})
    followed.look_well()
    for content, word in (
        (LFS, "Git LFS"),
        (Path("/etc/passwd"), "is a symbolic link"),
        (Path("../../outside.yml"), "is a symbolic link"),
        (b"#" * (17 << 20), "larger than 16 MiB"),
        ("a: [\n", "b.yml:2:1"),
    ):
        place = repository.clone / "b.yml"
        place.unlink(missing_ok=True)
        if isinstance(content, Path):
            place.symlink_to(content)
        else:
            repository.write({"b.yml": content})
        repository.commit(author="Bob <bob@example.org>")
        refused(followed, "InvalidManifest", "b.yml:", word, "Bob <bob@example.org>", f"{good[:12]} stays in force")
    assert set(followed.jobs) == {"a"}


def test_a_submodule_is_passed_over_and_never_fetched(
    repository: Repository, followed: Followed, tmp_path: Path
) -> None:
    other = Repository(tmp_path / "other")
    other.commit({"o.yml": job("other")})
    repository.write({"a.yml": job("a")})
    repository.run("submodule", "--quiet", "add", other.url, "sub")
    repository.commit()
    followed.look_well()
    assert set(followed.jobs) == {"a"}
    assert [message for _, reason, message in followed.desired.events if reason == "PassedOver"] == [
        "submodule sub is not followed"
    ]


def test_only_what_somebody_named_has_signed_is_followed(
    repository: Repository, followed: Followed, tmp_path: Path
) -> None:
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    followed.set(signature={"sshSigners": f"ann@example.org {(tmp_path / 'ours.pub').read_text()}"})
    repository.commit({"a.yml": job("a")})
    refused(followed, "NotSigned", "it has no signature")
    repository.run("config", "gpg.format", "ssh")
    repository.run("config", "user.signingKey", tmp_path / "theirs")
    repository.commit({"a.yml": job("a", "[theirs]")}, "-S")
    refused(followed, "NotSigned", "spec.signature")
    assert followed.jobs == {}
    repository.run("config", "user.signingKey", tmp_path / "ours")
    repository.commit({"a.yml": job("a", "[ours]")}, "-S")
    followed.look_well()
    assert set(followed.jobs) == {"a"}

"""What real repositories may hold: links, submodules, pointers, bombs; and which of their commits is followed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jobletd.sources.git import command
from tests.git_repository import ENVIRONMENT, Repository, job
from tests.unit.git.followed import Followed

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n".format("4d" * 32)


def refused(followed: Followed, *words: str, reason: str = "InvalidManifest") -> None:
    fault = followed.look()
    assert fault is not None and fault.reason == reason, str(fault)
    for word in words:
        assert word in str(fault)
    assert followed.jobs == {}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside.yml", "real.yml"])
def test_a_link_in_a_manifests_place_is_refused_wherever_it_leads(
    repository: Repository, followed: Followed, target: str
) -> None:
    repository.write({"real.yml": job("a")})
    (repository.clone / "link.yml").symlink_to(target)
    repository.commit()
    refused(followed, "link.yml:1:1", "is a symbolic link")


def test_a_linked_directory_is_not_entered(repository: Repository, followed: Followed, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/o.yml").write_text(job("outside"))
    repository.write({"a.yml": job("a")})
    (repository.clone / "more").symlink_to(tmp_path / "outside")
    repository.commit()
    followed.look_well()
    assert set(followed.jobs) == {"a"}
    followed.set(path="more")
    fault = followed.look()
    assert fault is not None and "more is no directory" in str(fault)


def test_a_submodule_is_passed_over_and_said(repository: Repository, followed: Followed, tmp_path: Path) -> None:
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


def test_a_pointer_to_large_file_storage_is_refused(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": LFS})
    refused(followed, "a.yml:1:1", "Git LFS")


def test_a_huge_file_is_refused_if_it_is_a_manifest_and_harmless_if_it_is_none(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a"), "image.bin": b"\0" * (20 << 20)})
    followed.look_well()
    repository.commit({"b.yml": b"#" * (17 << 20)})
    fault = followed.look()
    assert fault is not None and "b.yml:1:1: the file is larger than 16 MiB" in str(fault)


def test_a_repository_that_is_too_large_is_refused_as_such(
    repository: Repository, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"a.yml": job("a"), "noise.bin": os.urandom(2 << 20)})
    bounded = [f"--fsize={1 << 20}" if word.startswith("--fsize") else word for word in command._BOUNDED]
    monkeypatch.setattr(command, "_BOUNDED", bounded)
    refused(followed, "the repository is larger than", reason="NotSynced")


def test_a_name_that_is_not_utf8_is_refused_as_such(repository: Repository, followed: Followed) -> None:
    path = os.fsencode(repository.clone) + b"/bad\xff.yml"
    with open(path, "w") as file:
        file.write(job("a"))
    repository.commit()
    refused(followed, r"bad\xff.yml", "is not UTF-8")


def test_a_tree_without_end_is_not_read_to_its_end(repository: Repository, followed: Followed) -> None:
    """Ten trees, each holding the one below ten times: ten billion files out of a few kilobytes."""

    def store(kind: str, text: str) -> str:
        words = ["mktree"] if kind == "tree" else ["hash-object", "-w", "--stdin"]
        done = subprocess.run(
            ["git", "-C", repository.clone, *words],
            input=text,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    below, kind, mode = store("blob", job("a")), "blob", "100644"
    for _ in range(10):
        below = store("tree", "".join(f"{mode} {kind} {below}\tf{number}.yml\n" for number in range(10)))
        kind, mode = "tree", "040000"
    commit = repository.run("commit-tree", "-m", "A bomb", below)
    repository.run("update-ref", "refs/heads/main", commit)
    repository.push("main")
    refused(followed, "answered with more than 16 MiB", reason="NotSynced")


def test_hooks_filters_and_settings_of_a_repository_are_never_run(
    repository: Repository, followed: Followed, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    trap = f"#!/bin/sh\ntouch {proof}\n"
    repository.write({".gitattributes": "* filter=trap diff=trap merge=trap\n", "a.yml": job("a"), "trap": trap})
    (repository.clone / "trap").chmod(0o755)
    repository.commit({".gitmodules": '[submodule "x"]\n path = x\n url = ext::sh -c "touch /tmp/x"\n'})
    for name in ("post-checkout", "reference-transaction", "post-merge", "pre-auto-gc"):
        hook = repository.origin / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(trap)
        hook.chmod(0o755)
    for key in ("core.fsmonitor", "uploadpack.packObjectsHook", "filter.trap.smudge", "core.sshCommand"):
        repository.run("config", key, repository.clone / "trap", where=repository.origin)
    followed.look_well()
    assert set(followed.jobs) == {"a"} and not proof.exists()


def test_two_files_of_a_commit_that_declare_the_same_job_are_a_mistake(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a"), "b.yml": job("a")})
    refused(followed, "b.yml:1:1", "a is declared in a.yml too")


def test_backups_and_hidden_directories_do_not_count(repository: Repository, followed: Followed) -> None:
    """kubernetes#136962: a backup beside a manifest won silently."""
    repository.commit({"a.yml": job("a"), "a.yml.backup": job("x"), ".github/ci.yml": "on: push\n", "a.yml~": job("y")})
    followed.look_well()
    assert set(followed.jobs) == {"a"}


def test_a_path_that_is_not_there_is_said(repository: Repository, followed: Followed) -> None:
    repository.commit({"jobs/a.yml": job("a"), "b.yml": job("b")})
    followed.set(path="job")
    refused(followed, "job is not there", reason="NoSuchRevision")
    followed.set(path="jobs")
    followed.look_well()
    assert set(followed.jobs) == {"a"}


def test_a_branch_a_tag_a_commit_or_a_range_of_versions_is_followed(repository: Repository, followed: Followed) -> None:
    first = repository.commit({"a.yml": job("a", "[one]")})
    repository.run("tag", "-a", "-m", "First", "v1.0.0")
    second = repository.commit({"a.yml": job("a", "[two]")})
    repository.run("tag", "v1.1.0")
    third = repository.commit({"a.yml": job("a", "[three]")})
    repository.run("branch", "other")
    repository.push("other", "v1.0.0", "v1.1.0")
    for ref, label, commit in (
        ({}, "main", third),
        ({"branch": "other"}, "other", third),
        ({"tag": "v1.0.0"}, "v1.0.0", first),
        ({"semver": "^1.0"}, "v1.1.0", second),
        ({"semver": "1.0.0"}, "v1.0.0", first),
        ({"commit": first}, first[:12], first),
    ):
        followed.set(ref=ref)
        followed.look_well()
        applied = followed.source.applied
        assert applied is not None and (applied.label, applied.revision) == (label, commit), ref
    followed.set(ref={"branch": "none"})
    fault = followed.look()
    assert fault is not None and fault.reason == "NoSuchRevision" and "refs/heads/none" in str(fault)
    followed.set(ref={"semver": ">=2"})
    fault = followed.look()
    assert fault is not None and "no tag is a version in >=2" in str(fault) and "v1.1.0" in str(fault)


def test_a_commit_without_the_required_signature_is_not_applied(
    repository: Repository, followed: Followed, tmp_path: Path
) -> None:
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    signers = f"ann@example.org {(tmp_path / 'ours.pub').read_text()}"
    followed.set(signature={"sshSigners": signers})
    repository.commit({"a.yml": job("a")})
    refused(followed, "it has no signature", reason="NotSigned")
    repository.run("config", "gpg.format", "ssh")
    repository.run("config", "user.signingKey", tmp_path / "theirs")
    repository.commit({"a.yml": job("a", "[signed]")}, "-S")
    refused(followed, "is not signed by anybody in spec.signature", reason="NotSigned")
    repository.run("config", "user.signingKey", tmp_path / "ours")
    repository.commit({"a.yml": job("a", "[well]")}, "-S")
    followed.set(signature={"sshSigners": signers})
    followed.look_well()
    repository.run("tag", "-a", "-m", "Unsigned", "v1.0.0")
    repository.push("v1.0.0")
    followed.set(ref={"tag": "v1.0.0"})
    fault = followed.look()
    assert fault is not None and fault.reason == "NotSigned" and "the tag" in str(fault)


def test_an_openpgp_signature_counts_if_its_key_is_named(
    repository: Repository, followed: Followed, tmp_path: Path
) -> None:
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    try:
        subprocess.run(
            [*gpg, "--passphrase", "", "--quick-gen-key", "Ann <ann@example.org>", "ed25519", "sign", "never"],
            check=True,
        )
        keys = subprocess.run([*gpg, "--export", "--armor"], check=True, capture_output=True, text=True).stdout
        wrapper = tmp_path / "gpg-here"
        wrapper.write_text(f'#!/bin/sh\nexec gpg --homedir {home} "$@"\n')
        wrapper.chmod(0o755)
        repository.run("config", "gpg.program", wrapper)
        repository.run("config", "user.signingKey", "ann@example.org")
        repository.commit({"a.yml": job("a")}, "-S")
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    followed.set(signature={"gpgKeys": keys})
    followed.look_well()
    assert set(followed.jobs) == {"a"}
    followed.set(signature={"sshSigners": "nobody@example.org ssh-ed25519 AAAA"})
    fault = followed.look()
    assert fault is not None and fault.reason == "NotSigned"
    followed.set(signature={"gpgKeys": keys})
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ssh"], check=True)
    repository.run("config", "gpg.format", "ssh")
    repository.run("config", "user.signingKey", tmp_path / "ssh")
    repository.commit({"a.yml": job("a", "[other]")}, "-S")
    fault = followed.look()
    assert fault is not None and fault.reason == "NotSigned", "an SSH signature of nobody named"

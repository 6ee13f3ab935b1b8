"""Manifests that are hostile in themselves are refused, by their place, and change nothing; whatever way they come in."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest

from joblet.api.v1 import job_pb2
from tests.canary import files_with
from tests.hostile.refusal import Refusal, refusals
from tests.hostile.street import Street
from tests.integration.host import eventually

REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
PLAIN = 'apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{command: ["true"]}}\n'


def names(street: Street) -> set[str]:
    return {job.name for job in street.host.jobs.List(job_pb2.ListRequest()).jobs}


@pytest.mark.parametrize("refusal", refusals(), ids=lambda refusal: refusal.name)
def test_a_hostile_manifest_is_refused_and_changes_nothing(street: Street, refusal: Refusal) -> None:
    state, jobs = street.state(), names(street)
    with pytest.raises(grpc.RpcError) as refused:
        street.host.apply(refusal.text)
    assert refused.value.code() in REFUSED
    details = refused.value.details() or ""
    assert refusal.named in details and "\x1b" not in details
    assert (street.state(), names(street)) == (state, jobs)
    street.victim_is_well()


def lay_hostile_files(spool: Path, outside: Path) -> None:
    """What nobody should find in a spool directory. Each has a name that says so, and a manifest of that name where it can."""
    (spool / "link-out.yml").symlink_to(outside / "secret-of-the-host")
    (spool / "link-to-shadow.yml").symlink_to("/etc/shadow")
    (spool / "link-to-itself.yml").symlink_to("link-to-itself.yml")
    os.mkfifo(spool / "pipe.yml", 0o600)
    (spool / "directory.yml").mkdir()
    (spool / "link-to-manifest.yml").symlink_to(outside / "manifest.yml")
    for name, mode, owner in (("writable-by-all", 0o666, 0), ("owned-by-somebody", 0o644, 12345)):
        path = spool / f".{name}"  # not looked at by that name: it appears with the owner and mode it is refused for
        path.write_text(PLAIN.format(name=name))
        os.chown(path, owner, owner)
        path.chmod(mode)
        path.rename(spool / f"{name}.yml")
    with (spool / "large.yml").open("w") as file:
        file.truncate(1 << 40)
    for number, name in enumerate(
        ("new\nline.yml", "\x1b[2J.yml", os.fsdecode(b"\xff\xfe.yml"), "-rf.yml", "n" * 251 + ".yml")
    ):
        (spool / name).write_text(PLAIN.format(name=f"strange-{number}").replace("command", "comand"))


def test_hostile_files_in_the_spool_are_refused_and_read_by_nobody(street: Street) -> None:
    spool, before = street.host.spool, set(street.host.spool.iterdir())
    jobs = names(street)
    manifest = street.outside / "manifest.yml"
    manifest.write_text(PLAIN.format(name="link-to-manifest"))
    try:
        lay_hostile_files(spool, street.outside)
        hostile = len(set(spool.glob("*.yml")) - before)
        (spool / "honest.yml").write_text(PLAIN.format(name="honest"))
        eventually(lambda: "honest" in names(street), what="the honest file's job")
        assert street.host.finished("honest").phase == "COMPLETED"
        eventually(lambda: len(list((spool / "status").glob("*.error.yml"))) == hostile, what="an error file for each")
        assert names(street) - jobs == {"honest"}
        log = (street.host.root / "daemon.log").read_bytes()
        assert files_with([street.secret.encode()], spool / "status") == []
        assert street.secret.encode() not in log
        assert b"\x1b[2J" not in log
        street.victim_is_well()
    finally:
        manifest.unlink()
        for path in set(spool.iterdir()) - before:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    eventually(lambda: "honest" not in names(street), what="the honest file's job is gone")

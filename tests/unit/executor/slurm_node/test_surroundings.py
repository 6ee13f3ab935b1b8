"""What an attempt has around it on a node: its secrets, its contents, its volumes, by the files that both sides know."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from joblet.manifest import JobManifest
from jobletd.blobs.copying import ContentDamaged
from jobletd.executor import GivenSecrets
from jobletd.executor.slurm_node import sealed_secrets, volumes
from jobletd.executor.slurm_node.contents import ContentGone, NodeContents
from jobletd.executor.slurm_node.place import Place
from jobletd.executor.slurm_node.sealed_secrets import SecretsGone
from jobletd.executor.slurm_node.volumes import Holder
from jobletd.secrets.errors import SecretDamaged, SecretKeyError

GIVEN = GivenSecrets({"db/password": b"\xff hidden \0", "env x": b"a file"}, {"TOKEN": b"in the environment"})
DATA = b"uploaded" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place.of(str(tmp_path / "shared"), "a-b-1")
    os.makedirs(found.directory)
    return found


def test_sealed_secrets_are_for_root_and_are_taken_once(place: Place) -> None:
    key = sealed_secrets.new_key()
    sealed_secrets.put(place, "a-b-1", key, GIVEN)
    path = Path(place.directory, "secrets")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"hidden" not in path.read_bytes()
    assert sealed_secrets.take(place, "a-b-1", key) == GIVEN
    assert not path.exists()
    with pytest.raises(SecretsGone):
        sealed_secrets.take(place, "a-b-1", key)


def test_secrets_open_for_their_own_attempt_and_key_alone(place: Place) -> None:
    key = sealed_secrets.new_key()
    sealed_secrets.put(place, "a-b-1", key, GIVEN)
    with pytest.raises(SecretKeyError):
        sealed_secrets.take(place, "a-b-1", sealed_secrets.new_key())
    sealed_secrets.put(place, "a-b-1", key, GIVEN)
    with pytest.raises(SecretDamaged):
        sealed_secrets.take(place, "a-b-2", key)


def job() -> JobManifest:
    files = [{"path": name, "sha256": SHA256, "size": len(DATA)} for name in "ab"]
    document = {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "a"}}
    return JobManifest.model_validate({**document, "spec": {"command": ["true"], "files": files}})


def test_a_node_fetches_a_content_once(place: Place, tmp_path: Path) -> None:
    source = Path(place.content(SHA256))
    source.parent.mkdir()
    source.write_bytes(DATA)
    node = NodeContents(str(tmp_path / "node"), len(DATA))
    node.provide(job(), place.content, str(tmp_path / "first"))
    source.unlink()
    node.provide(job(), place.content, str(tmp_path / "second"))
    assert (tmp_path / "first" / SHA256).samefile(tmp_path / "second" / SHA256)
    assert (tmp_path / "second" / SHA256).read_bytes() == DATA
    NodeContents(str(tmp_path / "node"), 0).provide(job(), place.content, str(tmp_path / "third"))
    assert os.listdir(tmp_path / "node") == ["lock"]  # it has room for none
    assert (tmp_path / "third" / SHA256).read_bytes() == DATA
    with pytest.raises(ContentGone):
        node.provide(job(), place.content, str(tmp_path / "fourth"))


@pytest.mark.parametrize("change", [bytes.upper, lambda data: data[:-1], lambda data: data + b"x"])
def test_a_content_that_is_another_is_not_taken(place: Place, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    source = Path(place.content(SHA256))
    source.parent.mkdir()
    source.write_bytes(change(DATA))
    with pytest.raises(ContentDamaged):
        NodeContents(str(tmp_path / "node"), 1 << 30).provide(job(), place.content, str(tmp_path / "into"))
    assert os.listdir(tmp_path / "node") == ["lock"]


def test_a_volume_has_one_holder_who_is_named(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert volumes.holder_of(directory) is None
    assert volumes.claim(directory, Holder("a-b-1", "n1", "boot"))
    assert not volumes.claim(directory, Holder("a-b-2", "n2", "boot"))
    assert str(volumes.holder_of(directory)) == "attempt a-b-1 on n1"
    (tmp_path / "volume.img").touch()
    volumes.give_back(directory)
    assert volumes.claim(directory, Holder("a-b-2", "n2", "boot"))
    (tmp_path / "attached").write_text("{")  # a power cut
    assert not volumes.claim(directory, Holder("a-b-3", "n2", "boot"))
    assert str(volumes.holder_of(directory)) == "somebody who left no name"

"""An archive is read whole or not at all, whatever happened to it."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest

from jobletd.backup.archive import Member, read_archive, write_archive
from jobletd.backup.errors import ArchiveDamaged, BackupError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(random.Random(1).randbytes(50_000))
    (source / "b").write_text("hello")
    path = tmp_path / "archive"
    write_archive(str(path), [Member("x/a", str(source / "a")), Member("b", str(source / "b"), 0o644)], {"host": "h"})
    return path


def unpack(path: Path, into: Path) -> dict[str, bytes]:
    into.mkdir()
    read_archive(str(path), str(into))
    return {str(file.relative_to(into)): file.read_bytes() for file in into.rglob("*") if file.is_file()}


def test_what_goes_in_comes_out(archive: Path, tmp_path: Path) -> None:
    found = unpack(archive, tmp_path / "out")
    assert found == {"x/a": (tmp_path / "source/a").read_bytes(), "b": b"hello"}
    contents = read_archive(str(archive), str(tmp_path / "again"))
    assert contents.facts == {"host": "h"}
    assert contents.modes == {"x/a": 0o600, "b": 0o644}
    assert archive.stat().st_mode & 0o777 == 0o600


def test_an_archive_that_was_cut_off_is_refused_wherever(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    places = {0, 1, 10, 100, len(whole) - 1, len(whole) - 8, *random.Random(2).sample(range(len(whole)), 40)}
    for number, place in enumerate(sorted(places)):
        archive.write_bytes(whole[:place])
        with pytest.raises(ArchiveDamaged):
            unpack(archive, tmp_path / f"out-{number}")


def test_an_archive_with_a_changed_byte_is_refused_or_means_the_same(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    good = unpack(archive, tmp_path / "good")
    draw = random.Random(3)
    refused = 0
    for number in range(200):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        archive.write_bytes(damaged)
        try:
            assert unpack(archive, tmp_path / f"out-{number}") == good  # in gzip's own header some bytes mean nothing
        except BackupError:
            refused += 1
    assert refused > 190


@pytest.mark.parametrize("name", ["/etc/passwd", "../above", "a/../../above", "a//b", ".hidden", "a/./b", ""])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "archive"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(BackupError):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "above").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "archive"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("member")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(ArchiveDamaged, match="no place"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive at all", gzip.compress(b""), gzip.compress(b"\0" * 10240)],
    ids=["empty", "text", "nothing compressed", "zeros compressed"],  # gzip's bytes have the time in them
)
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "archive"
    path.write_bytes(content)
    with pytest.raises(ArchiveDamaged):
        unpack(path, tmp_path / "out")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "archive"
    target.write_text("the one of before")
    with pytest.raises(FileNotFoundError):
        write_archive(str(target), [Member("a", str(tmp_path / "missing"))], {})
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]
    assert target.read_text() == "the one of before"

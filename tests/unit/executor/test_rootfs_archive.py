"""Archives of root file systems, honest and hostile: nothing is written outside, whatever the order of entries."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from joblet.sandbox.rootfs_archive import RootfsError, unpack
from jobletd.executor.local import rootfs_store
from jobletd.executor.local.rootfs_store import RootfsStore

Entry = tarfile.TarInfo


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o644, link: str = "", uid: int = 0) -> Entry:
    made = Entry(name)
    made.type, made.mode, made.linkname, made.uid, made.gid = kind, mode, link, uid, uid
    return made


def archive(*entries: Entry | tuple[Entry, bytes], compression: str = "") -> io.BytesIO:
    buffer = io.BytesIO()
    mode = f"w:{compression}"
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as made:  # type: ignore[call-overload]
        for item in entries:
            info, data = item if isinstance(item, tuple) else (item, b"")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


DIRECTORY, LINK, HARD, FIFO, CHARACTER, BLOCK = (
    *(tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE),
)


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_an_honest_archive_is_unpacked_with_modes_owners_and_links(target: Path, compression: str) -> None:
    file = archive(
        entry("./", DIRECTORY, mode=0o755),
        entry("./usr/bin", DIRECTORY, mode=0o755),
        (entry("./usr/bin/tool", mode=0o755, uid=7), b"#!tool"),
        entry("./bin", LINK, link="usr/bin"),
        entry("./usr/bin/also", HARD, link="./usr/bin/tool"),
        entry("./etc/mtab", LINK, link="/proc/mounts"),
        entry("./tmp", DIRECTORY, mode=0o1777),
        compression=compression,
    )
    unpack(file, "a.tar", str(target))
    tool = (target / "usr/bin/tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_uid, tool.st_nlink) == (0o755, 7, 2)
    assert (target / "bin/also").read_bytes() == b"#!tool"
    assert os.readlink(target / "etc/mtab") == "/proc/mounts"
    assert stat.S_IMODE((target / "tmp").stat().st_mode) == 0o1777


def test_bits_that_give_other_ids_are_taken_away(target: Path) -> None:
    unpack(archive((entry("su", mode=0o6755), b"x"), entry("d", DIRECTORY, mode=0o2755)), "a.tar", str(target))
    assert [stat.S_IMODE((target / name).stat().st_mode) for name in ("su", "d")] == [0o755, 0o755]


def test_what_lies_below_dev_is_left_out_since_a_job_gets_its_own(target: Path) -> None:
    unpack(archive(entry("dev", DIRECTORY), entry("./dev/null", CHARACTER), entry("dev/sda", BLOCK)), "a", str(target))
    assert os.listdir(target / "dev") == []


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("/etc/passwd")], "is absolute"),
        ([entry("../up")], "leads out"),
        ([entry("a/../../up")], "leads out"),
        ([entry("a", LINK, link="../up")], "is a link that leads out"),
        ([entry("a/b", LINK, link="../../up")], "is a link that leads out"),
        ([entry("a", HARD, link="/etc/passwd")], "is absolute"),
        ([entry("a", HARD, link="../up")], "leads out"),
        ([entry("a", LINK, link="/"), entry("a/b")], "lies below 'a', which is no directory"),
        ([entry("a", LINK, link="b"), entry("b", DIRECTORY), entry("a/c")], "lies below 'a'"),
        ([entry("a", LINK, link="/etc"), entry("b", HARD, link="a/passwd")], "lies below 'a'"),
        ([entry("a", DIRECTORY), entry("a", LINK, link="/"), entry("a/b")], "cannot be unpacked (Is a directory)"),
        ([entry("null", CHARACTER)], "is a device node"),
        ([entry("disk", BLOCK)], "is a device node"),
        ([entry("pipe", FIFO)], "is neither file, directory nor link"),
        ([entry("a", uid=65536)], "belongs to 65536:65536"),
        ([entry("x" * 300)], "File name too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_archive_is_refused_and_nothing_is_outside(target: Path, entries: list[Entry], words: str) -> None:
    with pytest.raises(RootfsError) as refused:
        unpack(archive(*entries), "a.tar", str(target))
    assert words in str(refused.value) and str(refused.value).startswith("a.tar: entry ")
    assert os.listdir(target.parent) == ["in"]


def test_a_file_replaces_a_link_instead_of_following_it(target: Path) -> None:
    outside = target.parent / "outside"
    outside.write_text("host")
    unpack(archive(entry("a", LINK, link=str(outside)), (entry("a"), b"job")), "a.tar", str(target))
    assert outside.read_text() == "host" and (target / "a").read_text() == "job"


def test_more_than_is_allowed_is_refused(target: Path) -> None:
    with pytest.raises(RootfsError, match="larger than is allowed"):
        unpack(archive((entry("a"), b"12345")), "a.tar", str(target), max_bytes=4)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 2000])
def test_a_damaged_archive_is_refused(target: Path, damage: Callable[[bytes], bytes]) -> None:
    whole = archive((entry("a"), os.urandom(5000)), compression="gz").getvalue()
    with pytest.raises(RootfsError, match="is no archive that can be read"):
        unpack(io.BytesIO(damage(whole)), "a.tar", str(target))


# --- the store --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> RootfsStore:
    made = RootfsStore(str(tmp_path / "rootfs"))
    made.remove_unused(())
    return made


def provide(store: RootfsStore, path: Path) -> tuple[str, str]:
    return asyncio.run(store.provide(str(path)))


def test_an_archive_is_unpacked_once_for_its_content(store: RootfsStore, tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        (tmp_path / name).write_bytes(archive((entry("a"), b"same")).getvalue())
    first, name = provide(store, tmp_path / "one.tar")
    inode = os.stat(f"{first}/a").st_ino
    assert provide(store, tmp_path / "two.tar") == (first, name) and len(name) == 64
    assert os.stat(f"{first}/a").st_ino == inode
    (tmp_path / "one.tar").write_bytes(archive((entry("a"), b"other")).getvalue())
    assert provide(store, tmp_path / "one.tar")[0] != first
    assert stat.S_IMODE((tmp_path / "rootfs").stat().st_mode) == 0o700


def test_a_directory_is_taken_as_it_is(store: RootfsStore, target: Path) -> None:
    assert provide(store, target) == (str(target), "")


def test_a_header_that_is_larger_than_memory_is_refused(store: RootfsStore, tmp_path: Path) -> None:
    huge = entry("././@PaxHeader", tarfile.XHDTYPE)
    huge.size = 2 << 30
    with gzip.open(tmp_path / "huge.tar.gz", "wb", compresslevel=1) as file:
        file.write(huge.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(640):
            file.write(bytes(1 << 20))
    with pytest.raises(RootfsError, match=r"needs more than 512 MiB of memory to be unpacked"):
        provide(store, tmp_path / "huge.tar.gz")
    assert os.listdir(tmp_path / "rootfs") == []


def test_of_a_refused_archive_nothing_stays(store: RootfsStore, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(archive((entry("a"), b"x"), entry("../b")).getvalue())
    with pytest.raises(RootfsError):
        provide(store, tmp_path / "bad.tar")
    assert os.listdir(tmp_path / "rootfs") == []


def test_what_is_unused_goes_with_the_next_daemon_but_for_what_a_job_holds(store: RootfsStore, tmp_path: Path) -> None:
    names = []
    for content in (b"1", b"2", b"3"):
        path = tmp_path / "x.tar"
        path.write_bytes(archive((entry("a"), content)).getvalue())
        names.append(provide(store, path)[1])
    for name in names[:2]:
        os.utime(tmp_path / "rootfs" / name, (0, 0))
    (tmp_path / "rootfs/.new-torn").mkdir()
    store.remove_unused({names[0]})
    assert set(os.listdir(tmp_path / "rootfs")) == {names[0], names[2]}
    assert rootfs_store.UNUSED_SECONDS == 30 * 86400


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_what_a_decompressor_finds_wrong_is_a_fault_of_the_archive(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    whole = (
        archive((entry("a"), bytes(511) + b"x")).getvalue().rstrip(b"\0")
    )  # read to its very end, for want of an end mark
    packed = bytearray(compress(whole))
    packed[-7] ^= 0xFF  # in the checksum or close to it
    with pytest.raises(RootfsError, match=r"x.tar: is no archive that can be read"):
        unpack(io.BytesIO(bytes(packed)), "x.tar", str(tmp_path))


@pytest.mark.parametrize(
    "record", [b"9" * 4000 + b" path=x\n", b"99999999999999999999 path=x\n", b"20 path=a\0b/c/d/e/f\n"]
)
def test_a_pax_header_that_nobody_wrote_is_a_fault_of_the_archive(tmp_path: Path, record: bytes) -> None:
    header = entry("x", tarfile.XHDTYPE)
    with pytest.raises(RootfsError, match=r"x.tar: "):
        unpack(archive((header, record), (entry("a"), b"1")), "x.tar", str(tmp_path))

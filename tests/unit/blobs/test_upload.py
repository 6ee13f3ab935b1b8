"""Contents on their way in: kept whole or not at all, within bounds, and gone when nobody names them."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobletd.blobs.store import BlobLimits, BlobStore, UploadRefused
from jobletd.blobs.upload import Upload


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return opened(tmp_path)


def opened(path: Path, *, file_bytes: int = 1000, total_bytes: int = 2000) -> BlobStore:
    store = BlobStore(str(path / "blobs"), BlobLimits(file_bytes, total_bytes))
    store.open()
    return store


@contextmanager
def upload(store: BlobStore) -> Iterator[Upload]:
    one = Upload(store)
    try:
        yield one
    finally:
        one.close()


def put(store: BlobStore, *contents: bytes) -> None:
    with upload(store) as one:
        for data in contents:
            one.begin(sha(data), len(data))
            one.write(data[: len(data) // 2])
            one.write(data[len(data) // 2 :])
        one.finish()


def put_as(store: BlobStore, claimed: str, size: int, data: bytes) -> None:
    with upload(store) as one:
        one.begin(claimed, size)
        one.write(data)
        one.finish()


def files(path: Path) -> list[str]:
    return sorted(str(one.relative_to(path / "blobs")) for one in (path / "blobs").rglob("*") if one.is_file())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=6))
def test_what_was_uploaded_is_there_under_its_checksum(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("blobs")
    store = opened(path)
    put(store, *contents)
    put(store, *contents)
    assert files(path) == sorted({f"sha256/{sha(data)}" for data in contents})
    assert all(Path(store.path(sha(data))).read_bytes() == data for data in contents)
    assert store.total_bytes == sum(map(len, set(contents))) == opened(path).total_bytes


def test_thousands_need_no_more_descriptors_than_one(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        put(opened(tmp_path, total_bytes=1 << 20), *(str(number).encode() for number in range(300)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(files(tmp_path)) == 300


def test_nobody_but_root_can_read_them(store: BlobStore) -> None:
    put(store, b"x")
    assert stat.S_IMODE(os.stat(store.path(sha(b"x"))).st_mode) == 0o600


def test_what_is_cut_off_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    with upload(store) as one:
        one.begin(sha(b"first"), 5)
        one.write(b"first")
        one.begin(sha(b"second"), 6)
        one.write(b"sec")
    assert files(tmp_path) == [] and store.total_bytes == 0
    put(store, b"x" * 1000, b"y" * 1000)  # nothing stays reserved


def test_what_a_killed_daemon_left_goes_at_the_next_start(store: BlobStore, tmp_path: Path) -> None:
    Upload(store).begin(sha(b"x"), 1)
    assert len(files(tmp_path)) == 1
    opened(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("claimed", "size", "data", "what"),
    [
        (sha(b"abc"), 3, b"abd", "not what its checksum says"),
        (sha(b"abc"), 3, b"ab", "not what its checksum says"),
        (sha(b"abc"), 3, b"abcd", "longer than the 3 bytes"),
        (sha(b"abc"), 1001, b"", "at most 1000 are allowed"),
        ("../../etc/passwd", 3, b"abc", "without a SHA-256"),
        (sha(b"abc").upper(), 3, b"abc", "without a SHA-256"),
        (sha(b"abc"), -1, b"", "without a SHA-256"),
    ],
)
def test_what_is_not_as_it_was_said_is_refused(
    store: BlobStore, tmp_path: Path, claimed: str, size: int, data: bytes, what: str
) -> None:
    with pytest.raises(UploadRefused, match=what):
        put_as(store, claimed, size, data)
    assert files(tmp_path) == []


def test_bytes_without_a_beginning_are_refused(store: BlobStore) -> None:
    with pytest.raises(UploadRefused, match="before the content"), upload(store) as one:
        one.write(b"x")


def test_all_together_are_bounded_also_while_they_are_on_their_way(store: BlobStore) -> None:
    with upload(store) as one, upload(store) as other:
        one.begin(sha(b"a"), 1000)
        other.begin(sha(b"b"), 1000)
        with pytest.raises(UploadRefused, match="no room for 1 bytes"), upload(store) as third:
            third.begin(sha(b"c"), 1)


def test_only_what_is_neither_named_nor_new_goes(store: BlobStore, tmp_path: Path) -> None:
    put(store, b"named", b"new", b"old")
    for data in (b"named", b"new", b"old"):
        os.utime(store.path(sha(data)), (1000, 1000))
    assert store.use(sha(b"new"), 3)
    assert not store.use(sha(b"old"), 4)  # of another size: damaged, and not to be trusted
    assert store.remove_unused({sha(b"named")}, before=2000) == [3]
    assert files(tmp_path) == sorted(f"sha256/{sha(data)}" for data in (b"named", b"new"))
    assert store.total_bytes == 8

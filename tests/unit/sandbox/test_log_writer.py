"""The CRI log: any bytes in any chunks come out as they went in; rotation keeps the newest within its bound."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from joblet.sandbox.log_writer import LINE_BYTES, SEGMENTS, LogWriter, to_cri

FULL = b"2026-01-02T03:04:05.123456789Z stdout F "
PART = b"2026-01-02T03:04:05.123456789Z stdout P "


def back(record: bytes) -> bytes:
    """What a reader of the format makes of it."""
    whole = []
    for line in record.split(b"\n")[:-1]:
        text = line[len(FULL) :]
        whole.append(text + b"\n" if line.startswith(FULL) else text)
        assert line.startswith((FULL, PART))
        assert len(text) <= LINE_BYTES
    return b"".join(whole)


@given(st.lists(st.one_of(st.binary(max_size=50), st.just(b"\n"), st.integers(1, 40000).map(lambda size: b"x" * size))))
def test_any_chunk_comes_out_as_it_went_in(parts: list[bytes]) -> None:
    data = b"".join(parts)
    record = b"".join(to_cri(data, FULL, PART))
    assert back(record) == data
    assert record.endswith(b"\n") or not data


def test_lines_are_tagged_full_and_an_unfinished_one_partial() -> None:
    assert b"".join(to_cri(b"one\n\ntwo", FULL, PART)) == FULL + b"one\n" + FULL + b"\n" + PART + b"two\n"


def test_a_long_line_that_ends_has_its_last_part_tagged_full() -> None:
    record = b"".join(to_cri(b"x" * (LINE_BYTES + 1) + b"\n", FULL, PART))
    assert record == PART + b"x" * LINE_BYTES + b"\n" + FULL + b"x\n"


def open_writer(directory: Path, limit_bytes: int) -> LogWriter:
    return LogWriter(os.open(directory, os.O_RDONLY | os.O_DIRECTORY), "out.log", limit_bytes)


def test_the_time_stamp_is_in_nanoseconds_of_utc(tmp_path: Path) -> None:
    open_writer(tmp_path, 1 << 20).write("stderr", b"x\n")
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stderr F x\n", (tmp_path / "out.log").read_bytes())


def test_rotation_keeps_the_newest_within_the_bound(tmp_path: Path) -> None:
    limit = 64 << 10
    writer = open_writer(tmp_path, limit)
    for number in range(20_000):
        writer.write("stdout", b"%d\n" % number)
        if number % 1000 == 0:
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[0] == "out.log" and len(names) == SEGMENTS
    rotated = [int(name.rpartition(".")[2]) for name in names[1:]]
    assert rotated == list(range(rotated[0], rotated[0] + SEGMENTS - 1))
    assert (tmp_path / "out.log").read_bytes().endswith(b"F 19999\n")


def test_one_chunk_of_many_short_lines_stays_within_the_bound(tmp_path: Path) -> None:
    limit = 64 << 10
    writer = open_writer(tmp_path, limit)
    writer.write("stdout", b"\n" * 65536)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    assert writer.dropped_bytes == 0


def test_a_file_that_cannot_be_written_counts_what_is_lost(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    writer = LogWriter(fd, "other.log", 1 << 20)
    writer._fd = os.open("/dev/full", os.O_WRONLY)
    writer.write("stdout", b"lost\n")
    assert (writer.dropped_bytes, "No space left" in writer.error) == (5, True)


def test_a_rotation_that_finds_no_room_loses_no_more_than_what_came_meanwhile(tmp_path: Path) -> None:
    writer = open_writer(tmp_path, 16 << 10)  # four segments of 4 KiB
    writer.write("stdout", b"x" * 3000 + b"\n")
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "out.log", tmp_path / "elsewhere/out.log")  # the rename of the rotation fails
    writer.write("stdout", b"y" * 3000 + b"\n")
    assert writer.dropped_bytes == 3001
    os.rename(tmp_path / "elsewhere/out.log", tmp_path / "out.log")
    writer.write("stdout", b"z" * 3000 + b"\n")
    assert writer.dropped_bytes == 3001
    assert b"z" in (tmp_path / "out.log").read_bytes() and b"x" in (tmp_path / "out.log.00000001").read_bytes()

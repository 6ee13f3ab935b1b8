"""What a job wrote comes back byte for byte, across rotations, while it is written."""

from __future__ import annotations

import asyncio
import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joblet.sandbox.log_writer import LogWriter
from jobletd.executor import LogQuery
from jobletd.log_reader import LogFiles, LogReader, _Seconds, parse_line, read_log
from jobletd.model import LogEntry
from tests.timing import PATIENCE

NAME = "abcdefgh-1.log"


def writer_in(directory: str, limit_bytes: int = 1 << 22) -> LogWriter:
    return LogWriter(os.open(directory, os.O_RDONLY | os.O_DIRECTORY), NAME, limit_bytes)


def everything(path: str) -> list[LogEntry]:
    reader = LogReader(path)
    found: list[LogEntry] = []
    while entries := reader.read():
        found += entries
    reader.close()
    return found


def joined(entries: list[LogEntry], stream: str) -> bytes:
    return b"".join(entry.data for entry in entries if entry.stream == stream)


pieces = st.one_of(st.binary(max_size=200), st.integers(1, 3).map(lambda n: b"x" * (n * 9000)), st.just(b"\n" * 50))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), pieces.filter(bool)), max_size=12))
def test_any_bytes_come_back_as_they_were(chunks: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        writer = writer_in(directory)
        for stream, data in chunks:
            writer.write(stream, data)
        entries = everything(f"{directory}/{NAME}")
    for stream in ("stdout", "stderr"):
        assert joined(entries, stream) == b"".join(data for name, data in chunks if name == stream)


def test_a_reader_that_keeps_up_loses_nothing_to_rotation(tmp_path: Path) -> None:
    writer = writer_in(str(tmp_path), limit_bytes=64 << 10)
    reader = LogReader(f"{tmp_path}/{NAME}")
    written, read = b"", b""
    for number in range(3000):
        line = b"line %d of many\n" % number
        writer.write("stdout", line)
        written += line
        if number % 50 == 0:
            while entries := reader.read():
                read += joined(entries, "stdout")
    while entries := reader.read():
        read += joined(entries, "stdout")
    reader.close()
    assert len(list(tmp_path.iterdir())) == 4
    assert read == written


def test_old_output_rotates_away_and_the_newest_stays(tmp_path: Path) -> None:
    writer = writer_in(str(tmp_path), limit_bytes=64 << 10)
    for number in range(5000):
        writer.write("stdout", b"%d\n" % number)
    numbers = [int(entry.data) for entry in everything(f"{tmp_path}/{NAME}")]
    assert numbers == list(range(numbers[0], 5000)) and numbers[0] > 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 64 << 10


def test_what_is_no_entry_is_passed_over(tmp_path: Path) -> None:
    good = b"2026-01-02T03:04:05.123456789Z stdout F text\n"
    (tmp_path / NAME).write_bytes(
        b"garbage\n\x00\xff\n" + good + b"2026-99-02T03:04:05.123456789Z stdout F x\n" + good[:30]
    )
    assert [entry.data for entry in everything(f"{tmp_path}/{NAME}")] == [b"text\n"]


def test_times_are_exact(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"1970-01-01T00:00:01.000000002Z stderr P half\n")
    (entry,) = everything(f"{tmp_path}/{NAME}")
    assert (entry.time_ns, entry.stream, entry.partial, entry.data) == (1_000_000_002, "stderr", True, b"half")


def read_all(path: str, query: LogQuery) -> list[bytes]:
    async def read() -> list[bytes]:
        found: list[bytes] = []
        async for batch in read_log(path, query, has_ended=lambda: True, ended=asyncio.Event()):
            found += [entry.data for entry in batch]
        return found

    return asyncio.run(read())


def test_tail_counts_lines_and_a_part_belongs_to_its_line(tmp_path: Path) -> None:
    writer = writer_in(str(tmp_path))
    writer.write("stdout", b"one\ntwo\nthr")
    writer.write("stdout", b"ee\n")
    path = f"{tmp_path}/{NAME}"
    assert read_all(path, LogQuery(tail_lines=1)) == [b"thr", b"ee\n"]
    assert read_all(path, LogQuery(tail_lines=2)) == [b"two\n", b"thr", b"ee\n"]
    assert read_all(path, LogQuery(tail_lines=0)) == []


def test_one_stream_and_a_time_select(tmp_path: Path) -> None:
    writer = writer_in(str(tmp_path))
    writer.write("stdout", b"out\n")
    writer.write("stderr", b"err\n")
    path = f"{tmp_path}/{NAME}"
    late = everything(path)[1].time_ns
    assert read_all(path, LogQuery(stream="stderr")) == [b"err\n"]
    assert read_all(path, LogQuery(since_ns=late)) == [b"err\n"]


def test_who_follows_what_has_ended_has_it_all_and_watches_nothing(tmp_path: Path) -> None:
    writer_in(str(tmp_path)).write("stdout", b"all there is\n")

    def watches() -> int:
        return sum("inotify" in os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))

    async def read(ended: bool) -> tuple[bytes, int]:
        query, before = LogQuery(follow=True), watches()
        batches = read_log(f"{tmp_path}/{NAME}", query, has_ended=lambda: ended, ended=asyncio.Event())
        found = joined(await anext(batches), "stdout"), watches() - before
        await batches.aclose()  # type: ignore[attr-defined]
        return found

    assert asyncio.run(read(ended=True)) == (b"all there is\n", 0)
    assert asyncio.run(read(ended=False)) == (b"all there is\n", 1)


def test_a_follower_gets_what_comes_and_ends_with_the_writer(tmp_path: Path) -> None:
    async def follow() -> bytes:
        writer = writer_in(str(tmp_path), limit_bytes=64 << 10)
        over = False
        ended = asyncio.Event()
        got = bytearray()
        first = asyncio.Event()

        async def read() -> None:
            query = LogQuery(follow=True)
            async for batch in read_log(f"{tmp_path}/{NAME}", query, has_ended=lambda: over, ended=ended):
                got.extend(joined(batch, "stdout"))
                first.set()

        task = asyncio.create_task(read())
        writer.write("stdout", b"begin\n")
        await asyncio.wait_for(first.wait(), 10 * PATIENCE)
        for number in range(2000):
            writer.write("stdout", b"line %d\n" % number)
            if number % 20 == 0:
                await asyncio.sleep(0)
        over = True
        ended.set()
        await asyncio.wait_for(task, 20 * PATIENCE)
        return bytes(got)

    expected = b"begin\n" + b"".join(b"line %d\n" % number for number in range(2000))
    assert asyncio.run(follow()) == expected


def test_removing_takes_all_segments_and_leaves_the_directory_to_others(tmp_path: Path) -> None:
    directory = tmp_path / "job"
    directory.mkdir()
    writer = writer_in(str(directory), limit_bytes=64 << 10)
    for number in range(3000):
        writer.write("stdout", b"%d\n" % number)
    LogFiles(f"{directory}/{NAME}").remove()
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("year", ["0001", "1969", "2263", "9999"])
def test_a_time_that_no_log_can_have_is_none_of_an_entry(year: str) -> None:
    assert parse_line(f"{year}-01-02T03:04:05.000000000Z stdout F x".encode(), _Seconds()) is None


def test_a_file_without_ends_of_lines_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with path.open("wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
        file.write(b"\n2026-01-02T03:04:05.000000000Z stdout F after it\n")
    reader = LogReader(str(path))
    tracemalloc.start()
    try:
        (entry,) = reader.read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        reader.close()
    assert entry.data == b"after it\n"
    assert peak < 16 << 20

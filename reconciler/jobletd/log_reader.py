"""Reads an attempt's CRI log: the rotated segments, oldest first, then the current file; and follows it as it grows.

Segments are ``<name>.log.00000001`` and so on, and ``<name>.log`` is the current one; a rotation renames it to the next number.
A reader that holds a file open goes on reading it after its rename, so nothing is lost in between.
"""

from __future__ import annotations

import asyncio
import calendar
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from jobletd.executor import LogQuery
from jobletd.inotify import RECHECK_SECONDS, ChangeWatch
from jobletd.model import LogEntry

BLOCK_BYTES = 1 << 16  # what a reader that stalls holds, parsed, in memory: some ten times as much
LONGEST_LINE_BYTES = 1 << 20  # many times what an init writes: a file without ends of lines is none of ours
LATEST_NS = 2**63 - 1
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z (stdout|stderr) ([FP]) (.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{8}")


@dataclass(slots=True)
class _Seconds:
    """The last second that was parsed: thousands of lines share one."""

    text: bytes = b""
    value: int = 0

    def parse(self, text: bytes) -> int:
        if text != self.text:
            self.value = calendar.timegm(time.strptime(text.decode(), "%Y-%m-%dT%H:%M:%S"))
            self.text = text
        return self.value


def parse_line(line: bytes, seconds: _Seconds) -> LogEntry | None:
    """One CRI line without its end; None if it is none (a damaged disk, a stranger's file)."""
    match = _STAMP.fullmatch(line)
    if match is None:
        return None
    try:
        time_ns = seconds.parse(match[1]) * 1_000_000_000 + int(match[2])
    except ValueError:
        return None
    if not 0 <= time_ns <= LATEST_NS:
        return None
    partial = match[4] == b"P"
    return LogEntry(time_ns, match[3].decode(), match[5] if partial else match[5] + b"\n", partial)


class LogFiles:
    """The files of one attempt's log."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory, self.name = os.path.split(path)

    def rotated(self) -> list[int]:
        """The numbers of the segments that are there."""
        prefix = f"{self.name}."
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        numbers = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        return sorted(int(number) for number in numbers if _NUMBER.fullmatch(number))

    def segment(self, number: int) -> str:
        return f"{self.path}.{number:08d}"

    def size_bytes(self) -> int:
        """What all of them take."""
        paths = [self.path, *(self.segment(number) for number in self.rotated())]
        return sum(os.path.getsize(path) for path in paths if os.path.exists(path))

    def remove(self) -> None:
        """Delete all of them. The directory may be another attempt's too, whose log begins with its first output."""
        for number in self.rotated():
            _unlink(self.segment(number))
        _unlink(self.path)


class BlockReader:
    """One pass over the bytes of a log, from the oldest part that is kept on, or from a place in it.

    part: the number that the file now read has, or will get by its rotation, from 1 on. offset: of the next byte in it.
    """

    def __init__(self, path: str, part: int = 0, offset: int = 0) -> None:
        self._files = LogFiles(path)
        self.part = part
        self.offset = offset
        self._file: int | None = None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def read(self) -> bytes:
        """The next bytes, all of one part; empty when all that is written so far was read."""
        while True:
            if self._file is None and not self._open_next():
                return b""
            assert self._file is not None
            # Looked up before reading: if it is renamed after the last read returned nothing, the next round reads the rest.
            is_current = self._is_current()
            data = os.pread(self._file, BLOCK_BYTES, self.offset)
            if data:
                self.offset += len(data)
                return data
            if is_current:
                return b""
            self.close()
            self.part += 1
            self.offset = 0

    def oldest(self) -> int:
        """The number of the oldest part that is there."""
        return next(iter(self._files.rotated()), self.part)

    def _open_next(self) -> bool:
        """Open the part that follows, or the current file."""
        numbers = self._files.rotated()
        later = [number for number in numbers if number >= self.part]
        for number in later:
            if self._open(self._files.segment(number), number):
                return True
        after = self._files.rotated()
        if not self._open(self._files.path, after[-1] + 1 if after else 1):
            return False
        if self._files.rotated() != numbers:  # rotated between the look and the open: look again
            self.close()
            return self._open_next()
        return True

    def _open(self, path: str, part: int) -> bool:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        if part != self.part:
            self.part, self.offset = part, 0
        return True

    def _is_current(self) -> bool:
        assert self._file is not None
        try:
            return os.path.samestat(os.stat(self._files.path), os.fstat(self._file))
        except FileNotFoundError:
            # Between rename and the new file's creation, or removed for good: nothing more comes by this descriptor.
            return os.fstat(self._file).st_nlink == 0


class LogReader:
    """One pass over the entries of a log, from the oldest one that is kept on."""

    def __init__(self, path: str) -> None:
        self._blocks = BlockReader(path)
        self._seconds = _Seconds()
        self._part = 0
        self._rest = b""

    def close(self) -> None:
        self._blocks.close()

    def read(self) -> list[LogEntry]:
        """The next entries; empty when all that is written so far was read."""
        while data := self._blocks.read():
            if self._blocks.part != self._part:
                self._part, self._rest = self._blocks.part, b""
            if entries := self._parse(data):
                return entries
        return []

    def _parse(self, data: bytes) -> list[LogEntry]:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE_BYTES:
            self._rest = b"?"  # whatever follows up to the line's end, it is no entry
        return [entry for line in lines if (entry := parse_line(line, self._seconds)) is not None]


async def read_log(
    path: str,
    query: LogQuery,
    *,
    has_ended: Callable[[], bool],
    ended: asyncio.Event,
    look_again_seconds: float = RECHECK_SECONDS,
) -> AsyncIterator[list[LogEntry]]:
    """The log's entries as the query wants them, in batches.

    has_ended: whether the writer is gone. ended: set when that may have changed. look_again_seconds: for a log that another
    host writes, of which no event comes.
    """
    reader = LogReader(path)
    watch = None
    try:
        if query.follow and not has_ended():  # the kernel takes milliseconds to let go of a watch
            os.makedirs(os.path.dirname(path), 0o750, exist_ok=True)
            watch = ChangeWatch(os.path.dirname(path))
        tail = None if query.tail_lines is None else _Tail(query.tail_lines)
        while True:
            final = has_ended()
            while entries := reader.read():
                wanted = [entry for entry in entries if query.wants(entry)]
                if tail is not None:
                    tail.add(wanted)
                elif wanted:
                    yield wanted
                await asyncio.sleep(0)  # others want their turn
            if tail is not None and tail.entries:
                yield list(tail.entries)
            tail = None
            if watch is None or final:
                return
            await watch.changed_or(ended, look_again_seconds)
    finally:
        reader.close()
        if watch is not None:
            watch.close()


class _Tail:
    """The last so many lines of what is there at the start; a line may have several parts."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self.entries: deque[LogEntry] = deque()
        self._ends = 0

    def add(self, entries: list[LogEntry]) -> None:
        for entry in entries:
            self.entries.append(entry)
            self._ends += not entry.partial
            while self.entries and self._ends + self.entries[-1].partial > self._lines:
                self._ends -= not self.entries.popleft().partial


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return

"""Output into CRI log files: ``2026-01-02T03:04:05.123456789Z stdout F text``, rotated by size.

Whole chunks are turned at once, without a loop over their lines, so that a chatty job costs little. A line that is not
finished at the end of a chunk, or is longer than 16 KiB, is written in parts tagged P. Source: the CRI logging format of
Kubernetes (design proposal kubelet-cri-logging).
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    Piece = bytes | memoryview

CHUNK_BYTES = 65536
LINE_BYTES = 16384
SEGMENTS = 4


class LogWriter:
    """Writes one attempt's log. Its directory is held by a descriptor: the init has left the host's tree."""

    def __init__(self, directory_fd: int, name: str, limit_bytes: int) -> None:
        self.directory_fd = directory_fd
        self._name = name
        self._segment_bytes = max(limit_bytes // SEGMENTS, 4096)
        self._rotated = 0
        self._size = 0
        self._fd = -1  # opened with the first output: many jobs have none
        self._second = -1
        self._second_text = ""
        self.dropped_bytes = 0
        self.error = ""

    def write(self, stream: str, data: bytes) -> None:
        """Append what the job wrote to one stream. A failing disk loses output, counted, and never stops the job."""
        stamp = self._stamp()
        pieces = to_cri(data, f"{stamp} {stream} F ".encode(), f"{stamp} {stream} P ".encode())
        size = sum(map(len, pieces))
        if size > self._segment_bytes and len(data) > 1:
            # Many short lines: their stamps may fill more than a segment.
            middle = len(data) // 2
            self.write(stream, data[:middle])
            self.write(stream, data[middle:])
            return
        try:
            if self._size and self._size + size > self._segment_bytes:
                self._rotate()
            self._append(pieces, size)
        except OSError as error:
            self.dropped_bytes += len(data)
            self.error = str(error)

    def _append(self, pieces: list[Piece], size: int) -> None:
        if self._fd < 0:
            self._fd = self._open()
        written = os.writev(self._fd, pieces)
        self._size += written
        if written < size:
            record = b"".join(pieces)
            while written < size:
                # A short write: the next one says why.
                more = os.write(self._fd, record[written:])
                written += more
                self._size += more

    def _stamp(self) -> str:
        now = time.time_ns()
        second, rest = divmod(now, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{rest:09d}Z"

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._name, flags, 0o640, dir_fd=self.directory_fd)

    def _rotate(self) -> None:
        """Rename the full file to the next number, and remove the one that falls out."""
        old = f"{self._name}.{self._rotated + 1:08d}"
        os.rename(self._name, old, src_dir_fd=self.directory_fd, dst_dir_fd=self.directory_fd)
        self._rotated += 1
        full, self._fd, self._size = (
            self._fd,
            -1,
            0,
        )  # the next is opened with the next output, as soon as there is room
        os.close(full)
        if self._rotated >= SEGMENTS:
            os.unlink(f"{self._name}.{self._rotated - SEGMENTS + 1:08d}", dir_fd=self.directory_fd)


def to_cri(data: bytes, full: bytes, part: bytes) -> list[Piece]:
    """One chunk as CRI lines, in pieces. full, part: the prefixes of a finished line and of a part of one.

    One pass over the data and no other copy of it: a copy costs twice what the replacement does.
    """
    if has_long_line(data):
        return [_split_to_cri(data, full, part)]
    stamped = data.replace(b"\n", b"\n" + full)
    tail = data[data.rfind(b"\n") + 1 :]
    pieces: list[Piece] = []
    if len(tail) < len(data):
        # Behind the last end of line stand a prefix too many and the tail.
        pieces += [full, memoryview(stamped)[: len(stamped) - len(full) - len(tail)]]
    if tail:
        pieces += [part, tail, b"\n"]
    return pieces


def has_long_line(data: bytes) -> bool:
    """Whether a line may be longer than LINE_BYTES: it would fill a whole window of half that size."""
    window = LINE_BYTES // 2
    return any(data.find(b"\n", start, start + window) < 0 for start in range(0, len(data) - window + 1, window))


def _split_to_cri(data: bytes, full: bytes, part: bytes) -> bytes:
    """The careful way, for chunks with long lines: each in parts of at most LINE_BYTES."""
    *lines, last = data.split(b"\n")
    record: list[bytes] = []
    for line in lines:
        head = max(len(line) - 1, 0) // LINE_BYTES * LINE_BYTES
        record.extend(part + line[start : start + LINE_BYTES] for start in range(0, head, LINE_BYTES))
        record.append(full + line[head:])
    record.extend(part + last[start : start + LINE_BYTES] for start in range(0, len(last), LINE_BYTES))
    return b"\n".join(record) + b"\n"

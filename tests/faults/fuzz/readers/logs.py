"""Logs in CRI format: what a damaged disk, or somebody else's file in their place, may hold.

Half of an input is a rotated segment.
"""

from __future__ import annotations

import random
from pathlib import Path

from jobletd.log_reader import LogReader
from jobletd.services.convert import log_entry
from tests.faults.fuzz.reader import Reader

LINE = b"2026-01-02T03:04:05.123456789Z stdout F some text\n"
LONGEST_ENTRY = 2 << 20


def make(directory: Path) -> Reader:
    current, rotated = directory / "a.log", directory / "a.log.00000001"
    (directory / "a.log.x").touch()

    def read(data: bytes) -> bool:
        if len(data) % 64 == 0:  # a file without any end of line, larger than is read at a time
            data = data.replace(b"\n", b" ") * (1 + (8 << 20) // max(len(data), 1))
        rotated.write_bytes(data[: len(data) // 2])
        current.write_bytes(data[len(data) // 2 :])
        reader = LogReader(str(current))
        count = 0
        try:
            while entries := reader.read():
                for entry in entries:
                    log_entry(entry)
                    assert len(entry.data) <= LONGEST_ENTRY
                count += len(entries)
        finally:
            reader.close()
        return count > 0

    chance = random.Random(1)
    samples = [
        LINE * 40,
        LINE.replace(b" F ", b" P ") + LINE,
        LINE.replace(b"stdout", b"stderr") + chance.randbytes(600),
    ]
    tokens = [
        LINE,
        b"2026-02-30T",
        b"9999-12-31T23:59:60.",
        b"0000-00-00T00:00:00.",
        b" P ",
        b" F ",
        b"\0" * 4096,
        b"stderr",
    ]
    return Reader(read=read, samples=samples, tokens=tokens)

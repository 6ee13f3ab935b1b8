"""The course of what an attempt uses, in a few kilobytes however long it runs: when it is full, two samples become one."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from jobletd.model import Usage

MOST_SAMPLES = 120
MOST_BYTES = 4096
FIRST_INTERVAL_NS = 10**9
MILLISECOND_NS = 10**6
_UNPACKED_BYTES = 64 << 10  # of a profile that somebody may have damaged


@dataclass(frozen=True, slots=True)
class Sample:
    """at_ms: since the command's start. memory_bytes: the most since the sample before. The others count from its start."""

    at_ms: int
    memory_bytes: int = 0
    cpu_us: int = 0
    throttled_us: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    @classmethod
    def of(cls, at_ms: int, usage: Usage) -> Sample:
        return cls(
            at_ms,
            usage.memory_bytes or 0,
            round((usage.cpu_seconds or 0.0) * 1e6),
            round((usage.throttled_seconds or 0.0) * 1e6),
            usage.io_read_bytes or 0,
            usage.io_write_bytes or 0,
        )

    @property
    def fields(self) -> tuple[int, ...]:
        return (self.at_ms, self.memory_bytes, self.cpu_us, self.throttled_us, self.read_bytes, self.written_bytes)


class Profile:
    """Of one attempt that began at ``started_ns``, on the wall clock."""

    def __init__(self, started_ns: int, samples: Iterable[Sample] = (), interval_ns: int = FIRST_INTERVAL_NS) -> None:
        self.started_ns = started_ns
        self.interval_ns = interval_ns
        self.samples = list(samples)

    def add(self, now_ns: int, usage: Usage) -> None:
        """Take a sample. One that is not later than the last (the clock was set) is left out."""
        at_ms = (now_ns - self.started_ns) // MILLISECOND_NS
        if at_ms < 0 or (self.samples and at_ms <= self.samples[-1].at_ms):
            return
        self.samples.append(Sample.of(at_ms, usage))
        if len(self.samples) > MOST_SAMPLES:
            self.halve()

    def halve(self) -> None:
        """Two samples become one, and the next ones are taken half as often."""
        first = self.samples[: len(self.samples) % 2]
        rest = self.samples[len(first) :]
        self.samples = first + [
            Sample(later.at_ms, max(earlier.memory_bytes, later.memory_bytes), *later.fields[2:])
            for earlier, later in zip(rest[::2], rest[1::2], strict=True)
        ]
        self.interval_ns *= 2

    def encoded(self) -> bytes:
        """At most MOST_BYTES: differences, which are small, packed."""
        while True:
            rows = [sample.fields for sample in self.samples]
            steps = [rows[0], *(tuple(b - a for a, b in zip(one, two, strict=True)) for one, two in pairwise(rows))]
            text = json.dumps([self.started_ns, self.interval_ns, *steps], separators=(",", ":"))
            packed = zlib.compress(text.encode(), 9)
            if len(packed) <= MOST_BYTES:
                return packed
            self.halve()

    @classmethod
    def decoded(cls, packed: bytes) -> Profile:
        """Raises ValueError for what is none."""
        try:
            unpacking = zlib.decompressobj()
            unpacked = unpacking.decompress(packed, _UNPACKED_BYTES)
            if not unpacking.eof:
                raise ValueError("it is cut off, or too long")
            started_ns, interval_ns, *steps = json.loads(unpacked)
            at = [0] * len(Sample(0).fields)
            samples = []
            for step in steps:
                at = [before + int(change) for before, change in zip(at, step, strict=True)]
                samples.append(Sample(*at))
            return cls(int(started_ns), samples, int(interval_ns))
        except (zlib.error, ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"is no profile: {error}") from error

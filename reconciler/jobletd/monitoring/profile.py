"""The course of what an attempt uses, in a few kilobytes however long it runs: as long as nothing changes, two samples tell it;
when it is full, neighbours become one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from jobletd.model import Usage

MOST_SAMPLES = 120
MOST_BYTES = 4096
LEFT_BY_HALVING = 3 / 4  # at most: one that is full is not full again at the next sample
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
    def figures(self) -> tuple[int, ...]:
        """All but the time."""
        return self.fields[1:]

    @property
    def fields(self) -> tuple[int, ...]:
        return (self.at_ms, self.memory_bytes, self.cpu_us, self.throttled_us, self.read_bytes, self.written_bytes)


class Profile:
    """Of one attempt that began at ``started_ns``, on the wall clock."""

    def __init__(self, started_ns: int, samples: Iterable[Sample] = (), interval_ns: int = FIRST_INTERVAL_NS) -> None:
        self.started_ns = started_ns
        self.interval_ns = interval_ns
        self.samples = list(samples)

    @property
    def pause_ns(self) -> int:
        """From the last look to the next. Of one that has been the same for long, no more than a drawing can show."""
        return max(self.interval_ns, self._same_ms * MILLISECOND_NS // MOST_SAMPLES)

    @property
    def rests(self) -> bool:
        """Whether the last look found what the one before had found."""
        return self._same_ms > 0

    @property
    def _same_ms(self) -> int:
        """For how long nothing has changed."""
        last = self.samples[-2:]
        return last[1].at_ms - last[0].at_ms if len(last) == 2 and last[0].figures == last[1].figures else 0

    def add(self, now_ns: int, usage: Usage) -> None:
        """Take a sample. One that is not later than the last (the clock was set) is left out."""
        at_ms = (now_ns - self.started_ns) // MILLISECOND_NS
        if at_ms < 0 or (self.samples and at_ms <= self.samples[-1].at_ms):
            return
        sample = Sample.of(at_ms, usage)
        if [one.figures for one in self.samples[-2:]] == [sample.figures] * 2:
            self.samples.pop()  # the same all the time: from where to where is enough
        self.samples.append(sample)
        if len(self.samples) > MOST_SAMPLES:
            self.halve()

    def halve(self) -> None:
        """Neighbours that lie close become one, and the next ones are taken as much seldomer; what stayed the same for long
        stays as it is."""
        enough = int(len(self.samples) * LEFT_BY_HALVING)
        while len(self.samples) > max(enough, 1):
            self.interval_ns *= 2
            self._merge(self.interval_ns * 5 // 4 // MILLISECOND_NS)  # looks may be a little late

    def _merge(self, longest_ms: int) -> None:
        """No sample shall stand for longer than that because of it."""
        merged: list[Sample] = []
        began_ms = 0  # of what the last of them stands for
        for sample in self.samples:
            if merged and sample.at_ms - began_ms <= longest_ms:
                most = max(merged.pop().memory_bytes, sample.memory_bytes)
                merged.append(Sample(sample.at_ms, most, *sample.fields[2:]))
            else:
                began_ms = merged[-1].at_ms if merged else 0
                merged.append(sample)
        self.samples = merged

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

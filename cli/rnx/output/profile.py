"""The course of an attempt as small drawings: CPU, memory, disks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rnx.output.bars import bars
from rnx.output.words import duration, size

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2, monitor_pb2

WIDTH = 60
FINEST = WIDTH * 10  # parts of the time that are told apart
LEAST_SAMPLES = 2  # one is no course


def profile_lines(profile: monitor_pb2.Profile, attempt: job_pb2.Attempt) -> list[str]:
    """Nothing for an attempt that was too short for samples."""
    samples = profile.samples
    if len(samples) < LEAST_SAMPLES:
        return []
    seconds = [two - one for one, two in pairwise([0.0, *(one.at_seconds for one in samples)])]
    steps = list(zip(pairwise(samples), seconds[1:], strict=True))
    cpu = [(two.cpu_seconds - one.cpu_seconds) / span * 100 for (one, two), span in steps]
    memory = [float(one.memory_bytes) for one in samples]
    io = [
        (two.io_read_bytes + two.io_write_bytes - one.io_read_bytes - one.io_write_bytes) / span
        for (one, two), span in steps
    ]
    last = samples[-1]
    limits = {one.name: one.asked for one in attempt.limits}
    of_cpu = f" of {limits['cpu']}" if "cpu" in limits else ""
    of_memory = f" of {limits['memory']}" if "memory" in limits else ""
    mean = last.cpu_seconds / last.at_seconds * 100 if last.at_seconds else 0.0
    lines = [
        f"CPU     {bars(_in_time(cpu, seconds), width=WIDTH)}  mean {mean:.0f}%, most {max(cpu):.0f}%{of_cpu}",
        f"Memory  {bars(_in_time(memory, seconds), width=WIDTH)}  most {size(round(max(memory)))}{of_memory}",
    ]
    if any(io):
        lines.append(f"Disks   {bars(_in_time(io, seconds), width=WIDTH)}  most {size(round(max(io)))}/s")
    lines.append(f"over {duration(last.at_seconds)}, {len(samples)} samples")
    return lines


def _in_time(values: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Each value as often as its share of the time, and at least once. seconds: of all samples; of the first there may be no
    value."""
    unit = max(min(seconds), sum(seconds) / FINEST)
    spans = seconds[-len(values) :]
    return [value for value, span in zip(values, spans, strict=True) for _ in range(max(round(span / unit), 1))]

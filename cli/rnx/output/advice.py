"""Which limits do not fit what an attempt used: far too high, or in its way. Words for people, never a change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rnx.output.documents import stamp
from rnx.output.words import seconds_between, size

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2

LONG_ENOUGH_SECONDS = 60.0  # what runs for less says little about limits that are high, unless it is done
FAR_TOO_HIGH = 4.0
CLOSE = 0.9
HELD_BACK = 0.25  # of the time
HEADROOM = 1.5
LEAST_BYTES = 16 << 20


def advice(attempt: job_pb2.Attempt) -> list[str]:
    """One line for each limit that does not fit."""
    limits = {one.name: one.asked for one in attempt.limits}
    seconds = seconds_between(stamp(attempt, "started"), stamp(attempt, "ended")) or 0.0
    return [*_memory(attempt, limits, seconds), *_cpu(attempt, limits, seconds)]


def _memory(attempt: job_pb2.Attempt, limits: dict[str, str], seconds: float) -> Iterator[str]:
    if "memory" not in limits or not attempt.usage.HasField("memory_peak_bytes"):
        return
    from joblet.manifest.quantities import parse_size

    limit, peak = parse_size(limits["memory"]), attempt.usage.memory_peak_bytes
    told = f"memory limit {limits['memory']}, peak {size(peak)}"
    if attempt.usage.oom_kills:
        yield f"{told}: it was killed for memory; {fitting(limit * 2 / HEADROOM)} may do"
    elif peak > CLOSE * limit:
        yield f"{told}: close to it; a little more would be on the safe side (page cache counts too, and is given back)"
    elif (is_done(attempt) or seconds >= LONG_ENOUGH_SECONDS) and (
        peak * FAR_TOO_HIGH < limit and fitting_bytes(peak) < limit
    ):
        yield f"{told}: {fitting(peak)} would do"


def _cpu(attempt: job_pb2.Attempt, limits: dict[str, str], seconds: float) -> Iterator[str]:
    from joblet.manifest.quantities import parse_cpu

    usage = attempt.usage
    if "cpu" not in limits or not usage.HasField("cpu_seconds") or not seconds:
        return
    percent = usage.cpu_seconds / seconds * 100
    told = f"cpu limit {limits['cpu']}, used {percent:.0f}%"
    if usage.throttled_seconds > HELD_BACK * seconds:
        share = min(usage.throttled_seconds / seconds, 1.0)
        yield f"{told}: held back {share:.0%} of the time; it would be sooner done with more"
    elif seconds >= LONG_ENOUGH_SECONDS and percent * FAR_TOO_HIGH < parse_cpu(limits["cpu"]) and percent < 100:
        yield f"{told} in the mean: it hardly needs that much, unless in bursts"


def is_done(attempt: job_pb2.Attempt) -> bool:
    """Whether it did all that it had to do: its peak is that of the whole, however short it was."""
    return attempt.phase == "COMPLETED"


def fitting_bytes(peak: float) -> int:
    """With headroom, in a round number: a power of two of bytes, or one and a half of it."""
    wanted = max(peak * HEADROOM, LEAST_BYTES)
    power = 1
    while power < wanted:
        power *= 2
    return power * 3 // 4 if power * 3 // 4 >= wanted else power


def fitting(peak: float) -> str:
    from joblet.manifest.quantities import format_size

    return str(format_size(fitting_bytes(peak)))

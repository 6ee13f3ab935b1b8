"""Peers side by side: alternating rounds in one run, medians and spread, ratios first.

Times drift by half from hour to hour on shared machines; what is measured in the same minute can be compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Milliseconds: the median, and the range of the middle half."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ms ({self.low:.2f} to {self.high:.2f})"


def alternate(
    peers: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 3, pause_seconds: float = 0.0
) -> dict[str, Timing]:
    """Call each peer once a round, timing each call. pause_seconds: before each, for what gets ready meanwhile."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(-warm_up, rounds):
        for name, call in peers.items():
            time.sleep(pause_seconds)
            begin = time.perf_counter()
            call()
            if number >= 0:
                times[name].append((time.perf_counter() - begin) * 1000)
    return {name: timing_of(values) for name, values in times.items()}


def timing_of(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4)
    return Timing(median, low, high)


def print_ratios(ours: str, timings: Mapping[str, Timing]) -> None:
    """One line a peer: our median in terms of theirs."""
    print(f"{ours}: {timings[ours]}")
    for name, timing in timings.items():
        if name != ours:
            print(f"ratio to {name}: {timings[ours].median / timing.median:.2f}   ({name}: {timing})")

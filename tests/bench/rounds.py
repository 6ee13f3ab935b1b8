"""Peers side by side: alternating rounds in one run, medians and spread, ratios first.

Times drift by half from hour to hour on shared machines; what is measured in the same minute can be compared.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Call = Callable[[], object]
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """Milliseconds: the median, and the range of the middle half."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ms ({self.low:.2f} to {self.high:.2f})"


def alternate(
    peers: Mapping[str, Call],
    *,
    rounds: int,
    warm_up: int = 3,
    pause_seconds: float = 0.0,
    within_seconds: float = math.inf,
) -> dict[str, Timing]:
    """Call each peer once a round, timing each call. pause_seconds: before each, for what gets ready meanwhile.

    within_seconds: no round is begun later, if there have been enough for a spread.
    """
    times: dict[str, list[float]] = {name: [] for name in peers}
    end = time.monotonic() + within_seconds
    for number in range(-warm_up, rounds):
        if number >= LEAST_ROUNDS and time.monotonic() > end:
            break
        for name, call in peers.items():
            time.sleep(pause_seconds)
            begin = time.perf_counter()
            call()
            if number >= 0:
                times[name].append((time.perf_counter() - begin) * 1000)
    return {name: timing_of(values) for name, values in times.items()}


def able(peers: Mapping[str, Call]) -> tuple[dict[str, Call], dict[str, str]]:
    """Call each once: those that can be run here, and of the others what they said."""
    good: dict[str, Call] = {}
    refused: dict[str, str] = {}
    for name, call in peers.items():
        try:
            call()
        except FileNotFoundError as error:
            refused[name] = f"{error.filename} is not installed"
        except subprocess.CalledProcessError as error:
            refused[name] = words_of(error)
        except subprocess.TimeoutExpired as error:
            refused[name] = f"did not end within {error.timeout:g} s"
        else:
            good[name] = call
    return good, refused


def words_of(error: subprocess.CalledProcessError) -> str:
    """The last that it said, if its standard error was kept, and its status."""
    said = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr or ""
    lines = [line for line in said.splitlines() if line.strip()]
    return (
        f"{' '.join(lines[-2:])} (status {error.returncode})" if lines else f"status {error.returncode}, without a word"
    )


def timing_of(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4)
    return Timing(median, low, high)

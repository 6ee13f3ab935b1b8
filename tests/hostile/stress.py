"""stress-ng in a limited job, and what another job's launch costs meanwhile: ``make stress MINUTES=2``.

Each class of stressors runs all of its stressors at once, and begins anew when the job was killed for its memory. A launch is
measured from the client's apply to the recorded end of ``true``: all that somebody waits for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from joblet.api.v1 import job_pb2
from tests.integration.host import FINAL, Host, job_host
from tests.leaks import LeakCheck

CLASSES = ("os", "filesystem", "vm", "pipe")
ROUNDS_BEFORE = 40
MOST_RATIO = 2.0  # of launches during and before
STRESS = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {{name: stress-{kind}}}
    spec:
      command: [stress-ng, --class, {kind}, --all, "1", --timeout, {seconds}s, --temp-path, /work, --quiet, --oomable]
      limits: {{cpu: 100%, memory: 512Mi, pids: 1024, disk: 512Mi, logs: 4Mi}}
      env: {{NUMBER: "{number}"}}
      timeout: {limit}s
      stop: {{grace: 0s}}
"""
PROBE = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {{name: probe}}
    spec:
      command: ["true"]
      env: {{NUMBER: "{number}"}}
"""


@dataclass(frozen=True)
class Figures:
    """Seconds of launches beside a class of stressors, and how the class's runs ended."""

    kind: str
    before: list[float]
    during: list[float]
    runs: list[job_pb2.Run]

    @property
    def ratio(self) -> float:
        return statistics.median(self.during) / statistics.median(self.before)

    def __str__(self) -> str:
        usages = [run.attempts[-1].usage for run in self.runs]
        ends = ", ".join(f"{count} {reason}" for reason, count in Counter(run.reason for run in self.runs).items())
        before, during = (statistics.median(values) * 1000 for values in (self.before, self.during))
        return (
            f"{self.kind}: launch {before:.1f} ms before, {during:.1f} ms during (median of {len(self.during)}), "
            f"ratio {self.ratio:.2f}, longest {max(self.during) * 1000:.0f} ms; stress-ng: {ends}, "
            f"{sum(usage.cpu_seconds for usage in usages):.0f} s of CPU, "
            f"{max(usage.memory_peak_bytes for usage in usages) >> 20} MiB at most"
        )


class Probe:
    """Launches ``true`` again and again, as new generations of one job."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.number = 0

    def launch_seconds(self) -> float:
        self.number += 1
        begin = time.perf_counter()
        (result,) = self.host.apply(PROBE.format(number=self.number))
        run = self.host.reaches(result, *FINAL, within=60)
        assert run.phase == "COMPLETED", run
        return time.perf_counter() - begin


def beside(
    host: Host, probe: Probe, kind: str, seconds: float, *, rounds_before: int = ROUNDS_BEFORE, at_least: int = 0
) -> Figures:
    """Measure launches without and with that class of stressors, for so long and so many of them."""
    before = [probe.launch_seconds() for _ in range(rounds_before)]
    during: list[float] = []
    runs: list[job_pb2.Run] = []
    name = f"stress-{kind}"
    deadline = time.monotonic() + seconds
    while (left := max(deadline - time.monotonic(), 2 if len(during) < at_least else 0)) > 1:
        (result,) = host.apply(STRESS.format(kind=kind, number=len(runs), seconds=int(left), limit=int(left * 1.5) + 5))
        host.reaches(result, "RUNNING", *FINAL)
        while (run := host.run(name)).phase not in FINAL:
            during.append(probe.launch_seconds())
        runs.append(run)
    return Figures(kind, before, during, runs)


@contextmanager
def stressed_host() -> Iterator[tuple[Host, Probe]]:
    with job_host() as host:
        probe = Probe(host)
        probe.launch_seconds()
        yield host, probe


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.stress", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of each class (default: 1)")
    parser.add_argument("kinds", nargs="*", default=CLASSES, metavar="CLASS", help=f"of {', '.join(CLASSES)}")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        print("stress: needs root, as all that makes jobs", file=sys.stderr)
        return 2
    check = LeakCheck()
    slow = []
    with stressed_host() as (host, probe):
        for kind in chosen.kinds:
            figures = beside(host, probe, kind, chosen.minutes * 60)
            print(figures, flush=True)
            if figures.ratio > MOST_RATIO:
                slow.append(kind)
    for leak in (leaks := check.leaks(patience=1)):
        print(f"left behind: {leak}", file=sys.stderr)
    for kind in slow:
        print(f"a launch beside {kind} took more than {MOST_RATIO:g} times as long", file=sys.stderr)
    return 1 if leaks or slow else 0


if __name__ == "__main__":
    sys.exit(main())

"""An array of ``true`` beside as many single jobs: indexes and jobs a second; and whether a larger array is slower an index."""

from __future__ import annotations

import os
import time

from tests.bench.report import BenchResult, Table
from tests.bench.ways import Door
from tests.integration.host import Host, job_host

INDEXES = int(os.environ.get("JOBLET_BENCH_INDEXES", "1000"))
PARALLEL = 32
ARRAY = (
    "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: array-{count}}}\n"
    "spec: {{command: [/bin/true], array: {{to: {last}, parallel: {parallel}}}}}\n"
)


def run() -> BenchResult:
    with job_host() as host:
        indexes_a_second(host, 50)  # whatever is done once, is
        small, large = indexes_a_second(host, INDEXES // 4), indexes_a_second(host, INDEXES)
    with job_host() as host:
        single = jobs_a_second(host, INDEXES)
    lines = (
        f"array of {INDEXES}: {large:.0f} indexes a second",
        f"ratio to {INDEXES} single jobs: {large / single:.2f}   (single: {single:.0f} jobs a second)",
        f"ratio to an array of {INDEXES // 4}: {large / small:.2f}   ({small:.0f} a second)",
    )
    print("\n".join(lines))
    rows = (
        (f"an array of {INDEXES}", f"{large:.0f}"),
        (f"an array of {INDEXES // 4}", f"{small:.0f}"),
        (f"{INDEXES} single jobs, one request", f"{single:.0f}"),
    )
    return BenchResult(
        name="arrays",
        title="Arrays",
        about=f"`true` for each index, {PARALLEL} at a time, from apply to the recorded outcome; beside as many single jobs.",
        summary=lines,
        tables=(Table("Indexes or jobs a second", ("what", "a second"), rows),),
    )


def jobs_a_second(host: Host, count: int) -> float:
    """One client applies all in one request, and watches until each is over."""
    begin = time.perf_counter()
    Door(host).one_request(count)
    return count / (time.perf_counter() - begin)


def indexes_a_second(host: Host, count: int) -> float:
    begin = time.perf_counter()
    host.apply(ARRAY.format(count=count, last=count - 1, parallel=PARALLEL))
    run = host.finished(f"array-{count}", within=600)
    assert run.array.succeeded == count, run
    return count / (time.perf_counter() - begin)

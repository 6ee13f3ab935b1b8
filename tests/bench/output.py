"""Output of jobs to their logs, beside ``command > file`` and a pipe to ``cat``; and how soon a follower has a line."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from joblet.api.v1 import job_pb2
from tests.bench.report import Bar, Bars, BenchResult, Table, at_least, figure
from tests.integration.host import job_host
from tests.integration.sandbox_attempts import Sandboxes, sandboxes

MEGABYTES = 96
ROUNDS = 5
MANY = 50
MANY_MEGABYTES = 2  # of each
MANY_ROUNDS = 3
FOLLOWED_LINES = 200
BUDGET = 0.5
LINE = "a line of output as programs write them, of some sixty bytes"
JOBLET, FILE, PIPE = "joblet", "command > file", "command | cat > file"
TICKER = f"""
import time
for _ in range({FOLLOWED_LINES}):
    time.sleep(0.01)
    print(time.time_ns(), flush=True)
"""
ABOUT = (
    f"A job that writes {MEGABYTES} MB of lines of {len(LINE) + 1} bytes as fast as it can, and {MANY} at once with "
    f"{MANY_MEGABYTES} MB each. Joblet splits them into lines with time and stream, and rotates; the time is that from launch to "
    "recorded exit, and every byte is compared. The peers are the same command by a shell, without a sandbox. Latency is from a "
    "job's taking the time to a client of the daemon having the line with it, one every 10 ms."
)


@dataclass(frozen=True)
class Rate:
    """Of all rounds, in MB a second."""

    name: str
    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    @property
    def lines(self) -> float:
        """A second."""
        return self.median * (1 << 20) / (len(LINE) + 1)


def run() -> BenchResult:
    with sandboxes() as box:
        one = rates(box, jobs=1, megabytes=MEGABYTES, rounds=ROUNDS)
        many = rates(box, jobs=MANY, megabytes=MANY_MEGABYTES, rounds=MANY_ROUNDS)
    latency = follow_ms()
    return result_of(one, many, latency)


def writer(megabytes: int) -> str:
    return f"yes '{LINE}' | head -c {megabytes}M"


def rates(box: Sandboxes, *, jobs: int, megabytes: int, rounds: int) -> list[Rate]:
    """Each way once a round."""
    directory = box.root / f"plain-{jobs}"
    directory.mkdir()
    command = writer(megabytes)
    ways: dict[str, Callable[[], float]] = {
        JOBLET: lambda: by_joblet(box, command, jobs, expected(megabytes)),
        FILE: lambda: by_shell(f"{command} > {directory}", jobs),
        PIPE: lambda: by_shell(f"{command} | cat > {directory}", jobs),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    shutil.rmtree(directory)
    found = [Rate(name, tuple(jobs * megabytes / one for one in seconds[name])) for name in ways]
    for rate in found:
        print(f"{jobs} at once, {rate.name}: {rate.median:.0f} MB/s, {rate.lines:,.0f} lines/s", flush=True)
    for name in (FILE, PIPE):
        print(f"ratio to {name}: {ratio(found, name):.2f}", flush=True)
    return found


def expected(megabytes: int) -> str:
    """The digest of what one job writes."""
    line = f"{LINE}\n".encode()
    size = megabytes << 20
    return hashlib.sha256((line * (size // len(line) + 1))[:size]).hexdigest()


def by_joblet(box: Sandboxes, command: str, jobs: int, digest: str) -> float:
    """Seconds from the first launch until all have ended."""
    argv = ["/bin/sh", "-c", command]
    begin = time.perf_counter()
    attempts = [box.launch(box.spec(argv, log_bytes=1 << 30)) for _ in range(jobs)]
    for attempt in attempts:
        attempt.wait(within=60)
    spent = time.perf_counter() - begin
    for attempt in attempts:
        if hashlib.sha256(attempt.output()).hexdigest() != digest:
            raise RuntimeError("a log holds other bytes than were written")
        for path in attempt.directory.glob("out.log*"):
            path.unlink()
    return spent


def by_shell(command: str, jobs: int) -> float:
    """command: up to the directory of the file that each writes."""
    begin = time.perf_counter()
    processes = [subprocess.Popen(["/bin/sh", "-c", f"{command}/{number}"]) for number in range(jobs)]
    for process in processes:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return time.perf_counter() - begin


def follow_ms() -> list[float]:
    """Of each line: from the job's look at the clock until a follower has what it saw."""
    with job_host() as host:
        command = json.dumps(["/usr/bin/python3", "-I", "-S", "-c", TICKER])
        host.apply(f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: ticker}}\nspec: {{command: {command}}}\n")
        host.running("ticker")
        waits: list[float] = []
        for batch in host.jobs.Logs(job_pb2.LogsRequest(ref="ticker", follow=True), timeout=60):
            now_ns = time.time_ns()
            waits += [(now_ns - int(entry.data)) / 1e6 for entry in batch.entries]
    if len(waits) != FOLLOWED_LINES:
        raise RuntimeError(f"{len(waits)} lines of {FOLLOWED_LINES}")
    return waits[FOLLOWED_LINES // 10 :]  # the first ones were written before anybody followed


# --- what was found ---------------------------------------------------------------------------------------------------


def ratio(found: Sequence[Rate], peer: str) -> float:
    by_name = {rate.name: rate for rate in found}
    return by_name[JOBLET].median / by_name[peer].median


def result_of(one: Sequence[Rate], many: Sequence[Rate], latency: Sequence[float]) -> BenchResult:
    low, median, high = statistics.quantiles(latency, n=4)
    p99 = statistics.quantiles(latency, n=100)[-1]
    told = (
        f"a line of a job is with its follower after {median:.2f} ms, median "
        f"(middle half {low:.2f} to {high:.2f}, p99 {p99:.2f})"
    )
    print(told, flush=True)
    named = ((f"one job, {MEGABYTES} MB", one), (f"{MANY} jobs at once, {MANY_MEGABYTES} MB each", many))
    summary = [f"{what}: ratio to {peer}: {ratio(found, peer):.2f}" for what, found in named for peer in (FILE, PIPE)]
    return BenchResult(
        name="output",
        title="Output",
        about=ABOUT,
        summary=(*summary, told),
        tables=tuple(table_of(what, found) for what, found in named),
        plots=tuple(
            Bars(name, f"Output, {what}", "MB/s", tuple(bar_of(rate) for rate in found))
            for name, (what, found) in zip(("output-one", "output-many"), named, strict=True)
        ),
        budgets=(at_least(f"output of one job to its log, beside `{FILE}`", BUDGET, ratio(one, FILE), "of its rate"),),
    )


def table_of(what: str, found: Sequence[Rate]) -> Table:
    rows = tuple(
        (
            rate.name,
            "" if rate.name == JOBLET else figure(ratio(found, rate.name)),
            f"{rate.median:.0f} MB/s",
            f"{rate.lines:,.0f}",
            f"{min(rate.rates):.0f} to {max(rate.rates):.0f}",
        )
        for rate in found
    )
    return Table(what, ("", "Joblet's rate in terms of it", "median", "lines a second", "slowest to quickest"), rows)


def bar_of(rate: Rate) -> Bar:
    return Bar(rate.name, rate.median, min(rate.rates), max(rate.rates), rate.name == JOBLET)

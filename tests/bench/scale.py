"""What it costs to have much: starts and changes with up to 50,000 manifests in the spool, answers about up to 100,000 runs."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from joblet.api.v1 import job_pb2
from tests.bench.processes import cpu_seconds, idle_share, rss_megabytes
from tests.bench.recorded import Recorded, fill_spool, fill_store, name_of, run_id_of
from tests.bench.report import BenchResult, Plot, Series, Table, at_most, figure
from tests.integration.host import Host, dispose, eventually

MANIFESTS = 100, 1_000, 10_000, 50_000
RUNS = 1_000, 10_000, 100_000
RUNS_A_JOB = 10
BUDGET_MANIFESTS = 10_000
BUDGET_SECONDS = 5.0
START_SECONDS = 120.0
CHANGES = 5
QUESTIONS = 15
PAGE = 100
IDLE_SECONDS = 3.0
LATEST_SECONDS = (
    110.0  # the largest spool is left out if the others took longer, so that all of it stays within its time
)
WATCHED = "watched"
MANIFEST = """\
apiVersion: joblet/v1
kind: Job
metadata: {{name: {name}}}
spec: {{command: ["true"], suspend: true, env: {{N: "{n}"}}}}
"""
ABOUT = (
    "Every job has run and is on record, and its file in the spool is as it was applied: a usual manifest of 12 lines. A start "
    "counts from the fork until all files were followed, seen by a new job whose file comes last. A first start is one that has "
    "never seen the files, as after an upgrade; a restart finds what an earlier daemon left. A changed file is followed when "
    "Watch shows its generation. Questions come over TLS, one at a time, each of a job in the middle; a page has "
    f"{PAGE} jobs; with {RUNS_A_JOB} runs of each job on record."
)


@dataclass(frozen=True)
class Spooled:
    """What a daemon took with so many manifests. Seconds, but MB for memory; change_*: of one file, idle: share of a core."""

    manifests: int
    first: float
    restart: float
    restart_cpu: float
    change: float
    change_cpu: float
    idle: float
    memory: float


@dataclass(frozen=True)
class Answered:
    """Median milliseconds of each question with so many runs on record."""

    runs: int
    milliseconds: dict[str, float]


def run() -> BenchResult:
    began = time.monotonic()
    answered = [ask_all(runs) for runs in RUNS]
    spooled = []
    for manifests in MANIFESTS:
        if manifests == MANIFESTS[-1] and time.monotonic() - began > LATEST_SECONDS:
            print(f"{manifests:,} manifests left out: this machine took too long with fewer", flush=True)
            break
        spooled.append(follow(manifests))
        print(line_of(spooled[-1]), flush=True)
    return result_of(spooled, answered)


@contextmanager
def prepared(recorded: Recorded, *, spool: bool) -> Iterator[Host]:
    """A host that has all of that on record, without a daemon."""
    root = Path(tempfile.mkdtemp(prefix=f"joblet-test-{os.getpid()}-"))
    host = Host(root / root.name.removeprefix("joblet-test-"))
    try:
        host.init()
        (host.root / "state").mkdir(exist_ok=True)
        fill_store(host.root / "state/joblet.db", recorded, spool=spool)
        if spool:
            fill_spool(host.spool, 0, recorded.jobs)
        yield host
    finally:
        try:
            dispose(host)
        finally:
            shutil.rmtree(root, ignore_errors=True)


# --- the spool --------------------------------------------------------------------------------------------------------


def follow(manifests: int) -> Spooled:
    with prepared(Recorded(manifests), spool=True) as host:
        first = start(host, "zz-first")
        last = host.spool / f"status/{name_of(manifests - 1)}.yml"
        eventually(last.exists, within=START_SECONDS, what="the last status file")
        host.stop()
        restart = start(host, "zz-second")
        assert host.daemon is not None
        restart_cpu = cpu_seconds(host.daemon.pid)
        settle(host)
        idle = idle_share(host.daemon.pid, IDLE_SECONDS)
        change, change_cpu = change_one(host)
        return Spooled(manifests, first, restart, restart_cpu, change, change_cpu, idle, rss_megabytes(host.daemon.pid))


def start(host: Host, name: str) -> float:
    """Seconds from the fork until a new file, the last one of the spool, is followed."""
    (host.spool / f"{name}.yml").write_text(MANIFEST.format(name=name, n=0))
    begin = time.perf_counter()
    host.start(within=START_SECONDS)

    def is_there() -> bool:
        try:
            host.job(name)
        except grpc.RpcError:
            return False
        return True

    eventually(is_there, within=START_SECONDS, what="the last file")
    return time.perf_counter() - begin


def settle(host: Host) -> None:
    """Until the daemon has nothing left to do from its start."""
    assert host.daemon is not None
    pid = host.daemon.pid
    eventually(lambda: idle_share(pid, 0.5) < 0.1, within=START_SECONDS, what="a daemon at rest")


def change_one(host: Host) -> tuple[float, float]:
    """Median seconds from a file's change to its new generation; and the daemon's CPU for it."""
    path, scratch = host.spool / f"{WATCHED}.yml", host.spool / f".{WATCHED}.tmp"
    path.write_text(MANIFEST.format(name=WATCHED, n=0))
    assert host.daemon is not None
    eventually(lambda: knows(host, WATCHED), what="the file that is to change")
    stream = host.jobs.Watch(job_pb2.WatchRequest(ref=WATCHED))
    generations = (event.job.generation for event in stream if event.job.name)
    next(generations)
    settle(host)
    seconds = []
    before = cpu_seconds(host.daemon.pid)
    for number in range(2, 2 + CHANGES):
        scratch.write_text(MANIFEST.format(name=WATCHED, n=number))
        begin = time.perf_counter()
        os.rename(scratch, path)
        while next(generations) < number:
            continue
        seconds.append(time.perf_counter() - begin)
        time.sleep(0.1)  # a change of its own, not one of several
    settle(host)
    spent = (cpu_seconds(host.daemon.pid) - before) / CHANGES
    stream.cancel()
    return statistics.median(seconds), spent


def knows(host: Host, name: str) -> bool:
    try:
        host.job(name)
    except grpc.RpcError:
        return False
    return True


# --- questions --------------------------------------------------------------------------------------------------------


def ask_all(runs: int) -> Answered:
    jobs = runs // RUNS_A_JOB
    middle = jobs // 2
    with prepared(Recorded(jobs, RUNS_A_JOB), spool=False) as host:
        host.start(within=START_SECONDS)
        settle(host)
        questions: dict[str, Callable[[], object]] = {
            "List, a page": lambda: host.jobs.List(
                job_pb2.ListRequest(page_size=PAGE, page_token=name_of(max(0, middle - PAGE // 2)))
            ),
            "Get, a job": lambda: host.job(name_of(middle)),
            "Get, with its history": lambda: host.job(name_of(middle), history=True),
            "Get, an earlier run": lambda: host.job(run_id_of(middle, 0)),
            "Watch, first answer": lambda: watch(host, job_pb2.WatchRequest(), first=True),
            "Watch of one job, all that is": lambda: watch(
                host, job_pb2.WatchRequest(ref=name_of(middle)), first=False
            ),
        }
        found = {name: median_ms(ask) for name, ask in questions.items()}
    print(f"{runs:,} runs: " + ", ".join(f"{name} {figure(ms)} ms" for name, ms in found.items()), flush=True)
    return Answered(runs, found)


def watch(host: Host, request: job_pb2.WatchRequest, *, first: bool) -> None:
    """Up to the first answer, or until all that is was told."""
    stream = host.jobs.Watch(request)
    for event in stream:
        if first or event.type == job_pb2.WatchEvent.SYNCED:
            break
    stream.cancel()


def median_ms(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(QUESTIONS):
        begin = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begin) * 1000)
        time.sleep(0.01)
    return statistics.median(times)


# --- what was found ---------------------------------------------------------------------------------------------------


def line_of(one: Spooled) -> str:
    return (
        f"{one.manifests:,} manifests: restart {one.restart:.2f} s ({one.restart_cpu:.2f} s of CPU), "
        f"first start {one.first:.2f} s, "
        f"a changed file {one.change * 1000:.0f} ms ({one.change_cpu * 1000:.0f} ms of CPU), idle {one.idle:.2%} of a core, "
        f"{one.memory:.0f} MB"
    )


def result_of(spooled: list[Spooled], answered: list[Answered]) -> BenchResult:
    measured: dict[str, Callable[[Spooled], float]] = {
        "first start": lambda one: one.first,
        "restart": lambda one: one.restart,
        "a changed file": lambda one: one.change,
        "a changed file, CPU": lambda one: max(one.change_cpu, 0.001),
    }
    starts = tuple(
        Series.fitted(name, tuple((one.manifests, value(one)) for one in spooled)) for name, value in measured.items()
    )
    questions = tuple(
        Series.fitted(name, tuple((one.runs, one.milliseconds[name]) for one in answered))
        for name in answered[0].milliseconds
    )
    summary = [line_of(one) for one in spooled]
    summary += [
        f"{one.name}: grows with exponent {one.exponent:.2f}, at the end {one.at_the_end:.2f}"
        for one in (*starts, *questions)
    ]
    at_budget = next(one for one in spooled if one.manifests == BUDGET_MANIFESTS)
    return BenchResult(
        name="scale",
        title="Scale",
        about=ABOUT,
        summary=tuple(summary),
        tables=(table_of_spool(spooled), table_of_answers(answered)),
        plots=(
            Plot("scale-spool", "Starts and changes", "manifests in the spool", "s", starts, log_x=True, log_y=True),
            Plot("scale-answers", "Answers", "runs on record", "ms", questions, log_x=True, log_y=True),
        ),
        budgets=(
            at_most("start with 10,000 manifests that have not changed", BUDGET_SECONDS, at_budget.restart, "s"),
            at_most(
                "CPU for one changed file of 10,000, beside that of 100",
                2.0,
                max(at_budget.change_cpu, 0.01) / max(spooled[0].change_cpu, 0.01),
                "times",
            ),
        ),
    )


def table_of_spool(spooled: list[Spooled]) -> Table:
    rows = tuple(
        (
            f"{one.manifests:,}",
            f"{one.restart:.2f} s",
            f"{one.restart_cpu:.2f} s",
            f"{one.first:.2f} s",
            f"{one.change * 1000:.0f} ms",
            f"{one.change_cpu * 1000:.0f} ms",
            f"{one.idle:.2%}",
            f"{one.memory:.0f} MB",
        )
        for one in spooled
    )
    columns = (
        "manifests",
        "restart",
        "its CPU",
        "first start",
        "a changed file",
        "its CPU",
        "idle, of a core",
        "memory (RSS)",
    )
    return Table("The spool", columns, rows)


def table_of_answers(answered: list[Answered]) -> Table:
    columns = ("", *(f"{one.runs:,} runs" for one in answered))
    rows = tuple(
        (name, *(f"{figure(one.milliseconds[name])} ms" for one in answered)) for name in answered[0].milliseconds
    )
    return Table("Answers, median", columns, rows)

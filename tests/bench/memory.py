"""Memory of running idle jobs, PSS: what their processes beside the command cost; and the daemon's own, with its CPU at rest.

The command, ``sleep``, is the same for all and does not count. The jobs are those of a whole daemon; nothing is measured beside
it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from joblet.api.v1 import job_pb2
from tests.bench.peers import Runc, bubblewrap_command
from tests.bench.processes import children_of, idle_share, pss_kib, rss_megabytes
from tests.bench.report import BenchResult, NotRun, Plot, Series, Table, at_most
from tests.bench.rounds import words_of
from tests.bench.shim import Conmon
from tests.integration.host import Host, eventually, job_host

JOBS = 1, 100, 500, 2_000
MANIFESTS_AT_ONCE = 1000  # as many as a request may have
PEER_JOBS = 1, 50
IDLE_SECONDS = 10.0
START_SECONDS = 60.0
ALL_SECONDS = (
    62.0  # once it took so long the next larger number is not begun, as each takes about as long as all before
)
BUDGET_JOBS = 500
BUDGET_JOB_MB = 1.0
BUDGET_DAEMON_MB = 120.0
BUDGET_IDLE_PERCENT = 1.0
SHELL = ["/bin/sh", "-c", "echo up; exec /bin/sleep 600"]
MANIFEST = (
    "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: idle-{n:05}}}\nspec: {{command: [/bin/sleep, '3600']}}\n"
)
ABOUT = (
    "Jobs that sleep, in a whole daemon. A job's own is by how much launcher and inits, PSS, grew with it, its command not "
    "counted. The peers' is counted alike: bubblewrap's two processes, `runc run`, which stays as long as its container, and "
    "conmon, which is what podman leaves beside a container that runs. Of these only conmon keeps a log and an exit status. The "
    f"daemon's CPU is that of all its threads over {IDLE_SECONDS:g} s in which nothing changes."
)


@dataclass(frozen=True)
class Loaded:
    """With so many idle jobs. job_mb: PSS of each; idle_percent: of a core."""

    jobs: int
    job_mb: float
    daemon_mb: float
    idle_percent: float


def run() -> BenchResult:
    begin = time.monotonic()
    found: list[Loaded] = []
    left_out: list[str] = []
    with job_host() as host:
        eventually(lambda: idle_share(pid_of(host), 0.5) < 0.1, within=START_SECONDS, what="a daemon at rest")
        without_kib = pss_kib(below(pid_of(host)))
        for jobs in JOBS:
            if time.monotonic() - begin > ALL_SECONDS:
                left_out.append(f"{jobs:,} jobs left out: this machine took too long with fewer")
                break
            found.append(with_jobs(host, jobs, without_kib))
            print(line_of(found[-1]), flush=True)
    theirs, not_run = peers()
    for name, values in theirs.items():
        print(f"ratio to {name}: {found[-1].job_mb / values[-1]:.2f}   ({name}: {values[-1]:.2f} MB)", flush=True)
    return result_of(found, theirs, not_run, left_out)


def pid_of(host: Host) -> int:
    assert host.daemon is not None
    return host.daemon.pid


def with_jobs(host: Host, jobs: int, without_kib: int) -> Loaded:
    """Start what is missing to so many, wait until all run and nothing changes any more. without_kib: PSS with no job."""
    present = len(commands_of(host))
    stream = host.jobs.Watch(job_pb2.WatchRequest())
    for first in range(present, jobs, MANIFESTS_AT_ONCE):
        manifests = (MANIFEST.format(n=number) for number in range(first, min(first + MANIFESTS_AT_ONCE, jobs)))
        host.jobs.Apply(job_pb2.ApplyRequest(manifest="---\n".join(manifests).encode()))
    running: set[str] = set()
    for event in stream:
        if event.job.runs and event.job.runs[0].phase == "RUNNING":
            running.add(event.job.name)
            if len(running) == jobs:
                break
    stream.cancel()
    pid = pid_of(host)
    eventually(lambda: idle_share(pid, 0.5) < 0.1, within=START_SECONDS, what="a daemon at rest")
    idle = idle_share(pid, IDLE_SECONDS)
    processes = below(pid)
    commands = commands_of(host)
    assert len(commands) == jobs, (len(commands), jobs)
    own_kib = pss_kib(processes - commands) - without_kib
    return Loaded(jobs, own_kib / 1024 / jobs, rss_megabytes(pid), idle * 100)


def below(pid: int) -> set[int]:
    """All that descends from a process; the jobs' inits stay the launcher's children."""
    found: set[int] = set()
    fresh = [pid]
    while fresh := children_of(fresh):
        found.update(fresh)
    return found


def commands_of(host: Host) -> set[int]:
    return {pid for pid in below(pid_of(host)) if name_of(pid) == "sleep"}


def name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as stream:
            return stream.read().strip()
    except OSError:
        return ""


# --- peers ------------------------------------------------------------------------------------------------------------


def peers() -> tuple[dict[str, list[float]], list[NotRun]]:
    """MB of each job, for each number of jobs, of those that can be run here."""
    theirs: dict[str, list[float]] = {}
    not_run: list[NotRun] = []
    for name, many in (
        ("bubblewrap", bubblewraps),
        ("runc run", runcs),
        ("conmon + runc", lambda jobs: conmons("runc", jobs)),
        ("conmon + crun", lambda jobs: conmons("crun", jobs)),
    ):
        try:
            theirs[name] = [each_of(many(jobs), jobs) for jobs in PEER_JOBS]
        except FileNotFoundError as error:
            not_run.append(NotRun(name, f"{error.filename} is not installed"))
        except subprocess.CalledProcessError as error:
            not_run.append(NotRun(name, words_of(error)))
    return theirs, not_run


def each_of(started: AbstractContextManager[set[int]], jobs: int) -> float:
    with started as pids:
        return pss_kib(pids) / 1024 / jobs


@contextmanager
def bubblewraps(jobs: int) -> Iterator[set[int]]:
    """One process waits outside, one is pid 1 inside."""
    null = subprocess.DEVNULL
    started = [
        subprocess.Popen(bubblewrap_command(SHELL), stdout=subprocess.PIPE, stdin=null, stderr=null)
        for _ in range(jobs)
    ]
    try:
        for process in started:
            said_up(process)
        tops = [process.pid for process in started]
        yield {*tops, *children_of(tops)}
    finally:
        for process in started:
            for child in children_of([process.pid]):
                os.kill(child, signal.SIGKILL)  # pid 1 inside: all of it ends
            process.kill()
            process.wait()


@contextmanager
def runcs(jobs: int) -> Iterator[set[int]]:
    with Runc() as runc:
        started: list[subprocess.Popen[bytes]] = []
        try:
            started.extend(runc.start(SHELL) for _ in range(jobs))
            yield {process.pid for process in started}
        finally:
            for number, process in enumerate(started, 1):
                runc.kill(number)
                process.wait()


@contextmanager
def conmons(runtime: str, jobs: int) -> Iterator[set[int]]:
    with Conmon(runtime) as conmon:
        yield {conmon.start(SHELL) for _ in range(jobs)}


def said_up(process: subprocess.Popen[bytes]) -> None:
    """Wait for the command's first line. Raises CalledProcessError."""
    assert process.stdout is not None
    if not process.stdout.readline():
        raise subprocess.CalledProcessError(process.wait(), process.args)


# --- what was found ---------------------------------------------------------------------------------------------------


def line_of(one: Loaded) -> str:
    return (
        f"{one.jobs:,} idle jobs: {one.job_mb:.2f} MB a job; the daemon {one.daemon_mb:.0f} MB, "
        f"{one.idle_percent:.2f} % of a core at rest"
    )


def result_of(
    found: list[Loaded], theirs: dict[str, list[float]], not_run: list[NotRun], left_out: list[str]
) -> BenchResult:
    rows = tuple(
        (f"{one.jobs:,}", f"{one.job_mb:.2f} MB", f"{one.daemon_mb:.0f} MB", f"{one.idle_percent:.2f} %")
        for one in found
    )
    beside = tuple(
        (name, *(f"{value:.2f} MB" for value in values), f"{found[-1].job_mb / values[-1]:.2f}")
        for name, values in theirs.items()
    )
    summary = [line_of(one) for one in found] + left_out
    summary += [
        f"ratio to {name}: {found[-1].job_mb / values[-1]:.2f}   ({name}: {values[-1]:.2f} MB each of {PEER_JOBS[-1]})"
        for name, values in theirs.items()
    ]
    largest = max(found, key=lambda one: one.job_mb if one.jobs > 1 else 0.0)
    budgets = [at_most(f"memory of an idle job, of {largest.jobs:,}", BUDGET_JOB_MB, largest.job_mb, "MB")]
    for one in found:
        if one.jobs == BUDGET_JOBS:
            budgets += [
                at_most(f"daemon with {one.jobs} running jobs, memory", BUDGET_DAEMON_MB, one.daemon_mb, "MB"),
                at_most(
                    f"daemon with {one.jobs} running jobs, CPU at rest",
                    BUDGET_IDLE_PERCENT,
                    one.idle_percent,
                    "% of a core",
                ),
            ]
    daemon = tuple((float(one.jobs), one.daemon_mb) for one in found)
    return BenchResult(
        name="memory",
        title="Memory",
        about=ABOUT,
        summary=tuple(summary),
        tables=(
            Table("Idle jobs", ("jobs", "a job (PSS)", "the daemon (RSS)", "its CPU at rest, of a core"), rows),
            Table(
                "Peers, a job (PSS)",
                ("", *(f"of {jobs}" for jobs in PEER_JOBS), "Joblet's in terms of it"),
                beside,
            ),
        ),
        plots=(
            Plot(
                "memory-daemon",
                "The daemon and all its jobs",
                "idle jobs",
                "MB",
                (
                    Series("the daemon, RSS", daemon),
                    Series("the jobs, PSS", tuple((float(one.jobs), one.job_mb * one.jobs) for one in found)),
                ),
                log_x=True,
                log_y=True,
            ),
        ),
        budgets=tuple(budgets),
        not_run=tuple(not_run),
    )

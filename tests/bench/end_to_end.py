"""The whole road: a job handed over to its recorded completion, by each door, beside others that run jobs; how soon it starts.

Each round goes through all of them, so that what drifts on a machine drifts for all.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from joblet.api.v1 import job_pb2
from tests.bench import guest, restarts
from tests.bench.peers import Runc, systemd_run
from tests.bench.queues import nq, task_spooler
from tests.bench.report import (
    Bar,
    Bars,
    BenchResult,
    NotRun,
    Plot,
    Series,
    Table,
    at_least,
    at_most,
    figure,
    print_ratios,
    timing_table,
)
from tests.bench.rounds import Timing, able
from tests.bench.ways import CLIENTS, HUNG_SECONDS, Door, cpu_seconds
from tests.integration.host import FINAL, Host, job_host

ROUNDS = 3
WITHIN_SECONDS = 80.0
JOBS = 1000
PEER_JOBS = 100
DROPS = 200
SPARE_SECONDS = 0.03
GUEST_JOBS = 40
GUEST_PEER_JOBS = 10
TRUE = ["/bin/true"]
ALL_AT_ONCE = "Joblet: gRPC, all in one request"
PUEUE = NotRun("pueue", "neither Debian 12 nor PyPI has a package of it")
ABOUT = (
    f"Jobs of `/bin/true` from their being handed over to their recorded completion, durable, each in a sandbox of its own: "
    f"{JOBS:,} in one request, and {JOBS:,} in {ROUNDS} rounds by each of the other doors. In the same rounds runc one after "
    "the other, and what takes jobs into a queue and gives them no sandbox: nq, which runs one at a time, and task-spooler "
    "with a place a processor, each told by a process a job. CPU is that of the daemon, the launcher and the jobs."
)


@dataclass
class Way:
    """A way to run that many jobs a round, and what it took so far."""

    jobs: int
    call: Callable[[int], object]
    cpu: Callable[[], float] | None = None
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def round(self) -> None:
        cpu_before = self.cpu() if self.cpu else 0.0
        begin = time.perf_counter()
        self.call(self.jobs)
        self.rates.append(self.jobs / (time.perf_counter() - begin))
        if self.cpu:
            self.cpu_ms.append((self.cpu() - cpu_before) * 1000 / self.jobs)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def run() -> BenchResult:
    with job_host() as host:
        ways, refused = rates(host)
        drops_ms = sorted(drop_to_exec_ms(host))
        restarted = restarts.measure(host)
    found = guest.run(__name__, timeout_seconds=150)
    not_run = [PUEUE, *(NotRun(peer, why) for peer, why in refused.items())]
    if isinstance(found, NotRun):
        not_run.append(found)
    else:
        not_run += [NotRun(f"{peer}, in the guest", why) for peer, why in found.refused.items()]
    inside = {} if isinstance(found, NotRun) else found.rates
    return _result(ways, drops_ms, restarted, inside, not_run)


def rates(host: Host) -> tuple[dict[str, Way], dict[str, str]]:
    """All ways in turns, and of the peers that cannot be run here what they said."""
    door = Door(host)
    share = JOBS // ROUNDS
    with ExitStack() as stack:
        runc = stack.enter_context(Runc())
        peers: dict[str, Callable[[int], object]] = {
            "runc, in a loop": lambda jobs: _loop(runc.run, jobs),
            "nq": nq,
            "task-spooler": task_spooler,
        }
        good, refused = able({name: _once(call) for name, call in peers.items()})

        def cpu() -> float:
            return cpu_seconds(host)

        ways = {
            ALL_AT_ONCE: Way(JOBS, door.one_request, cpu),
            "Joblet: gRPC, one client, a request a job": Way(share, door.one_client, cpu),
            f"Joblet: gRPC, {CLIENTS} clients, a request a job": Way(share, door.many_clients, cpu),
            "Joblet: a file a job into the spool": Way(share, door.spool, cpu),
            **{name: Way(PEER_JOBS, peers[name], children_seconds if "loop" in name else None) for name in good},
        }
        end = time.monotonic() + WITHIN_SECONDS
        for number in range(ROUNDS):
            if number and time.monotonic() > end:
                break
            for name, way in ways.items():
                way.round()
                print(f"round {number + 1}: {name}: {way.rates[-1]:.0f} jobs a second", flush=True)
    return ways, refused


def _loop(launch: Callable[[list[str]], object], jobs: int) -> None:
    for _ in range(jobs):
        launch(TRUE)


def _once(call: Callable[[int], object]) -> Callable[[], object]:
    return lambda: call(1)


def children_seconds() -> float:
    """CPU of the processes that we started, and theirs, as far as they have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def drop_to_exec_ms(host: Host) -> list[float]:
    """From the rename into the spool to the time at which init saw the exec succeed; one job at a time."""
    door = Door(host)
    stream = host.jobs.Watch(job_pb2.WatchRequest(), timeout=HUNG_SECONDS)
    for event in stream:
        if event.type == job_pb2.WatchEvent.SYNCED:
            break
    times = []
    for number in range(DROPS):
        name = f"dropped-{number}"
        time.sleep(SPARE_SECONDS)
        dropped_ns = door.drop(name)
        for event in stream:
            if event.job.name == name and event.job.runs and event.job.runs[0].phase in FINAL:
                times.append((event.job.runs[0].started.ToNanoseconds() - dropped_ns) / 1e6)
                break
    stream.cancel()
    return times


def in_guest() -> guest.Found:
    """systemd-run, with runc and ourselves beside it: jobs a second."""
    with Runc() as runc, Runc("crun") as crun:
        peers = {"systemd-run, in a loop": systemd_run, "runc, in a loop": runc.run, "crun, in a loop": crun.run}
        good, refused = able({name: lambda launch=launch: launch(TRUE) for name, launch in peers.items()})  # type: ignore[misc]
        ways = {name: Way(GUEST_PEER_JOBS, lambda jobs, launch=peers[name]: _loop(launch, jobs)) for name in good}  # type: ignore[misc]
        with job_host() as host:
            door = Door(host)
            door.one_request(1)
            ways = {ALL_AT_ONCE: Way(GUEST_JOBS, door.one_request), **ways}
            for _ in range(2):
                for way in ways.values():
                    way.round()
    return guest.Found(refused=refused, rates={name: way.rate for name, way in ways.items()})


def _result(
    ways: Mapping[str, Way],
    drops_ms: list[float],
    restarted: Mapping[str, Timing],
    inside: Mapping[str, float],
    not_run: list[NotRun],
) -> BenchResult:
    median, late = (statistics.quantiles(drops_ms, n=100)[percent - 1] for percent in (50, 99))
    ours = ways[ALL_AT_ONCE].rate
    lines = [f"joblet: {ours:.0f} jobs a second, {JOBS:,} in one request, apply to recorded completion, durable"]
    lines += [
        f"ratio to {name}: {ours / way.rate:.2f}   ({name}: {way.rate:.0f} jobs a second; above 1 is quicker)"
        for name, way in ways.items()
        if not name.startswith("Joblet")
    ]
    lines += [
        f"in the guest: ratio to {name}: {inside[ALL_AT_ONCE] / rate:.2f}"
        for name, rate in inside.items()
        if name != ALL_AT_ONCE
    ]
    lines.append(
        f"drop to exec: {median:.1f} ms median, {late:.1f} ms in 99 of 100, {drops_ms[-1]:.1f} ms at most, of {DROPS}"
    )
    print("\n".join(lines))
    print("-- from death to restarted")
    again = print_ratios("joblet", restarted)
    return BenchResult(
        name="end_to_end",
        title="End to end",
        about=ABOUT,
        summary=(*lines, *(f"from death to restarted: {line}" for line in again[1:])),
        tables=(
            _rate_table(ways, ours),
            *([_guest_table(inside)] if inside else []),
            timing_table(
                "A service that is killed: from its death to its next start, `restart: Always`", "joblet", restarted
            ),
        ),
        plots=(_rate_bars(ways), _drop_plot(drops_ms)),
        budgets=(
            at_least(f"apply to recorded completion of {JOBS:,} jobs", 100, ours, "jobs a second"),
            at_most("a drop-in file to its command's exec, median", 50, median, "ms"),
        ),
        not_run=tuple(not_run),
    )


def _rate_table(ways: Mapping[str, Way], ours: float) -> Table:
    rows = tuple(
        (
            name,
            "" if name == ALL_AT_ONCE else f"{ours / way.rate:.2f}",
            figure(way.rate),
            f"{figure(min(way.rates))} to {figure(max(way.rates))}",
            f"{statistics.median(way.cpu_ms):.1f} ms" if way.cpu_ms else "",
            f"{len(way.rates)} times {way.jobs:,}",
        )
        for name, way in ways.items()
    )
    columns = (
        "",
        "our rate in one request in terms of it",
        "jobs a second, median",
        "least to most",
        "CPU a job",
        "jobs",
    )
    return Table("Jobs a second", columns, rows)


def _guest_table(inside: Mapping[str, float]) -> Table:
    rows = tuple(
        (name, "" if name == ALL_AT_ONCE else f"{inside[ALL_AT_ONCE] / rate:.2f}", figure(rate))
        for name, rate in inside.items()
    )
    return Table("In the guest: only the ratios mean anything", ("", "our rate in terms of it", "jobs a second"), rows)


def _rate_bars(ways: Mapping[str, Way]) -> Bars:
    bars = tuple(
        Bar(name.removeprefix("Joblet: "), way.rate, min(way.rates), max(way.rates), name.startswith("Joblet"))
        for name, way in ways.items()
    )
    return Bars(
        "end-to-end-rates", "Jobs of /bin/true, handed over to recorded completion: more is better", "a second", bars
    )


def _drop_plot(drops_ms: list[float]) -> Plot:
    points = tuple((time_ms, 100 * (number + 1) / len(drops_ms)) for number, time_ms in enumerate(drops_ms))
    series = (Series("dropped files whose command was executed by then", points),)
    return Plot("end-to-end-drops", "A file dropped into the spool to its command's exec", "ms", "of 100", series)

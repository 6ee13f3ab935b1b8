"""What a loaded daemon costs a CPU-bound job beside it: idle jobs, and a stream of short ones, beside the same load by runc."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from joblet.api.v1 import job_pb2
from tests.bench.peers import Runc
from tests.bench.report import Bar, Bars, BenchResult, NotRun, Table
from tests.bench.rounds import able
from tests.integration.host import FINAL, Host, job_host

IDLE_JOBS = 500
SHORT_JOBS = 40  # in one request of the stream
WORK_SECONDS = 0.6  # of the CPU-bound job, undisturbed
ROUNDS = 3
NOTHING, IDLE, STREAM, RUNC = "nothing else", f"{IDLE_JOBS} idle jobs", "a stream of short jobs", "a loop of runc"
FREE, PINNED = "free", "pinned"
# Its own time, by its own clock: sandbox and start do not count. First how much work is so many seconds, then the work.
COUNT = "import time\ndef work(n):\n    for _ in range(n): sum(range(1000))\n"
CALIBRATE = (
    COUNT + "n = 0\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: work(10); n += 10\nprint(n)"
)
WORK = COUNT + "began = time.monotonic(); work({n}); print(time.monotonic() - began)"
ABOUT = (
    f"A job counts, for some {WORK_SECONDS:g} s when nothing else runs; told is how much longer it takes while the daemon "
    f" has {IDLE_JOBS} idle jobs; while it also runs a stream of `/bin/true`, {SHORT_JOBS} in a request, one request after "
    "the other; and while runc runs `/bin/true` one after the other instead. Free, the kernel may move it between the cores; "
    "pinned, it has the first core by `limits.cpus`, and everything else may run there as well. A shared load is no noise of "
    "the daemon alone: beside the stream stands how many short jobs there were in the time."
)


@dataclass(frozen=True)
class Seen:
    """Of one load: seconds of each round of the counting job, by how it was placed, and short jobs a second meanwhile."""

    load: str
    seconds: dict[str, list[float]]
    rate: float

    def median(self, placed: str) -> float:
        return statistics.median(self.seconds[placed])


class Load:
    """Something that is done over and over by a thread, and counts how much of it was done. ``step`` returns that."""

    def __init__(self, step: Callable[[], int]) -> None:
        self.step = step
        self.done = 0
        self.seconds = 0.0
        self.error: Exception | None = None
        self._end = threading.Event()

    @contextmanager
    def going(self) -> Iterator[None]:
        self._end.clear()
        begin = time.monotonic()
        thread = threading.Thread(target=self._run, name="load")
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            self.seconds += time.monotonic() - begin
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                self.done += self.step()
        except Exception as error:  # handed to whoever wanted the load
            self.error = error


def run() -> BenchResult:
    with job_host() as host, Runc() as runc:
        work = int(counted(host, "calibrate", CALIBRATE.format(seconds=WORK_SECONDS), FREE))
        good, refused = able({RUNC: lambda: runc.run(["/bin/true"])})
        seen = [under(host, NOTHING, work, None)]
        if good:
            seen.append(under(host, RUNC, work, Load(lambda: looped(runc))))
        host.apply("---\n".join(manifest(f"idle-{n}", ["/bin/sleep", "3600"]) for n in range(IDLE_JOBS)))
        until_running(host)
        seen.append(under(host, IDLE, work, None))
        seen.append(under(host, STREAM, work, Load(stream_of(host))))
    return result_of(seen, [NotRun(name, why) for name, why in refused.items()])


def under(host: Host, load: str, work: int, beside: Load | None) -> Seen:
    """The counting job in some rounds, free and pinned in turns, beside that load."""
    seconds: dict[str, list[float]] = {FREE: [], PINNED: []}
    for number in range(ROUNDS):
        for placed, found in seconds.items():
            name = f"{load.replace(' ', '-')}-{placed}-{number}"
            with beside.going() if beside else quiet():
                found.append(float(counted(host, name, WORK.format(n=work), placed)))
    seen = Seen(load, seconds, beside.done / beside.seconds if beside else 0.0)
    print(
        f"{load}: {seen.median(FREE):.2f} s free, {seen.median(PINNED):.2f} s pinned, {seen.rate:.0f} short jobs a second",
        flush=True,
    )
    return seen


@contextmanager
def quiet() -> Iterator[None]:
    yield


# --- jobs -------------------------------------------------------------------------------------------------------------


def manifest(name: str, command: list[str], *, cpus: str = "", number: int = 0) -> str:
    limits = f', limits: {{cpus: "{cpus}"}}' if cpus else ""
    return (
        f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}, labels: {{load: {name.partition('-')[0]}}}}}\n"
        f'spec: {{command: {json.dumps(command)}, env: {{N: "{number}"}}{limits}}}\n'
    )


def counted(host: Host, name: str, code: str, placed: str) -> str:
    """What a job that counts prints in the end."""
    name = f"counting-{name}"
    host.apply(manifest(name, ["/usr/bin/python3", "-I", "-S", "-c", code], cpus="0" if placed == PINNED else ""))
    ended = host.finished(name, within=60)
    if ended.phase != "COMPLETED":
        raise RuntimeError(f"{name}: {ended.phase} {ended.reason} {ended.message}")
    return host.log(name).decode()


def until_running(host: Host) -> None:
    wait_for(host, "idle", IDLE_JOBS, lambda run: run.phase == "RUNNING")


def stream_of(host: Host) -> Callable[[], int]:
    """Each step runs that many short jobs to their end."""
    number = 0

    def step() -> int:
        nonlocal number
        number += 1
        jobs = [manifest(f"short-{n}", ["/bin/true"], number=number) for n in range(SHORT_JOBS)]
        host.apply("---\n".join(jobs))
        wait_for(host, "short", SHORT_JOBS, lambda run: run.phase in FINAL and run.generation == number)
        return SHORT_JOBS

    return step


def wait_for(host: Host, load: str, jobs: int, done: Callable[[job_pb2.Run], bool]) -> None:
    stream = host.jobs.Watch(job_pb2.WatchRequest(label_selector=f"load={load}"), timeout=60)
    found: set[str] = set()
    for event in stream:
        if event.job.runs and done(event.job.runs[0]):
            found.add(event.job.name)
            if len(found) == jobs:
                break
    stream.cancel()


def looped(runc: Runc) -> int:
    runc.run(["/bin/true"])
    return 1


# --- what was found ---------------------------------------------------------------------------------------------------


def result_of(seen: list[Seen], not_run: list[NotRun]) -> BenchResult:
    alone = seen[0]

    def longer(one: Seen, placed: str) -> float:
        return one.median(placed) / alone.median(placed)

    rows = tuple(
        (
            one.load,
            *(f"{longer(one, placed):.2f} ({one.median(placed):.2f} s)" for placed in (FREE, PINNED)),
            f"{one.rate:.0f}" if one.rate else "",
        )
        for one in seen
    )
    summary = [
        f"{one.load}: {longer(one, FREE):.2f} times as long free, {longer(one, PINNED):.2f} pinned" for one in seen[1:]
    ]
    by_load = {one.load: one for one in seen}
    if RUNC in by_load:
        ours, theirs = by_load[STREAM], by_load[RUNC]
        summary += [
            f"the stream, ratio to runc's loop: {ours.rate / theirs.rate:.2f} as many short jobs a second; the counting job "
            f"takes {ours.median(placed) / theirs.median(placed):.2f} as long {placed}"
            for placed in (FREE, PINNED)
        ]
    print("\n".join(summary), flush=True)
    bars = tuple(
        Bar(
            f"{one.load}, {placed}",
            one.median(placed),
            min(one.seconds[placed]),
            max(one.seconds[placed]),
            one is not alone,
        )
        for one in seen
        for placed in (FREE, PINNED)
    )
    return BenchResult(
        name="noise",
        title="Noise",
        about=ABOUT,
        summary=tuple(summary),
        tables=(Table("A CPU-bound job beside others", ("beside", "free", "pinned", "short jobs a second"), rows),),
        plots=(Bars("noise", "A CPU-bound job beside others", "s", bars),),
        not_run=tuple(not_run),
    )

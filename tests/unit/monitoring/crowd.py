"""Many attempts that run, on a clock that the test moves: a real profiler and store, and figures that say how often they were
asked for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from joblet.manifest import JobManifest
from jobletd.executor import Executor, Used
from jobletd.model import Attempt, AttemptId, End, Exited, JobName, JobView, Phase, Reason, Run, RunId, Source, Usage
from jobletd.monitoring.profiler import Profiler
from jobletd.registry import Registry
from jobletd.store import Store
from tests.unit.reconciler.stepped_clock import SteppedClock

T = TypeVar("T")


class CountingStore(Store):
    """writes: transactions that were asked for."""

    writes = 0

    async def write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        self.writes += 1
        return await super().write(function)


class Figures:
    """Stands for an executor that is only asked what is used. counted: looks, by whether all had to be read."""

    def __init__(self) -> None:
        self.used: dict[AttemptId, Usage] = {}
        self.counted: Counter[str] = Counter()

    async def usage(self, attempts: Mapping[AttemptId, Usage | None]) -> Mapping[AttemptId, Used]:
        found: dict[AttemptId, Used] = {}
        for attempt_id, before in attempts.items():
            now = self.used[attempt_id]
            same = before is not None and before.cpu_seconds == now.cpu_seconds
            self.counted["of one file" if same else "whole"] += 1
            found[attempt_id] = Used(before if before is not None and same else replace(now))
        return found


class Crowd:
    """``start`` begins attempts, ``use`` says what one uses, ``pass_time`` lets the profiler look whenever it wants to."""

    def __init__(self, registry: Registry, store: CountingStore, clock: SteppedClock) -> None:
        self.clock = clock
        self.figures = Figures()
        self.store = store
        self.registry = registry
        self.profiler = self.another_profiler()
        self.wakings = 0
        self.began_ns: dict[str, int] = {}

    def another_profiler(self) -> Profiler:
        """As of a daemon that has just started."""
        return Profiler(self.registry, cast(Executor, self.figures))

    async def start(self, *names: str) -> None:
        await self.store.write(lambda connection: put_runs(connection, names))
        for name in names:
            self.use(name, 0.002)
            self.began_ns[name] = self.clock.wall_ns()
            self.profiler.changed(JobName(name), self._view(name))

    def end(self, name: str, usage: Usage) -> None:
        now_ns = self.clock.wall_ns()
        self.profiler.changed(JobName(name), self._view(name, End(Exited(0), Reason.EXIT_CODE, now_ns, usage=usage)))

    def use(self, name: str, cpu_seconds: float, memory_bytes: int = 1 << 20) -> None:
        self.figures.used[AttemptId(name)] = Usage(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds)

    async def pass_time(self, seconds: float) -> None:
        end = self.clock.boot_seconds() + seconds
        while (due := self.profiler.next_look) is not None and due <= end:
            if due > self.clock.boot_seconds():
                self.wakings += 1
                self.clock.pass_time(due - self.clock.boot_seconds() + 1e-6)
            await self.profiler.look()
            await asyncio.sleep(0)  # what is worth keeping is asked for
        self.clock.pass_time(max(end - self.clock.boot_seconds(), 0))

    def counts(self) -> dict[str, int]:
        """Since the last time."""
        counted = {**self.figures.counted, "wakings": self.wakings, "transactions": self.store.writes}
        self.figures.counted.clear()
        self.wakings = self.store.writes = 0
        return counted

    async def seconds_of(self, name: str) -> list[int]:
        """When there is a sample, in whole seconds since its start."""
        await asyncio.sleep(0)  # it may just have been kept
        profile = await self.profiler.of(AttemptId(name))
        return [round(sample.at_ms / 1000) for sample in profile.samples] if profile is not None else []

    def _view(self, name: str, end: End | None = None) -> JobView:
        manifest = JobManifest.model_validate(
            {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"command": ["sleep", "9"]}}
        )
        now_ns = self.began_ns[name]
        phase = Phase.RUNNING if end is None else Phase.COMPLETED
        attempt = Attempt(AttemptId(name), RunId(name), 1, phase, now_ns, started_ns=now_ns, end=end)
        run = Run(RunId(name), JobName(name), name, 1, "generation", phase, manifest, now_ns, attempts=(attempt,))
        return JobView(name, manifest, Source("spool", "a.yml"), 1, 1, now_ns, now_ns, runs=(run,))


@asynccontextmanager
async def crowd(directory: Path) -> AsyncIterator[Crowd]:
    clock = SteppedClock()
    store = CountingStore.open(str(directory / "joblet.db"))
    try:
        yield Crowd(Registry(store, clock), store, clock)
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "profile"))
    finally:
        store.close()


def put_runs(connection: sqlite3.Connection, names: tuple[str, ...]) -> None:
    """As much of them as a profile belongs to."""
    connection.executemany(
        'INSERT INTO runs (id, job, job_uid, generation, "trigger", phase, is_final, message, manifest, created_ns) '
        "VALUES (?, ?, ?, 1, 'generation', 'RUNNING', 0, '', '{}', 1)",
        [(name, name, name) for name in names],
    )

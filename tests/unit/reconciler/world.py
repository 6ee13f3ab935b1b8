"""A host under test: its clock, its disk, its attempts, and the daemon on it, which may die at any step and come back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from joblet.manifest import (
    JobManifest,
    ResourceManifest,
    VolumeManifest,
    jobs_of,
    manifest_from_json,
    read_manifests,
)
from jobletd.backup.journal import LaunchJournal, read_journal
from jobletd.backup.settling import PutBack, marked, settle, take_up_journal, unmark
from jobletd.blobs.store import BlobLimits, BlobStore
from jobletd.desired import DesiredState
from jobletd.errors import WrongState
from jobletd.maintenance import Maintenance
from jobletd.model import ApplyResult, Attempt, AttemptId, Event, JobName, JobView, Phase, ResourceView, Run, Source
from jobletd.places import Bounds
from jobletd.reconciler import Reconciler
from jobletd.registry import Registry
from jobletd.resources import Controller, Resources
from jobletd.secrets.controller import SecretController
from jobletd.secrets.host_key import HostKey
from jobletd.secrets.vault import Vault
from jobletd.selectors import LabelSelector
from jobletd.store import Store, rows
from jobletd.store.errors import StoreFull
from jobletd.tracing.span import Span
from jobletd.tracing.tracing import Tracing
from jobletd.workflows.controller import Workflows
from tests.unit.reconciler.fake_executor import FakeExecutor, FakeHost
from tests.unit.reconciler.stepped_clock import SteppedClock

T = TypeVar("T")
CLIENT = Source("grpc", "admin")
ALL = LabelSelector()


class SteppedLoop(asyncio.SelectorEventLoop):
    """Its time stands still until the test moves it, so that no timer fires by chance and none is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000.0

    def time(self) -> float:
        return self.seconds


class Fuse:
    """Counts the steps of a daemon, and stops the world at one of them: nothing after it happens."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.steps: list[str] = []
        self.blown = asyncio.Event()

    async def step(self, what: str) -> None:
        if not self.blown.is_set():
            if len(self.steps) == self.at:
                self.blown.set()
            self.steps.append(what)
        if self.blown.is_set():
            await asyncio.get_running_loop().create_future()


class FusedStore(Store):
    """A store whose writes are steps: before it, nothing is on record; after it, all is, and nobody was told."""

    fuse: Fuse
    is_full = False

    async def write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        await self.fuse.step("before write")
        if self.is_full:
            raise StoreFull("no room is left", where=self._path)
        result = await super().write(function)
        await self.fuse.step("after write")
        return result

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await Store.write(self, function)


class FakeVolumes:
    """A controller of volumes that exist only here. broken: why none can be made."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.broken = ""

    def check(
        self, current: ResourceManifest | None, desired: ResourceManifest, others: Iterable[ResourceManifest]
    ) -> None:
        assert isinstance(desired, VolumeManifest)
        if isinstance(current, VolumeManifest) and current.spec.type != desired.spec.type:
            raise WrongState("a volume cannot change its type")

    async def realize(self, view: ResourceView) -> None:
        if self.broken:
            raise OSError(28, self.broken)
        self.there.add(view.manifest.metadata.name)

    async def remove(self, view: ResourceView) -> None:
        self.there.discard(view.manifest.metadata.name)

    async def status(self, view: ResourceView) -> dict[str, str]:
        return {"used": "0"}


class World:
    """One host. ``boot`` starts a daemon, ``crash`` kills it."""

    def __init__(self, directory: Path, *, max_concurrent: int = 0, per_source: int = 0) -> None:
        self.path = str(directory / "joblet.db")
        self.key_file = directory / "secret.key"
        self.clock = SteppedClock()
        self.host = FakeHost(self.clock)
        self.max_concurrent = max_concurrent
        self.per_source = per_source
        self.fuse = Fuse()
        self.journal_directory = str(directory / "launches")
        self.no_room = ""
        self.spans: list[Span] | None = None  # a list: all daemons record traces, and tell it of them

    def marked(self) -> PutBack | None:
        """Whether the database comes from a backup. No step of the daemon: it has no fuse."""
        with closing(sqlite3.connect(self.path)) as connection:
            return marked(connection)

    async def boot(self, fuse: Fuse | None = None) -> None:
        self.fuse = fuse or Fuse()
        self.store = FusedStore.open(self.path)
        self.store.fuse = self.fuse
        self.executor = FakeExecutor(self.host, self.fuse.step)
        put_back = self.marked()
        if put_back is not None:
            entries = list(read_journal(self.journal_directory, put_back.created_ns))
            await self.store.write(lambda connection: take_up_journal(connection, entries, self.clock.now_ns))
        self.journal = LaunchJournal(self.journal_directory)
        self.journal.open(self.clock.now_ns)
        self.registry = Registry(self.store, self.clock)
        await self.registry.load()
        if self.spans is not None:
            self.registry.tracing = Tracing(self.spans.append, self.clock, ratio=1.0)
            await self.registry.tracing.load(self.store)
        self.volumes = FakeVolumes()
        key = HostKey(str(self.key_file), {}, anything_sealed=self.registry.anything_sealed)
        vault = Vault(key)
        self.workflows = Workflows(self.registry)
        controllers: dict[str, Controller] = {
            "Volume": self.volumes,
            "Secret": SecretController(vault),
            "Workflow": self.workflows,
        }
        self.resources = Resources(self.registry, controllers, vault)
        self.reconciler = Reconciler(
            self.registry,
            self.executor,
            self.resources,
            bounds=Bounds(self.max_concurrent, self.per_source),
            journal=self.journal,
            room=lambda: self.no_room,
        )
        self.exited = False
        self.maintenance = Maintenance(self.registry, self.reconciler, self._exit)
        self.blobs = BlobStore(str(self.key_file.parent / "blobs"), BlobLimits(1 << 20, 1 << 21))
        self.blobs.open()
        self.desired = DesiredState(self.registry, self.executor, self.reconciler.nudge, self.resources, self.blobs)
        await self.workflows.begin(self.desired, self.resources.look_at, self.reconciler.look)
        await self.executor.start()
        await self.resources.start()
        if put_back is not None:
            await settle(self.registry, self.executor)
            await self.workflows.pass_over_ticks()
            await unmark(self.store)
        await self.reconciler.start()
        parts = (self.reconciler, self.resources, self.workflows)
        self._run = [asyncio.create_task(part.run()) for part in parts]

    def _exit(self) -> None:
        self.exited = True

    async def crash(self) -> None:
        """Nothing is finished, nothing is said: what is in the store and on the host is what is left."""
        self.host.nudge = lambda _: None
        self.reconciler.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.store.close()
        self.journal.close()

    async def restart(self) -> None:
        await self.crash()
        await self.boot()
        await self.settle()

    async def until_dead(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it, or as much of it as the daemon gets done. Raises what the work raises."""
        task = asyncio.create_task(work)
        blown = asyncio.create_task(self.fuse.blown.wait())
        await asyncio.wait({task, blown}, return_when=asyncio.FIRST_COMPLETED)
        blown.cancel()
        if task.done():
            task.result()
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.settle()

    async def settle(self) -> None:
        """Wait until the daemon has done what there is to do now, or has died over it."""
        settled = asyncio.create_task(self._settled())
        blown = asyncio.create_task(self.fuse.blown.wait())
        await asyncio.wait({settled, blown}, return_when=asyncio.FIRST_COMPLETED)
        settled.cancel()
        blown.cancel()

    async def _settled(self) -> None:
        await self.resources.settle()
        await self.reconciler.settle()
        while self.workflows.is_busy:  # what it declares, the reconciler works off, which it is told of
            await self.workflows.settle()
            await self.resources.settle()
            await self.reconciler.settle()

    async def advance(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        loop.seconds += seconds
        self.clock.pass_time(seconds)
        await asyncio.sleep(0)  # timers that are due fire at the loop's next turn
        await asyncio.sleep(0)
        await self.settle()

    # --- shortcuts ----------------------------------------------------------------------------------------------------

    async def apply(self, text: str, source: Source = CLIENT) -> ApplyResult:
        (result,) = await self.desired.apply(manifests(text), source)
        await self.settle()
        return result

    async def exit(self, code: int = 0, attempt: AttemptId | None = None) -> None:
        """The only live attempt, or that one, ends."""
        self.host.exit(attempt or self.live_attempt(), code)
        await self.settle()

    def live_attempt(self) -> AttemptId:
        (launched,) = self.host.live()
        return launched.request.attempt_id

    async def stop(self, ref: str = "job", *, force: bool = False) -> None:
        await self.desired.stop(ref, force=force)
        await self.settle()

    async def delete(self, name: str = "job") -> None:
        await self.desired.delete(JobName(name), source=None)
        await self.settle()

    async def view(self, ref: str = "job") -> JobView:
        return await self.desired.get(ref)

    async def run(self, ref: str = "job") -> Run:
        """The latest run of a job, or the one with that id."""
        return (await self.view(ref)).runs[0]

    async def history(self, name: str = "job") -> list[Run]:
        return list((await self.desired.get(name, history=True)).runs)

    async def events(self, ref: str = "job") -> list[Event]:
        return [event async for event in self.desired.events(ref, follow=False, since_ns=0)]

    async def reasons(self, ref: str = "job") -> list[str]:
        return [event.reason for event in await self.events(ref)]

    async def all_attempts(self) -> list[Attempt]:
        def select(connection: sqlite3.Connection) -> list[Attempt]:
            ids = [row[0] for row in connection.execute("SELECT id FROM runs")]
            return [attempt for run_id in ids for attempt in rows.load_attempts(connection, run_id)]

        return await self.store.read(select)


def manifests(text: str) -> tuple[JobManifest, ...]:
    return jobs_of(read_manifests(text.encode(), filename="test.yml"))


def job(spec: str = "", *, name: str = "job", command: str = "[sleep, '1']", labels: str = "{}") -> str:
    """A manifest; spec: further fields in flow style, comma-separated."""
    comma = ", " if spec else ""
    return (
        f"{{apiVersion: joblet/v1, kind: Job, metadata: {{name: {name}, labels: {labels}}}, "
        f"spec: {{command: {command}{comma}{spec}}}}}\n"
    )


def play(scenario: Callable[[World], Awaitable[None]], world: World, *, fuse: Fuse | None = None) -> None:
    """Run a scenario on a world with a daemon; broken promises of the reconciler fail it."""

    async def whole() -> None:
        await world.boot(fuse)
        await world.settle()
        try:
            await scenario(world)
        finally:
            await world.crash()
        assert world.host.broken_promises == []

    run_loop(whole())


def run_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        return runner.run(coroutine)


def phases(runs: list[Run]) -> list[Phase]:
    return [run.phase for run in runs]


def same_manifest(text: str, other: JobManifest) -> bool:
    return manifest_from_json(text) == other

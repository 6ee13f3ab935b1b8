"""All jobs with their open runs in memory, as the store has them: a change is durable before it is seen here.

Whoever changes a job holds its lock. Watchers hear of each change through bounded queues.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from joblet.clock import Clock
from jobletd.conditions import progressing
from jobletd.model import Attempt, Cordon, Event, JobChange, JobName, JobView, Phase, Reason, ResourceView, Run, RunId
from jobletd.store import Store, host_rows, profile_rows, resource_rows, rows
from jobletd.waiting_line import WaitingLine

WATCH_QUEUE = 4096


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event to be recorded. type: Normal or Warning."""

    job: str
    run_id: str
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Save:
    """One job's change. job, generation: whether these rows change; remove: the job goes away."""

    view: JobView
    runs: Sequence[Run] = ()
    attempts: Sequence[Attempt] = ()
    events: Sequence[EventDraft] = ()
    dropped: Sequence[Attempt] = ()
    job: bool = False
    generation: bool = False
    remove: bool = False


@dataclass(frozen=True, slots=True)
class SaveResource:
    """One resource's change. remove: it goes away."""

    view: ResourceView
    events: Sequence[EventDraft] = ()
    remove: bool = False


Item = JobChange | Event


class Subscription:
    """One listener's queue of what it wants. overflowed: it was too slow, and gets nothing more, nor what it has not read.

    conflating: it only wants to know that something changed, so one item that it has not read yet is as good as many.
    """

    def __init__(self, wanted: Callable[[Item], bool], *, job: str = "", conflating: bool = False) -> None:
        self.job = job
        self.queue: asyncio.Queue[Item] = asyncio.Queue(1 if conflating else WATCH_QUEUE)
        self.overflowed = False
        self._wanted = wanted
        self._conflating = conflating

    def put(self, item: Item) -> None:
        if self.overflowed or not self._wanted(item):
            return
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            if not self._conflating:
                self.overflowed = True
                while self.queue.qsize() > 1:  # one stays, for whoever waits for it
                    self.queue.get_nowait()


class Registry:
    """The jobs of this host."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.views: dict[JobName, JobView] = {}
        self.resources: dict[JobName, ResourceView] = {}
        self.by_run: dict[RunId, JobName] = {}
        self.waiting = WaitingLine()  # for a free place; kept by the reconciler
        self.cordon: Cordon | None = None
        self._locks: WeakValueDictionary[JobName, asyncio.Lock] = WeakValueDictionary()  # as long as somebody uses them
        self._listeners: dict[str, set[Subscription]] = {}  # by the job that they are about; empty: all
        self._callbacks: list[Callable[[JobName, JobView | None], None]] = []

    async def load(self) -> None:
        """Read everything that is on record."""
        for view in await self.store.read(rows.load_jobs):
            self._put(view)
        self.resources = {view.name: view for view in await self.store.read(resource_rows.load_resources)}
        self.cordon = await self.store.read(host_rows.load_cordon)

    def on_change(self, callback: Callable[[JobName, JobView | None], None]) -> None:
        """Call back in the event loop after each change; None: the job is gone."""
        self._callbacks.append(callback)

    def anything_sealed(self) -> bool:
        """Whether there is something that only the host's key opens."""
        return any(view.secret is not None for view in self.resources.values())

    def lock(self, name: JobName) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    @asynccontextmanager
    async def lock_all(self, names: Iterable[JobName]) -> AsyncIterator[None]:
        """Hold several locks, taken in order of the names so that two callers can't wait for each other."""
        async with AsyncExitStack() as stack:
            for name in sorted(set(names)):
                await stack.enter_async_context(self.lock(name))
            yield

    async def save(self, *saves: Save | SaveResource) -> None:
        """Make the changes durable, all or none, then visible. The caller holds the locks of the jobs."""

        def write(connection: sqlite3.Connection) -> list[Event]:
            return [event for save in saves for event in _write(connection, save, self.clock.wall_ns())]

        events = await self.store.write(write)
        for save in saves:
            self._show(save)
        self.tell_events(events)

    async def set_cordon(self, cordon: Cordon | None, event: EventDraft) -> None:
        """Make it durable whether this host launches, then visible."""
        now_ns = self.clock.wall_ns()

        def write(connection: sqlite3.Connection) -> Event:
            host_rows.put_cordon(connection, cordon)
            return _write_event(connection, event, now_ns)

        self.tell_events([await self.store.write(write)])
        self.cordon = cordon

    async def record(self, draft: EventDraft) -> None:
        """Make an event durable, then visible."""
        now_ns = self.clock.wall_ns()
        self.tell_events([await self.store.write(lambda connection: _write_event(connection, draft, now_ns))])

    def tell_events(self, events: Iterable[Event]) -> None:
        for event in events:
            self._tell(event, event.job)

    def tell_again(self, names: Iterable[JobName]) -> None:
        """These jobs look different though nothing of them was written."""
        for name in names:
            if (view := self.views.get(name)) is not None:
                self._tell_change("MODIFIED", view)

    def subscribe(self, wanted: Callable[[Item], bool], *, job: str = "", conflating: bool = False) -> Subscription:
        """Hear of the changes and events that are wanted, of that job alone (empty: of all), until ``unsubscribe``."""
        subscription = Subscription(wanted, job=job, conflating=conflating)
        self._listeners.setdefault(job, set()).add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        listeners = self._listeners.get(subscription.job, set())
        listeners.discard(subscription)
        if not listeners:
            self._listeners.pop(subscription.job, None)

    def shown(self, view: JobView) -> JobView:
        """The view with what follows from elsewhere: each waiting run's place in the queue, what a cordon means for it, and
        whether the job progresses."""
        if self.waiting and any(run.id in self.waiting for run in view.runs):
            view = replace(view, runs=tuple(map(self._shown_waiting, view.runs)))
        return replace(view, conditions=(*view.conditions, progressing(view)))

    def _shown_waiting(self, run: Run) -> Run:
        position = self.waiting.position(run.id)
        if position and self.cordon is not None and run.phase is Phase.PENDING:
            return replace(run, queue_position=position, reason=Reason.CORDONED, message=str(self.cordon))
        return replace(run, queue_position=position)

    def _tell(self, item: Item, job: str) -> None:
        for about in {job, ""}:
            for listener in self._listeners.get(about, ()):
                listener.put(item)

    def _put(self, view: JobView) -> None:
        old = self.views.get(view.name)
        if old is not None:
            for run in old.runs:
                self.by_run.pop(run.id, None)
        self.views[view.name] = view
        for run in view.runs:
            self.by_run[run.id] = view.name

    def _show(self, save: Save | SaveResource) -> None:
        if isinstance(save, SaveResource):
            if save.remove:
                self.resources.pop(save.view.name, None)
            else:
                self.resources[save.view.name] = save.view
            return
        view = save.view
        known = view.name in self.views
        if save.remove:
            self._put(replace(view, runs=()))
            del self.views[view.name]
        else:
            self._put(view)
        kind = "DELETED" if save.remove else "MODIFIED" if known else "ADDED"
        self._tell_change(kind, view)

    def _tell_change(self, kind: str, view: JobView) -> None:
        shown = self.shown(view)  # once for all: there may be a thousand watchers
        self._tell(JobChange(kind, shown), view.name)
        for callback in self._callbacks:
            callback(view.name, None if kind == "DELETED" else shown)


def _write(connection: sqlite3.Connection, save: Save | SaveResource, now_ns: int) -> list[Event]:
    if isinstance(save, SaveResource):
        if save.remove:
            resource_rows.delete_resource(connection, save.view.name)
        else:
            resource_rows.put_resource(connection, save.view)
        return [_write_event(connection, draft, now_ns) for draft in save.events]
    if save.remove:
        rows.delete_job(connection, save.view, now_ns)
    elif save.job:
        rows.put_job(connection, save.view)
    if save.generation:
        rows.put_generation(connection, save.view)
        rows.put_history(connection, save.view)
    for run in save.runs:
        rows.put_run(connection, run)
    for attempt in save.attempts:
        rows.put_attempt(connection, attempt)
    for attempt in save.dropped:
        connection.execute("DELETE FROM attempts WHERE id = ?", (attempt.id,))
        profile_rows.delete_profile(connection, attempt.id)
    return [_write_event(connection, draft, now_ns) for draft in save.events]


def _write_event(connection: sqlite3.Connection, draft: EventDraft, now_ns: int) -> Event:
    return rows.put_event(
        connection,
        job=draft.job,
        run_id=draft.run_id,
        type=draft.type,
        reason=draft.reason,
        message=draft.message,
        now_ns=now_ns,
    )

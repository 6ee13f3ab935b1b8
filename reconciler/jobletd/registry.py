"""All jobs with their open runs in memory, as the store has them: a change is durable before it is seen here.

Whoever changes a job holds its lock. Watchers hear of each change through bounded queues.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from joblet.clock import Clock
from jobletd.model import Attempt, Event, JobChange, JobName, JobView, Run, RunId
from jobletd.store import Store, rows

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


class Subscription:
    """One listener's queue. overflowed: it was too slow, and gets nothing more."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[JobChange | Event] = asyncio.Queue(WATCH_QUEUE)
        self.overflowed = False

    def put(self, item: JobChange | Event) -> None:
        if self.overflowed:
            return
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.overflowed = True


class Registry:
    """The jobs of this host."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.views: dict[JobName, JobView] = {}
        self.by_run: dict[RunId, JobName] = {}
        self.waiting: list[RunId] = []  # for a free place, in order; kept by the reconciler
        self._locks: dict[JobName, asyncio.Lock] = {}
        self._job_listeners: set[Subscription] = set()
        self._event_listeners: set[Subscription] = set()
        self._callbacks: list[Callable[[JobName, JobView | None], None]] = []

    async def load(self) -> None:
        """Read everything that is on record."""
        for view in await self.store.read(rows.load_jobs):
            self._put(view)

    def on_change(self, callback: Callable[[JobName, JobView | None], None]) -> None:
        """Call back in the event loop after each change; None: the job is gone."""
        self._callbacks.append(callback)

    def lock(self, name: JobName) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def lock_all(self, names: Iterable[JobName]) -> AsyncExitStack:
        """Hold several locks, taken in order of the names so that two callers can't wait for each other."""
        stack = AsyncExitStack()
        for name in sorted(set(names)):
            await stack.enter_async_context(self.lock(name))
        return stack

    async def save(self, *saves: Save) -> None:
        """Make the changes durable, all or none, then visible. The caller holds the locks of the jobs."""

        def write(connection: sqlite3.Connection) -> list[Event]:
            return [event for save in saves for event in _write(connection, save, self.clock.wall_ns())]

        events = await self.store.write(write)
        for save in saves:
            self._show(save)
        self.tell_events(events)

    def tell_events(self, events: Iterable[Event]) -> None:
        for event in events:
            for listener in self._event_listeners:
                listener.put(event)

    def subscribe_jobs(self) -> Subscription:
        subscription = Subscription()
        self._job_listeners.add(subscription)
        return subscription

    def subscribe_events(self) -> Subscription:
        subscription = Subscription()
        self._event_listeners.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._job_listeners.discard(subscription)
        self._event_listeners.discard(subscription)

    def shown(self, view: JobView) -> JobView:
        """The view with each waiting run's place in the queue, which changes without the run."""
        if not self.waiting or all(run.phase.is_final for run in view.runs):
            return view
        places = {run_id: place for place, run_id in enumerate(self.waiting, 1)}
        return replace(view, runs=tuple(replace(run, queue_position=places.get(run.id, 0)) for run in view.runs))

    def _put(self, view: JobView) -> None:
        old = self.views.get(view.name)
        if old is not None:
            for run in old.runs:
                self.by_run.pop(run.id, None)
        self.views[view.name] = view
        for run in view.runs:
            self.by_run[run.id] = view.name

    def _show(self, save: Save) -> None:
        view = save.view
        known = view.name in self.views
        if save.remove:
            self._put(replace(view, runs=()))
            del self.views[view.name]
        else:
            self._put(view)
        kind = "DELETED" if save.remove else "MODIFIED" if known else "ADDED"
        for listener in self._job_listeners:
            listener.put(JobChange(kind, view))
        for callback in self._callbacks:
            callback(view.name, None if save.remove else view)


def _write(connection: sqlite3.Connection, save: Save, now_ns: int) -> list[Event]:
    if save.remove:
        rows.delete_job(connection, save.view)
    elif save.job:
        rows.put_job(connection, save.view)
    if save.generation:
        rows.put_generation(connection, save.view)
    for run in save.runs:
        rows.put_run(connection, run)
    for attempt in save.attempts:
        rows.put_attempt(connection, attempt)
    for attempt in save.dropped:
        connection.execute("DELETE FROM attempts WHERE id = ?", (attempt.id,))
    return [
        rows.put_event(
            connection,
            job=draft.job,
            run_id=draft.run_id,
            type=draft.type,
            reason=draft.reason,
            message=draft.message,
            now_ns=now_ns,
        )
        for draft in save.events
    ]

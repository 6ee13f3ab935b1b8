"""All jobs with their open runs in memory, as the store has them: a change is durable before it is seen here.

Whoever changes a job holds its lock. Watchers hear of each change through bounded queues.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog

from joblet.clock import Clock
from jobletd.arrays.open_arrays import OpenArrays
from jobletd.arrays.progress import mark_of
from jobletd.conditions import progressing
from jobletd.inventory import Inventory
from jobletd.model import Cordon, Event, JobChange, JobName, JobView, Phase, Reason, ResourceView, Run, RunId
from jobletd.notifying.drafts import NotificationDraft
from jobletd.saves import EventDraft, Save, SaveResource, write_event, write_save
from jobletd.schedules.due import next_due_ns
from jobletd.store import Store, host_rows, notification_rows, resource_rows, rows, trace_rows
from jobletd.subscription import Item, Subscription
from jobletd.waiting_line import WaitingLine

if TYPE_CHECKING:
    from jobletd.tracing.tracing import Tracing

# The reasons of events that tell of a run's end.
ENDS = frozenset(phase.capitalize() for phase in Phase if phase.is_final)
TELL_SECONDS = 0.2  # from a change of an array's index until its job's watchers are told
log = structlog.get_logger("events")


class Registry:
    """The jobs of this host."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.views: dict[JobName, JobView] = {}
        self.resources: dict[JobName, ResourceView] = {}
        self.inventory = Inventory()
        self.by_run: dict[RunId, JobName] = {}
        self.waiting = WaitingLine()  # for a free place; kept by the reconciler
        self.cordon: Cordon | None = None
        self.tracing: Tracing | None = None
        self._locks: WeakValueDictionary[JobName, asyncio.Lock] = WeakValueDictionary()  # as long as somebody uses them
        self._listeners: dict[str, set[Subscription]] = {}  # by the job that they are about; empty: all
        self._callbacks: list[Callable[[JobName, JobView | None], None]] = []
        self._to_be_told: list[Callable[[str], None]] = []
        self._on_look: Callable[[JobName], None] = _nobody
        self._soon: set[JobName] = set()
        self.arrays = OpenArrays(self._wants_look, self._tell_soon)

    async def load(self) -> None:
        """Read everything that is on record."""
        for view in await self.store.read(rows.load_jobs):
            self._put(view)
            for run in view.runs:
                if run.marks and not run.phase.is_final:
                    begun = await self.store.read(lambda connection, run=run: rows.load_indexes(connection, run))  # type: ignore[misc]
                    self._load_array(view, run, begun)
        for resource in await self.store.read(resource_rows.load_resources):
            self._put_resource(resource)
        self.cordon = await self.store.read(host_rows.load_cordon)

    def on_change(self, callback: Callable[[JobName, JobView | None], None]) -> None:
        """Call back in the event loop after each change; None: the job is gone."""
        self._callbacks.append(callback)

    def on_look(self, callback: Callable[[JobName], None]) -> None:
        """Call back with each job, or index of an array, that is to be looked at because of another one's change."""
        self._on_look = callback

    def find(self, name: JobName) -> JobView | None:
        """A job, or an open index of an array."""
        return self.views.get(name) or self.arrays.indexes.get(name)

    def everything(self) -> Iterator[JobView]:
        """All jobs, and the open indexes of arrays."""
        yield from self.views.values()
        yield from self.arrays.indexes.values()

    def on_notification(self, callback: Callable[[str], None]) -> None:
        """Call back with the id of each notification that was put on record."""
        self._to_be_told.append(callback)

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

        begun = self.tracing.begun(saves, self) if self.tracing is not None else None
        if begun is not None:
            saves = tuple(begun.saves)

        def write(connection: sqlite3.Connection) -> list[Event]:
            for key, place in begun.places.items() if begun is not None else ():
                trace_rows.put_place(connection, key, place)
            return [event for save in saves for event in write_save(connection, save, self.clock.wall_ns())]

        events = await self.store.write(write)
        if self.tracing is not None and begun is not None:
            self.tracing.done(begun, self)
        for save in saves:
            self._show(save)
        self.tell_events(events)
        for save in saves:
            self._tell_notifications(save.notifications if isinstance(save, Save) else ())

    def entered(self, name: str, attributes: Mapping[str, str | int | float]) -> AbstractContextManager[None]:
        """A span around what is done meanwhile, where traces are recorded."""
        return nullcontext() if self.tracing is None else self.tracing.entered(name, attributes)

    async def set_cordon(self, cordon: Cordon | None, event: EventDraft) -> None:
        """Make it durable whether this host launches, then visible."""
        now_ns = self.clock.wall_ns()

        def write(connection: sqlite3.Connection) -> Event:
            host_rows.put_cordon(connection, cordon)
            return write_event(connection, event, now_ns)

        self.tell_events([await self.store.write(write)])
        self.cordon = cordon

    async def record(self, draft: EventDraft) -> None:
        """Make an event durable, then visible."""
        now_ns = self.clock.wall_ns()
        self.tell_events([await self.store.write(lambda connection: write_event(connection, draft, now_ns))])

    async def write(
        self,
        change: Callable[[sqlite3.Connection], None],
        *drafts: EventDraft,
        notifications: Sequence[NotificationDraft] = (),
    ) -> None:
        """Make a change of rows that nobody keeps in memory durable, with events about it and what is to be told."""
        now_ns = self.clock.wall_ns()

        def write(connection: sqlite3.Connection) -> list[Event]:
            change(connection)
            for notification in notifications:
                notification_rows.put_notification(connection, notification)
            return [write_event(connection, draft, now_ns) for draft in drafts]

        self.tell_events(await self.store.write(write))
        self._tell_notifications(notifications)

    def _tell_notifications(self, drafts: Iterable[NotificationDraft]) -> None:
        for draft in drafts:
            for callback in self._to_be_told:
                callback(draft.id)

    def tell_events(self, events: Iterable[Event]) -> None:
        for event in events:
            log_event(event)
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
        """The view with what follows from elsewhere: each waiting run's place in the queue, what a cordon means for it,
        whether the job progresses, and when its schedule has the next tick."""
        if any(run.marks for run in view.runs):
            view = replace(view, runs=tuple(map(self._shown_array, view.runs)))
        if self.waiting and any(run.id in self.waiting for run in view.runs):
            view = replace(view, runs=tuple(map(self._shown_waiting, view.runs)))
        return replace(view, conditions=(*view.conditions, progressing(view)), next_tick_ns=next_due_ns(view))

    def _shown_array(self, run: Run) -> Run:
        """As long as none of its indexes runs, it waits for what the first of them waits for."""
        run = self.arrays.shown(run)
        waiting = self.arrays.first_waiting(run)
        if waiting is None or run.phase is not Phase.PENDING:
            return run
        first = self._shown_waiting(waiting)
        return replace(run, queue_position=first.queue_position, reason=first.reason, message=first.message)

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
        self.arrays.put_job(old, view)
        if old is not None:
            for run in old.runs:
                self.by_run.pop(run.id, None)
        self.views[view.name] = view
        self.inventory.put(view)
        for run in view.runs:
            self.by_run[run.id] = view.name

    def _put_resource(self, view: ResourceView) -> None:
        self.resources[view.name] = view
        self.inventory.put(view)

    def _show(self, save: Save | SaveResource) -> None:
        if isinstance(save, SaveResource):
            if save.remove:
                self.resources.pop(save.view.name, None)
                self.inventory.remove(save.view.name)
            else:
                self._put_resource(save.view)
            return
        view = save.view
        if view.array_run is not None:
            self._show_index(view)
            return
        known = view.name in self.views
        if save.remove:
            self._put(replace(view, runs=()))
            del self.views[view.name]
            self.inventory.remove(view.name)
        else:
            self._put(view)
        kind = "DELETED" if save.remove else "MODIFIED" if known else "ADDED"
        self._tell_change(kind, view)

    def _show_index(self, view: JobView) -> None:
        """Its job's watchers are told a moment later, of all that changed until then at once."""
        (run,) = view.runs
        self.arrays.put_index(view)
        if run.phase.is_final:
            self.by_run.pop(run.id, None)
        else:
            self.by_run[run.id] = view.name
        for listener in self._listeners.get(view.name, ()):
            listener.put(JobChange("MODIFIED", view))

    def _load_array(
        self, view: JobView, array: Run, begun: Iterable[tuple[int, Phase, Reason | None, Run | None]]
    ) -> None:
        self.arrays.load(view, array, ((index, mark_of(phase, reason), run) for index, phase, reason, run in begun))
        for name in self.arrays[array.id].open.values():
            self.by_run[self.arrays.indexes[name].runs[0].id] = name

    def _wants_look(self, name: JobName) -> None:
        self._on_look(name)

    def _tell_soon(self, name: JobName) -> None:
        if not self._soon:
            asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell_now)
        self._soon.add(name)

    def _tell_now(self) -> None:
        names, self._soon = self._soon, set()
        self.tell_again(names)

    def _tell_change(self, kind: str, view: JobView) -> None:
        shown = self.shown(view)  # once for all: there may be a thousand watchers
        self._tell(JobChange(kind, shown), view.name)
        for callback in self._callbacks:
            callback(view.name, None if kind == "DELETED" else shown)


def log_event(event: Event) -> None:
    """How runs end, and what went wrong with them, stands in the log once; all else only where details are wanted."""
    first = event.count == 1
    wanted = first and (event.type == "Warning" or event.reason in ENDS)
    tell = log.info if wanted else log.debug
    tell(event.reason, job=event.job, run=event.run_id, type=event.type, message=event.message)


def _nobody(_: JobName) -> None:
    """Before somebody wants to know."""

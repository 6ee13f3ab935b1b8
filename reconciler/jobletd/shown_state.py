"""What is declared and how it stands, as clients and sources see it. Nothing here changes anything."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace

from jobletd.arrays.index_runs import job_part
from jobletd.arrays.progress import Mark
from jobletd.arrays.requests import ArrayRequests, ShownIndex
from jobletd.errors import WatcherTooSlow, WrongState
from jobletd.executor import Executor, LogQuery, Pending, Running
from jobletd.inventory import OwnerChanges
from jobletd.kept_output import is_removed
from jobletd.lookup import Lookup
from jobletd.model import (
    Attempt,
    Event,
    JobChange,
    JobName,
    JobView,
    LogEntry,
    Phase,
    Reason,
    ResourceView,
    Run,
    ShownResource,
    Source,
)
from jobletd.registry import Registry
from jobletd.resources import Resources
from jobletd.schedules.due import is_awaited
from jobletd.selectors import LabelSelector
from jobletd.store import rows
from jobletd.subscription import Item, Subscription

EVENTS_A_PAGE = 1000
_HANDED_OVER = (Phase.INITIALIZING, Phase.RUNNING)


class ShownState:
    """What there is to see of the host. The desired state is this, and can be changed besides."""

    def __init__(
        self, registry: Registry, executor: Executor, resources: Resources, check_room: Callable[[], None]
    ) -> None:
        """check_room: raises NoRoom if nothing new can be taken on just now."""
        self._registry = registry
        self._executor = executor
        self._resources = resources
        self._lookup = Lookup(registry)
        self._arrays = ArrayRequests(registry, self._lookup, check_room)

    def on_change(self, callback: Callable[[JobName, JobView | None], None]) -> None:
        self._registry.on_change(callback)

    async def owners(self) -> Mapping[JobName, Source]:
        """The source of everything that is declared and not being deleted."""
        return dict(self._registry.inventory.owners)

    def owner_changes(self) -> OwnerChanges:
        """For a source that follows who owns what: all that is, then what changes."""
        return self._registry.inventory.changes()

    async def stopped_by_hand(self) -> frozenset[JobName]:
        """Jobs that ought to run and do not, because a person stopped them. A run that ended by itself is as it should be."""
        return frozenset(
            name
            for name, view in self._registry.views.items()
            if not view.deleting
            and not view.manifest.spec.suspend
            and view.manifest.spec.schedule is None  # its next run comes by itself
            and view.runs
            and view.runs[0].phase is Phase.STOPPED
            and view.runs[0].reason is Reason.STOPPED
        )

    async def holding(self, condition_type: str, status: str) -> Mapping[JobName, str]:
        """Whatever has that condition with that status, and the message in it."""
        views: list[JobView | ResourceView] = [*self._registry.views.values(), *self._registry.resources.values()]
        return {
            view.name: one.message
            for view in views
            for one in view.conditions
            if (one.type, one.status) == (condition_type, status)
        }

    async def get_resource(self, name: JobName) -> ShownResource:
        """Raises NoSuchJob."""
        return await self._shown_resource(self._lookup.resource(name))

    async def watch_resource(self, name: JobName) -> AsyncIterator[ShownResource]:
        """How it stands, now and whenever something of it or of its jobs has changed. Raises NoSuchResource, also once it is
        gone."""
        own_jobs = name.replace("/", ":", 1)  # as a source

        def wanted(item: Item) -> bool:
            if isinstance(item, Event):
                return item.job == name
            return item.job is not None and str(item.job.source) == own_jobs

        changed = self._registry.subscribe(wanted, conflating=True)
        try:
            while True:
                yield await self.get_resource(name)
                await next_of(changed)
        finally:
            self._registry.unsubscribe(changed)

    async def list_resources(self, kind: str) -> list[ShownResource]:
        """All of one kind, by name."""
        views = [view for view in self._registry.resources.values() if view.manifest.kind == kind]
        return [await self._shown_resource(view) for view in sorted(views, key=lambda view: view.name)]

    async def _shown_resource(self, view: ResourceView) -> ShownResource:
        status = await self._resources.controllers[view.manifest.kind].status(view)
        return ShownResource(view, dict(status), tuple(self._resources.users(view.name)))

    async def get(self, ref: str, *, history: bool = False) -> JobView:
        """A job by name, or by the id (or its beginning) of a run, then with that run alone. Raises NoSuchJob, AmbiguousRef."""
        view = self._registry.views.get(JobName(ref))
        if view is None:
            name, run = await self._lookup.resolve(ref)
            assert run is not None
            view = self._lookup.job_of(name, run)
        elif history:
            view = replace(view, runs=await self._lookup.history(view))
        return await self._with_usage(self._registry.shown(view))

    async def indexes(
        self, ref: str, marks: frozenset[Mark], *, limit: int, after: int
    ) -> tuple[Run, list[ShownIndex]]:
        """An array's run, and its indexes beyond ``after``, those with these marks (none: all). Raises NoSuchJob, WrongState."""
        return await self._arrays.indexes(ref, marks, limit=limit, after=after)

    async def list_jobs(
        self, *, selector: LabelSelector, phases: frozenset[Phase], limit: int, after: str
    ) -> list[JobView]:
        """Jobs by name, those after ``after``; phases: of their latest run (empty: any)."""
        found: list[JobView] = []
        for name in sorted(self._registry.views):
            view = self._registry.views[name]
            if name <= after or not selector.matches(view.manifest.metadata.labels):
                continue
            if phases and not (view.runs and view.runs[0].phase in phases) and not is_awaited(view, phases):
                continue
            found.append(self._registry.shown(view))
            if len(found) == limit:
                break
        return found

    async def watch(self, ref: str | None, selector: LabelSelector) -> AsyncIterator[JobChange]:
        """What is (ADDED), SYNCED, then each change. Raises NoSuchJob at once, WatcherTooSlow later.

        A job whose labels no longer match is DELETED for this watcher.
        """
        name = job_part((await self._lookup.resolve(ref))[0]) if ref else None
        shown: set[JobName] = set()
        may_leave = name is None and selector != LabelSelector()

        def matches(view: JobView) -> bool:
            return view.name == name if name else selector.matches(view.manifest.metadata.labels)

        def wanted(item: Item) -> bool:
            if not isinstance(item, JobChange) or item.job is None:
                return False
            if matches(item.job):
                if may_leave:
                    shown.add(item.job.name)
                return True
            known = item.job.name in shown
            shown.discard(item.job.name)
            return known

        subscription = self._registry.subscribe(wanted, job=name or "")
        try:
            present = [view for view in self._registry.views.values() if matches(view)]
            if may_leave:
                shown.update(view.name for view in present)
            for view in present:
                yield JobChange("ADDED", self._registry.shown(view))
            yield JobChange("SYNCED", None)
            while True:
                change = await next_of(subscription)
                assert isinstance(change, JobChange) and change.job is not None
                yield change if matches(change.job) else JobChange("DELETED", change.job)
        finally:
            self._registry.unsubscribe(subscription)

    async def events(self, ref: str, *, follow: bool, since_ns: int, tail: int = 0) -> AsyncIterator[Event]:
        """Events of a job or run (empty: all), oldest first; with ``follow`` also those to come, and repeats counted anew.
        tail: of those that are there only so many, the latest; 0: all."""
        job, run_id = await self._lookup.resolve_events(ref) if ref else ("", "")
        told: dict[int, int] = {}

        def wanted(item: Item) -> bool:
            return isinstance(item, Event) and job in ("", item.job) and run_id in ("", item.run_id)

        subscription = self._registry.subscribe(wanted, job=job) if follow else None
        try:
            last = await self._registry.store.read(_before_latest(tail, job, run_id)) if tail else 0
            while page := await self._registry.store.read(_events_after(last, job, run_id, since_ns)):
                for event in page:
                    yield event
                    told[event.id] = event.count
                last = page[-1].id
            while subscription is not None:
                item = await next_of(subscription)
                assert isinstance(item, Event)
                if item.count > told.get(item.id, 0):  # else it came between our two looks
                    yield item
        finally:
            if subscription is not None:
                self._registry.unsubscribe(subscription)

    async def logs(self, ref: str, attempt: int, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        """The output of a run: of one attempt (number from 1) or of all (0). With ``follow`` until the run is over.

        Raises NoSuchJob, WrongState if there is no such attempt.
        """
        run = await self._lookup.run(ref)
        if run.marks:
            what = f"job {run.job!r} has an array, and each index has an output of its own"
            raise WrongState(what, todo=f"rnx log {run.job} --index N; rnx status {run.job} names them")
        if attempt and (run.phase.is_final or not query.follow) and attempt not in (one.number for one in run.attempts):
            kept = ", ".join(str(one.number) for one in run.attempts) or "none"
            raise WrongState(f"run {run.id} has no attempt {attempt}", todo=f"its attempts: {kept}")
        if run.phase.is_final and await self._registry.store.read(lambda connection: is_removed(connection, run.id)):
            todo = "history.maxLogBytes in the daemon's configuration and spec.history.logs say how much is kept"
            raise WrongState(f"the output of run {run.id} was removed to make room", todo=todo)
        job = run.job
        changed = self._registry.subscribe(lambda item: isinstance(item, JobChange), job=job, conflating=True)
        done = 0
        try:
            while True:
                for one in run.attempts:
                    if one.number <= done or attempt not in (0, one.number):
                        continue
                    if one.phase in (Phase.PENDING, Phase.INITIALIZING):
                        break
                    if query.tail_lines is None or one is run.attempts[-1]:
                        async for batch in self._executor.logs(one.id, query):
                            yield batch
                    done = one.number
                # What was written may have ended with a restart between our look and now: look at the run anew.
                run = await self._lookup.run(run.id)
                left = [one for one in run.attempts if one.number > done and attempt in (0, one.number)]
                if left and left[0].phase not in (Phase.PENDING, Phase.INITIALIZING):
                    continue
                if not query.follow or run.phase.is_final or (attempt and attempt <= done):
                    return
                await next_of(changed)
        finally:
            self._registry.unsubscribe(changed)

    async def _with_usage(self, view: JobView) -> JobView:
        """Attempts that have not ended with what they use now, and where they are."""
        running = [run.attempts[-1] for run in view.runs if run.phase in _HANDED_OVER and run.attempts]
        if not running:
            return view
        seen = await self._executor.observe([attempt.id for attempt in running])

        def refreshed(attempt: Attempt) -> Attempt:
            look = seen.get(attempt.id)
            if isinstance(look, Pending):
                return replace(attempt, place=look.place)
            if not isinstance(look, Running):
                return attempt
            limits = look.limits or attempt.limits
            return replace(attempt, usage=look.usage, limits=limits, place=look.place, usage_ns=look.usage_ns)

        return replace(
            view, runs=tuple(replace(run, attempts=tuple(map(refreshed, run.attempts))) for run in view.runs)
        )


def _events_after(last: int, job: str, run_id: str, since_ns: int) -> Callable[[sqlite3.Connection], list[Event]]:
    of, arguments = _events_of(job, run_id)
    query = f"SELECT {rows.EVENT_COLUMNS} FROM events WHERE id > ? AND last_ns >= ?{of}"  # noqa: S608  constants
    query += f" ORDER BY id LIMIT {EVENTS_A_PAGE}"
    arguments = [last, since_ns, *arguments]
    return lambda connection: [rows.event_of(row) for row in connection.execute(query, arguments)]


def _before_latest(count: int, job: str, run_id: str) -> Callable[[sqlite3.Connection], int]:
    """The id of the event before the latest so many; 0 if there are no more."""
    of, arguments = _events_of(job, run_id)
    query = f"SELECT id FROM events WHERE true{of} ORDER BY id DESC LIMIT 1 OFFSET ?"  # noqa: S608  constants
    return lambda connection: next((int(number) for (number,) in connection.execute(query, [*arguments, count])), 0)


def _events_of(job: str, run_id: str) -> tuple[str, list[object]]:
    wanted = [(column, value) for column, value in (("job", job), ("run_id", run_id)) if value]
    return "".join(f" AND {column} = ?" for column, _ in wanted), [value for _, value in wanted]


async def next_of(subscription: Subscription) -> Item:
    """The next item. Raises WatcherTooSlow once items had to be dropped."""
    item = await subscription.queue.get()
    if subscription.overflowed:
        raise WatcherTooSlow("too many changes were not read in time", todo="watch again")
    return item

"""The desired state: what sources and clients ask for. Every change is durable when it returns, and only then acted on."""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

from joblet.manifest import JobManifest
from jobletd.errors import AmbiguousRef, DuplicateName, NoSuchJob, OwnershipConflict, WatcherTooSlow, WrongState
from jobletd.executor import Executor, LogQuery, Running
from jobletd.model import (
    ApplyResult,
    Attempt,
    Condition,
    Event,
    JobChange,
    JobName,
    JobView,
    LogEntry,
    Phase,
    Reason,
    Run,
    RunId,
    Source,
)
from jobletd.planning import new_run, open_runs, plan_apply, plan_stop, with_runs
from jobletd.registry import EventDraft, Registry, Save, Subscription
from jobletd.selectors import LabelSelector
from jobletd.store import rows

SHORTEST_PREFIX = 4
HISTORY_SHOWN = 1000


class DesiredState:
    """What the host is asked to run. nudge: tells the reconciler that a job wants a look."""

    def __init__(self, registry: Registry, executor: Executor, nudge: Callable[[JobName], None]) -> None:
        self._registry = registry
        self._executor = executor
        self._nudge = nudge

    def on_change(self, callback: Callable[[JobName, JobView | None], None]) -> None:
        self._registry.on_change(callback)

    # --- changing -----------------------------------------------------------------------------------------------------

    async def apply(
        self, manifests: Sequence[JobManifest], source: Source, *, dry_run: bool = False
    ) -> list[ApplyResult]:
        """Make these manifests the desired state, all or none. Raises OwnershipConflict, DuplicateName, StoreError."""
        names = [JobName(manifest.metadata.name) for manifest in manifests]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DuplicateName(f"two manifests have the name {twice!r}", todo="names are unique on a host")
        async with await self._registry.lock_all(names):
            now_ns = self._registry.clock.wall_ns()
            plans = []
            for name, manifest in zip(names, manifests, strict=True):
                current = self._registry.views.get(name)
                if current is not None and not current.deleting:
                    check_owner(current, source)
                plans.append(plan_apply(current, manifest, source, now_ns))
            saves = [plan.save for plan in plans if plan.save is not None]
            if saves and not dry_run:
                await self._registry.save(*saves)
        for name in [] if dry_run else names:
            self._nudge(name)
        return [plan.result for plan in plans]

    async def transfer(self, name: JobName, old: Source, new: Source) -> None:
        """Hand a job from one source to another; nothing restarts. Raises NoSuchJob, OwnershipConflict."""
        async with self._registry.lock(name):
            view = self._existing(name)
            if view.source != old:
                raise OwnershipConflict(name, view.source)
            event = EventDraft(name, "", "Normal", "Transferred", f"from {old} to {new}")
            await self._registry.save(Save(replace(view, source=new), job=True, events=[event]))

    async def delete(self, name: JobName, *, source: Source | None) -> None:
        """Stop a job and remove it; its history stays. source: who asks. Raises NoSuchJob, OwnershipConflict."""
        async with self._registry.lock(name):
            view = self._existing(name)
            if source is not None:
                check_owner(view, source)
            stopped = plan_stop(view, Reason.DELETED, force=False)
            view = with_runs(replace(view, deleting=True, updated_ns=self._registry.clock.wall_ns()), stopped)
            event = EventDraft(name, "", "Normal", "Deleting", f"deleted by {source}" if source else "deleted")
            await self._registry.save(Save(view, runs=stopped, events=[event], job=True))
        self._nudge(name)

    async def stop(self, ref: str, *, force: bool) -> RunId:
        """Stop the open run that is meant. Raises NoSuchJob, WrongState if there is none."""
        name, _ = await self._resolve(ref)
        async with self._registry.lock(name):
            view = self._existing(name)
            stopped = plan_stop(view, Reason.STOPPED, force=force)
            if not stopped:
                raise WrongState(f"job {name!r} does not run", todo=f"rnx status {name} shows how it ended")
            event = EventDraft(name, stopped[0].id, "Normal", "Stopping", "by force" if force else "with its grace")
            await self._registry.save(Save(with_runs(view, stopped), runs=stopped, events=[event]))
        self._nudge(name)
        return stopped[0].id

    async def trigger(self, name: JobName) -> RunId:
        """One more run of a job. Raises NoSuchJob, WrongState."""
        async with self._registry.lock(name):
            view = self._existing(name)
            if view.deleting or view.manifest.spec.suspend:
                state = "is being deleted" if view.deleting else "is suspended"
                raise WrongState(f"job {name!r} {state}", todo="apply it with spec.suspend: false")
            if running := open_runs(view):
                raise WrongState(
                    f"job {name!r} has run {running[0].id}, which is {running[0].phase}",
                    todo=f"rnx stop {name} ends it",
                )
            run = new_run(view, "manual", self._registry.clock.wall_ns())
            event = EventDraft(name, run.id, "Normal", "Triggered", "by hand")
            await self._registry.save(Save(with_runs(view, (), run), runs=[run], events=[event]))
        self._nudge(name)
        return run.id

    async def record_event(self, job: str, run_id: str, type: str, reason: str, message: str) -> None:
        """Record what happened; ``job`` may be empty for the host itself."""
        now_ns = self._registry.clock.wall_ns()

        def write(connection: sqlite3.Connection) -> Event:
            return rows.put_event(
                connection, job=job, run_id=run_id, type=type, reason=reason, message=message, now_ns=now_ns
            )

        self._registry.tell_events([await self._registry.store.write(write)])

    async def set_condition(self, name: JobName, condition_type: str, status: str, reason: str, message: str) -> None:
        """Set a lasting fact about a job; ``since`` changes only with the status. A job that is gone has none."""
        async with self._registry.lock(name):
            view = self._registry.views.get(name)
            if view is None:
                return
            changed = with_condition(view, condition_type, status, reason, message, self._registry.clock.wall_ns())
            if changed is not view:
                await self._registry.save(Save(changed, job=True))

    # --- looking ------------------------------------------------------------------------------------------------------

    async def owners(self) -> Mapping[JobName, Source]:
        """The source of every job that is not being deleted."""
        return {name: view.source for name, view in self._registry.views.items() if not view.deleting}

    async def get(self, ref: str, *, history: bool = False) -> JobView:
        """A job by name, or by the id (or its beginning) of a run, then with that run alone. Raises NoSuchJob, AmbiguousRef."""
        view = self._registry.views.get(JobName(ref))
        if view is not None:
            if history:
                view = replace(view, runs=await self._history(view))
            return await self._with_usage(self._registry.shown(view))
        name, run = await self._resolve(ref)
        assert run is not None
        view = self._registry.views.get(name)
        if view is None or view.uid != run.job_uid:
            # The job is gone; what is left of it is this run.
            view = JobView(
                run.job_uid,
                run.manifest,
                Source("deleted", ""),
                run.generation,
                run.generation,
                run.created_ns,
                run.created_ns,
            )
        return await self._with_usage(self._registry.shown(replace(view, runs=(run,))))

    async def list_jobs(
        self, *, selector: LabelSelector, phases: frozenset[Phase], limit: int, after: str
    ) -> list[JobView]:
        """Jobs by name, those after ``after``; phases: of their latest run (empty: any)."""
        found: list[JobView] = []
        for name in sorted(self._registry.views):
            view = self._registry.views[name]
            if name <= after or not selector.matches(view.manifest.metadata.labels):
                continue
            if phases and not (view.runs and view.runs[0].phase in phases):
                continue
            found.append(self._registry.shown(view))
            if len(found) == limit:
                break
        return found

    async def watch(self, ref: str | None, selector: LabelSelector) -> AsyncIterator[JobChange]:
        """What is (ADDED), SYNCED, then each change. Raises NoSuchJob at once, WatcherTooSlow later."""
        name = (await self._resolve(ref))[0] if ref else None
        subscription = self._registry.subscribe_jobs()

        def wanted(view: JobView) -> bool:
            return view.name == name if name else selector.matches(view.manifest.metadata.labels)

        try:
            for view in [view for view in self._registry.views.values() if wanted(view)]:
                yield JobChange("ADDED", self._registry.shown(view))
            yield JobChange("SYNCED", None)
            while True:
                change = await next_of(subscription)
                if isinstance(change, JobChange) and change.job is not None and wanted(change.job):
                    yield JobChange(change.type, self._registry.shown(change.job))
        finally:
            self._registry.unsubscribe(subscription)

    async def events(self, ref: str, *, follow: bool, since_ns: int) -> AsyncIterator[Event]:
        """Events of a job or run (empty: all), oldest first; with ``follow`` also those to come."""
        job, run_id = "", ""
        if ref and JobName(ref) in self._registry.views:
            job = ref
        elif ref:
            name, run = await self._resolve(ref, deleted=True)
            job, run_id = name, run.id if run else ""
        subscription = self._registry.subscribe_events()

        def select(connection: sqlite3.Connection) -> list[Event]:
            query = f"SELECT {rows.EVENT_COLUMNS} FROM events WHERE last_ns >= ?"  # noqa: S608  a constant
            arguments: list[object] = [since_ns]
            for column, value in (("job", job), ("run_id", run_id)):
                if value:
                    query += f" AND {column} = ?"
                    arguments.append(value)
            return [rows.event_of(row) for row in connection.execute(query + " ORDER BY id", arguments)]

        try:
            for event in await self._registry.store.read(select):
                yield event
            while follow:
                item = await next_of(subscription)
                if isinstance(item, Event) and job in ("", item.job) and run_id in ("", item.run_id):
                    yield item
        finally:
            self._registry.unsubscribe(subscription)

    async def logs(self, ref: str, attempt: int, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        """The output of a run: of one attempt (number from 1) or of all (0). With ``follow`` until the run is over."""
        run = await self._run_of(ref)
        subscription = self._registry.subscribe_jobs()
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
                run = await self._run_of(run.id)
                left = [one for one in run.attempts if one.number > done and attempt in (0, one.number)]
                if left and left[0].phase not in (Phase.PENDING, Phase.INITIALIZING):
                    continue
                if not query.follow or run.phase.is_final or (attempt and attempt <= done):
                    return
                await next_of(subscription)
        finally:
            self._registry.unsubscribe(subscription)

    # --- finding ------------------------------------------------------------------------------------------------------

    def _existing(self, name: str) -> JobView:
        view = self._registry.views.get(JobName(name))
        if view is None:
            raise NoSuchJob(name, self._nearest(name))
        return view

    def _nearest(self, ref: str) -> list[str]:
        return difflib.get_close_matches(ref, list(self._registry.views), n=3, cutoff=0.6)

    async def _resolve(self, ref: str, *, deleted: bool = False) -> tuple[JobName, Run | None]:
        """The job that a name or a run id means, and the run if it was an id."""
        if JobName(ref) in self._registry.views:
            return JobName(ref), None
        if (name := self._registry.by_run.get(RunId(ref))) is not None:
            view = self._registry.views[name]
            return name, next(run for run in view.runs if run.id == ref)
        if len(ref) >= SHORTEST_PREFIX and ref.isalnum():

            def select(connection: sqlite3.Connection) -> list[Run]:
                query = f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE id >= ? AND id < ? LIMIT 2"  # noqa: S608  a constant
                return rows.load_runs(connection, query, (ref, ref + "\x7f"))

            runs = await self._registry.store.read(select)
            if len(runs) > 1:
                raise AmbiguousRef(f"several runs begin with {ref!r}", todo="give more of the id")
            if runs:
                return runs[0].job, self._cached(runs[0])
        if deleted:

            def known(connection: sqlite3.Connection) -> bool:
                return connection.execute("SELECT 1 FROM events WHERE job = ? LIMIT 1", (ref,)).fetchone() is not None

            if await self._registry.store.read(known):
                return JobName(ref), None
        raise NoSuchJob(ref, self._nearest(ref))

    def _cached(self, run: Run) -> Run:
        view = self._registry.views.get(run.job)
        return next((other for other in view.runs if other.id == run.id), run) if view else run

    async def _run_of(self, ref: str) -> Run:
        """The run that is meant: the latest of a job, or the one with that id. Raises NoSuchJob, WrongState."""
        name, run = await self._resolve(ref)
        if run is not None:
            return run
        view = self._existing(name)
        if not view.runs:
            raise WrongState(f"job {name!r} has not run yet", todo=f"rnx status {name}")
        return view.runs[0]

    async def _history(self, view: JobView) -> tuple[Run, ...]:
        def select(connection: sqlite3.Connection) -> list[Run]:
            query = (
                f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE job = ? AND job_uid = ? "  # noqa: S608  a constant
                "ORDER BY created_ns DESC, rowid DESC LIMIT ?"
            )
            return rows.load_runs(connection, query, (view.name, view.uid, HISTORY_SHOWN))

        return tuple(self._cached(run) for run in await self._registry.store.read(select))

    async def _with_usage(self, view: JobView) -> JobView:
        """Running attempts with what they use now."""
        running = [run.attempts[-1] for run in view.runs if run.phase is Phase.RUNNING and run.attempts]
        if not running:
            return view
        seen = await self._executor.observe([attempt.id for attempt in running])

        def refreshed(attempt: Attempt) -> Attempt:
            look = seen.get(attempt.id)
            if not isinstance(look, Running):
                return attempt
            return replace(attempt, usage=look.usage, limits=look.limits or attempt.limits)

        return replace(
            view, runs=tuple(replace(run, attempts=tuple(map(refreshed, run.attempts))) for run in view.runs)
        )


def check_owner(view: JobView, source: Source) -> None:
    """Any gRPC client may change what another one applied; files own their jobs. Raises OwnershipConflict."""
    if view.source != source and not view.source.kind == source.kind == "grpc":
        raise OwnershipConflict(view.name, view.source)


def with_condition(view: JobView, kind: str, status: str, reason: str, message: str, now_ns: int) -> JobView:
    """The view with one condition set; the same view if it says so already."""
    present = next((condition for condition in view.conditions if condition.type == kind), None)
    if present is not None and (present.status, present.reason, present.message) == (status, reason, message):
        return view
    since_ns = present.since_ns if present is not None and present.status == status else now_ns
    others = [condition for condition in view.conditions if condition.type != kind]
    return replace(view, conditions=(*others, Condition(kind, status, reason, message, since_ns)))


async def next_of(subscription: Subscription) -> JobChange | Event:
    """The next item. Raises WatcherTooSlow once items had to be dropped."""
    if subscription.overflowed and subscription.queue.empty():
        raise WatcherTooSlow("too many changes were not read in time", todo="watch again")
    return await subscription.queue.get()

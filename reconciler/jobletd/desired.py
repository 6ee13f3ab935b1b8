"""The desired state: what sources and clients ask for. Every change is durable when it returns, and only then acted on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from joblet.crash_points import reached
from joblet.manifest import JobManifest, Manifest, ResourceManifest, SecretManifest, key_of
from jobletd.blobs.naming import check_contents
from jobletd.blobs.store import BlobStore
from jobletd.conditions import with_condition
from jobletd.dependencies import check_cycles
from jobletd.errors import DuplicateName, OwnershipConflict, WatcherTooSlow, WrongState
from jobletd.executor import Executor, LogQuery, Running
from jobletd.kept_output import is_removed
from jobletd.lookup import Lookup
from jobletd.model import (
    ApplyResult,
    Attempt,
    Event,
    JobChange,
    JobName,
    JobView,
    LogEntry,
    Phase,
    Reason,
    ResourceView,
    RunId,
    ShownResource,
    Source,
)
from jobletd.planning import plan_apply, plan_stop, with_runs
from jobletd.policy import NOTHING_SPECIAL, Policy
from jobletd.registry import EventDraft, Item, Registry, Save, SaveResource, Subscription
from jobletd.resource_planning import plan_resource
from jobletd.resources import Resources
from jobletd.schedules.due import is_awaited
from jobletd.schedules.overlap import add_manual_run
from jobletd.selectors import LabelSelector
from jobletd.store import rows

T = TypeVar("T")
EVENTS_A_PAGE = 1000


class DesiredState:
    """What the host is asked to run. nudge: tells the reconciler that a job wants a look."""

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        nudge: Callable[[JobName], None],
        resources: Resources,
        blobs: BlobStore,
        policy: Policy = NOTHING_SPECIAL,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        """check_room: raises NoRoom if nothing new can be taken on just now."""
        self._blobs = blobs
        self._registry = registry
        self._resources = resources
        self._policy = policy
        self._check_room = check_room
        self._executor = executor
        self._nudge = nudge
        self._lookup = Lookup(registry)
        self._changes: set[asyncio.Task[Any]] = set()
        self._declaring = asyncio.Lock()  # of jobs that depend on others: two applies may make a cycle together
        self._claims: dict[str, Mapping[JobName, Source]] = {}  # by claimant: what belongs to somebody else

    def reconfigure(self, policy: Policy) -> None:
        """Another policy, for manifests to come."""
        self._policy = policy

    def on_change(self, callback: Callable[[JobName, JobView | None], None]) -> None:
        self._registry.on_change(callback)

    # --- changing -----------------------------------------------------------------------------------------------------

    async def apply(
        self,
        manifests: Sequence[Manifest],
        source: Source | Mapping[JobName, Source],
        *,
        dry_run: bool = False,
        take_over: bool = False,
    ) -> list[ApplyResult]:
        """Make these manifests the desired state, all or none. source: of all, or of each by its key.

        take_over: what belongs to another source becomes this one's. Raises NotAllowed, OwnershipConflict, DuplicateName,
        DependencyCycle, NoRoom, StoreError.
        """
        return await self._whole(self._apply(manifests, source, dry_run, take_over))

    async def transfer(self, name: JobName, old: Source, new: Source) -> None:
        """Hand a job from one source to another; nothing restarts. Raises NoSuchJob, OwnershipConflict."""
        await self._whole(self._transfer(name, old, new))

    async def delete(self, name: JobName, *, source: Source | None) -> None:
        """Stop a job and remove it; its history stays. source: who asks. Raises NoSuchJob, OwnershipConflict.

        Anything else is removed unless a run uses it: raises WrongState then.
        """
        await self._whole(self._delete_resource(name, source) if "/" in name else self._delete(name, source))

    async def stop(self, ref: str, *, force: bool) -> RunId:
        """Stop what is open of a job, or the run with that id. Raises NoSuchJob, WrongState if nothing is open."""
        return await self._whole(self._stop(ref, force))

    async def trigger(
        self, name: JobName, *, trigger: str = "manual", why: str = "by hand", force: bool = False
    ) -> RunId:
        """One more run of a job. trigger, why: what the run and the event say. force: whatever else of the job runs.

        Raises NoSuchJob, WrongState, NoRoom.
        """
        return await self._whole(self._trigger(name, trigger, why, force))

    async def set_condition(self, name: JobName, condition_type: str, status: str, reason: str, message: str) -> None:
        """Set a lasting fact about a job; ``since`` changes only with the status. A job that is gone has none."""
        await self._whole(self._set_condition(name, condition_type, status, reason, message))

    async def record_event(self, job: str, run_id: str, type: str, reason: str, message: str) -> None:
        """Record what happened; ``job`` may be empty for the host itself."""
        await self._registry.record(EventDraft(job, run_id, type, reason, message))

    async def _whole(self, change: Coroutine[Any, Any, T]) -> T:
        """Make a change to its end even if who asked for it goes away: what is in the store has to be seen in memory too."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def _apply(
        self,
        manifests: Sequence[Manifest],
        source: Source | Mapping[JobName, Source],
        dry_run: bool,
        take_over: bool,
    ) -> list[ApplyResult]:
        names = [JobName(key_of(manifest)) for manifest in manifests]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DuplicateName(f"two manifests have the name {twice!r}", todo="names are unique on a host")
        for manifest in manifests:
            self._policy.check_new(manifest)
        async with self._registry.lock_all(names), self._checked_cycles(manifests):
            now_ns = self._registry.clock.wall_ns()
            results: list[ApplyResult] = []
            saves: list[Save | SaveResource] = []
            for place, (name, manifest) in enumerate(zip(names, manifests, strict=True)):
                if isinstance(manifest, JobManifest):
                    check_contents(manifest, self._blobs, present=not dry_run)
                given = source if isinstance(source, Source) else source[name]
                # A nanosecond apart: of two jobs of one request the first is the older one.
                result, save = self._plan(
                    name, manifest, manifests, self._source(name, manifest, given, take_over), now_ns + place
                )
                results.append(result)
                if save is not None:
                    saves.append(save if not take_over else self._told_of_new_owner(name, save))
            if saves and not dry_run:
                self._check_room()
                reached("daemon.apply-accepted")
                await self._registry.save(*saves)
                reached("daemon.apply-stored")
        for name in [] if dry_run else names:
            self._look_at(name)
        return results

    @asynccontextmanager
    async def _checked_cycles(self, manifests: Sequence[Manifest]) -> AsyncIterator[None]:
        """From the look at what is declared until it is declared otherwise; the caller has its locks. Raises DependencyCycle."""
        if not any(isinstance(one, JobManifest) and one.spec.depends_on for one in manifests):
            yield
            return
        async with self._declaring:
            check_cycles(manifests, self._registry.views)
            yield

    def _source(self, name: JobName, manifest: Manifest, source: Source, take_over: bool) -> Source:
        """Whom it will belong to; of what stays as it is in its file also the commit stays. Raises OwnershipConflict."""
        current = self._registry.resources.get(name) if "/" in name else self._registry.views.get(name)
        if current is None or current.deleting:
            return source
        if not take_over:
            check_owner(current, source)
        same_place = source.kind == "git" and (source.owner, source.file) == (current.source.owner, current.source.file)
        return current.source if same_place and current.manifest == manifest else source

    def _told_of_new_owner(self, name: JobName, save: Save | SaveResource) -> Save | SaveResource:
        current = self._registry.resources.get(name) if "/" in name else self._registry.views.get(name)
        if current is None or current.source.owner == save.view.source.owner:
            return save
        event = EventDraft(
            name, "", "Normal", "OwnerChanged", f"taken over from {current.source} by {save.view.source}"
        )
        return replace(save, events=[*save.events, event])

    def _plan(
        self, name: JobName, manifest: Manifest, together: Sequence[Manifest], source: Source, now_ns: int
    ) -> tuple[ApplyResult, Save | SaveResource | None]:
        """The plan for one of the manifests that are applied together; its owner was checked. Raises what its kind refuses."""
        if isinstance(manifest, JobManifest):
            plan = plan_apply(self._registry.views.get(name), manifest, source, now_ns)
            return plan.result, plan.save
        present = self._registry.resources.get(name)
        kept = None if present is None or present.deleting else present
        declared = manifest
        if isinstance(declared, SecretManifest):  # from here on nothing knows its values but ``declared``
            manifest = self._resources.vault.redacted(declared, kept)
        others = {
            key: view.manifest for key, view in self._registry.resources.items() if view.manifest.kind == manifest.kind
        }
        others |= {
            JobName(key_of(other)): other
            for other in together
            if isinstance(other, ResourceManifest) and other.kind == manifest.kind
        }
        others.pop(name, None)
        self._resources.controllers[manifest.kind].check(
            present.manifest if present else None, manifest, others.values()
        )
        result, save = plan_resource(present, manifest, source, now_ns)
        if save is not None and isinstance(declared, SecretManifest):
            save = replace(save, view=self._resources.vault.sealed(save.view, declared, kept))
        return result, save

    def _look_at(self, name: JobName) -> None:
        if "/" in name:
            self._resources.look_at(name)
        else:
            self._nudge(name)

    async def _transfer(self, name: JobName, old: Source, new: Source) -> None:
        async with self._registry.lock(name):
            view = self._lookup.resource(name) if "/" in name else self._lookup.job(name)
            if view.source != old:
                raise OwnershipConflict(name, view.source)
            event = EventDraft(name, "", "Normal", "Transferred", f"from {old} to {new}")
            if isinstance(view, ResourceView):
                await self._registry.save(SaveResource(replace(view, source=new), [event]))
            else:
                await self._registry.save(Save(replace(view, source=new), job=True, events=[event]))

    async def _delete(self, name: JobName, source: Source | None) -> None:
        async with self._registry.lock(name):
            view = self._lookup.job(name)
            if source is not None:
                check_owner(view, source)
            if view.deleting:
                return
            stopped = plan_stop(view, Reason.DELETED, force=False)
            view = with_runs(replace(view, deleting=True, updated_ns=self._registry.clock.wall_ns()), stopped)
            event = EventDraft(name, "", "Normal", "Deleting", f"deleted by {source}" if source else "deleted")
            await self._registry.save(Save(view, runs=stopped, events=[event], job=True))
        reached("daemon.delete-stored")
        self._nudge(name)

    async def _delete_resource(self, name: JobName, source: Source | None) -> None:
        async with self._registry.lock(name):
            view = self._lookup.resource(name)
            if source is not None:
                check_owner(view, source)
            if users := self._resources.users(name):
                raise WrongState(f"{name} is used by {', '.join(users[:5])}", todo=f"rnx stop {users[0]}, then again")
            if view.deleting:
                return
            view = replace(view, deleting=True, updated_ns=self._registry.clock.wall_ns())
            event = EventDraft(name, "", "Normal", "Deleting", f"deleted by {source}" if source else "deleted")
            await self._registry.save(SaveResource(view, [event]))
        reached("daemon.resource-delete-stored")
        self._resources.look_at(name)

    async def _stop(self, ref: str, force: bool) -> RunId:
        name, run = await self._lookup.resolve(ref)
        async with self._registry.lock(name):
            view = self._lookup.job(name)
            stopped = plan_stop(view, Reason.STOPPED, force=force, only=run.id if run else None)
            if not stopped:
                what = f"run {run.id}" if run else f"job {name!r}"
                raise WrongState(f"{what} does not run", todo=f"rnx status {ref} shows how it ended")
            event = EventDraft(name, stopped[0].id, "Normal", "Stopping", "by force" if force else "with its grace")
            await self._registry.save(Save(with_runs(view, stopped), runs=stopped, events=[event]))
        reached("daemon.stop-stored")
        self._nudge(name)
        return stopped[0].id

    async def _trigger(self, name: JobName, trigger: str, why: str, force: bool) -> RunId:
        async with self._registry.lock(name):
            view = self._lookup.job(name)
            if view.deleting or view.manifest.spec.suspend:
                state = "is being deleted" if view.deleting else "is suspended"
                raise WrongState(f"job {name!r} {state}", todo="apply it with spec.suspend: false")
            added = add_manual_run(view, trigger, self._registry.clock.wall_ns(), force=force)
            self._check_room()
            (run,) = added.runs
            event = EventDraft(name, run.id, "Normal", "Triggered", why)
            await self._registry.save(Save(added.view, runs=[*added.stopped, run], events=[event]))
        self._nudge(name)
        return run.id

    async def _set_condition(self, name: JobName, condition_type: str, status: str, reason: str, message: str) -> None:
        now_ns = self._registry.clock.wall_ns()
        async with self._registry.lock(name):
            view = self._registry.views.get(name)
            if view is not None:
                changed = with_condition(view, condition_type, status, reason, message, now_ns)
                if changed is not view:
                    await self._registry.save(Save(changed, job=True))
            elif (resource := self._registry.resources.get(name)) is not None:
                told = with_condition(resource, condition_type, status, reason, message, now_ns)
                if told is not resource:
                    await self._registry.save(SaveResource(told))

    # --- looking ------------------------------------------------------------------------------------------------------

    async def owners(self) -> Mapping[JobName, Source]:
        """The source of everything that is declared and not being deleted."""
        jobs = {name: view.source for name, view in self._registry.views.items() if not view.deleting}
        return jobs | {name: view.source for name, view in self._registry.resources.items() if not view.deleting}

    async def claim(self, claimant: str, claims: Mapping[JobName, Source]) -> None:
        """What a source would own if nobody else did; replaces what it has claimed before."""
        self._claims[claimant] = claims

    async def heir(self, name: JobName, owner: Source) -> Source | None:
        """Who claims a job that its owner no longer wants."""
        claims = (claims[name] for claims in self._claims.values() if name in claims)
        return next((source for source in claims if source.owner != owner.owner), None)

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
        name = (await self._lookup.resolve(ref))[0] if ref else None
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


def check_owner(view: JobView | ResourceView, source: Source) -> None:
    """Any gRPC client may change what another one applied; files and repositories own their jobs. Raises OwnershipConflict."""
    if view.source.owner != source.owner:
        raise OwnershipConflict(view.name, view.source)


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

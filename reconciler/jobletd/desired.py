"""The desired state: what sources and clients ask for. Every change is durable when it returns, and only then acted on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from joblet.crash_points import reached
from joblet.manifest import ChangeKind, JobManifest, Manifest, ResourceManifest, SecretManifest, key_of
from jobletd.arrays.progress import Mark
from jobletd.blobs.naming import check_contents
from jobletd.blobs.store import BlobStore
from jobletd.conditions import with_condition
from jobletd.dependencies import check_cycles
from jobletd.errors import DuplicateName, OwnershipConflict, WrongState
from jobletd.executor import Executor
from jobletd.model import Action, ApplyResult, JobName, JobView, Reason, ResourceView, RunId, Source
from jobletd.planning import plan_apply, plan_stop, with_runs
from jobletd.policy import NOTHING_SPECIAL, Policy
from jobletd.registry import Registry
from jobletd.resource_planning import plan_resource
from jobletd.resources import Resources
from jobletd.saves import EventDraft, Save, SaveResource
from jobletd.schedules.overlap import add_manual_run
from jobletd.shown_state import ShownState

T = TypeVar("T")


class DesiredState(ShownState):
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
        super().__init__(registry, executor, resources, check_room)
        self._blobs = blobs
        self._policy = policy
        self._check_room = check_room
        self._nudge = nudge
        self._changes: set[asyncio.Task[Any]] = set()
        self._declaring = asyncio.Lock()  # of jobs that depend on others: two applies may make a cycle together
        self._claims: dict[str, Mapping[JobName, Source]] = {}  # by claimant: what belongs to somebody else

    def reconfigure(self, policy: Policy) -> None:
        """Another policy, for manifests to come."""
        self._policy = policy

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
        who = str(source) if isinstance(source, Source) else "several"
        with self._registry.entered("joblet.apply", {"joblet.source": who, "joblet.manifests": len(manifests)}):
            return await self._whole(self._apply(manifests, source, dry_run, take_over))

    async def transfer(self, name: JobName, old: Source, new: Source) -> None:
        """Hand a job from one source to another; nothing restarts. Raises NoSuchJob, OwnershipConflict."""
        await self._whole(self._transfer(name, old, new))

    async def delete(self, name: JobName, *, source: Source | None) -> None:
        """Stop a job and remove it; its history stays. source: who asks. Raises NoSuchJob, OwnershipConflict.

        Anything else is removed unless a run uses it: raises WrongState then.
        """
        await self._whole(self._delete_resource(name, source) if "/" in name else self._delete(name, source))

    async def stop(self, ref: str, *, force: bool, reason: Reason = Reason.STOPPED) -> RunId:
        """Stop what is open of a job, or the run with that id. Raises NoSuchJob, WrongState if nothing is open."""
        return await self._whole(self._stop(ref, force, reason))

    async def trigger(
        self, name: JobName, *, trigger: str = "manual", why: str = "by hand", force: bool = False
    ) -> RunId:
        """One more run of a job. trigger, why: what the run and the event say. force: whatever else of the job runs.

        Raises NoSuchJob, WrongState, NoRoom.
        """
        with self._registry.entered("joblet.trigger", {"joblet.job": name, "joblet.trigger": trigger}):
            return await self._whole(self._trigger(name, trigger, why, force))

    async def retry(self, ref: str, indexes: Sequence[range]) -> tuple[RunId, int]:
        """Run these indexes of an array that is over anew; none: those that did not succeed. Returns the run, and how many.

        Raises NoSuchJob, WrongState, NoRoom.
        """
        run = await self._whole(self._arrays.retry(ref, indexes))
        self._nudge(run.job)
        return run.id, run.marks.count(Mark.NOT_BEGUN)

    async def set_condition(self, name: JobName, condition_type: str, status: str, reason: str, message: str) -> None:
        """Set a lasting fact about a job; ``since`` changes only with the status. A job that is gone has none."""
        await self._whole(self._set_condition(name, condition_type, status, reason, message))

    async def record_event(self, job: str, run_id: str, type: str, reason: str, message: str) -> None:
        """Record what happened; ``job`` may be empty for the host itself."""
        await self._registry.record(EventDraft(job, run_id, type, reason, message))

    async def claim(self, claimant: str, claims: Mapping[JobName, Source]) -> None:
        """What a source would own if nobody else did; replaces what it has claimed before."""
        self._claims[claimant] = claims

    async def heir(self, name: JobName, owner: Source) -> Source | None:
        """Who claims a job that its owner no longer wants."""
        claims = (claims[name] for claims in self._claims.values() if name in claims)
        return next((source for source in claims if source.owner != owner.owner), None)

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
                if save is not None and take_over:
                    result, save = self._taken_over(name, result, save)
                results.append(result)
                if save is not None:
                    saves.append(save)
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

    def _taken_over(
        self, name: JobName, result: ApplyResult, save: Save | SaveResource
    ) -> tuple[ApplyResult, Save | SaveResource]:
        """The same, told of the new owner if there is one: that is a change, whatever else changes."""
        current = self._registry.resources.get(name) if "/" in name else self._registry.views.get(name)
        if current is None or current.source.owner == save.view.source.owner:
            return result, save
        event = EventDraft(
            name, "", "Normal", "OwnerChanged", f"taken over from {current.source} by {save.view.source}"
        )
        what = "nothing restarts" if result.action is Action.UNCHANGED else result.consequence
        told = replace(result, action=Action.CONFIGURED, consequence=f"taken over from {current.source}; {what}")
        return told, replace(save, events=[*save.events, event])

    def _plan(
        self, name: JobName, manifest: Manifest, together: Sequence[Manifest], source: Source, now_ns: int
    ) -> tuple[ApplyResult, Save | SaveResource | None]:
        """The plan for one of the manifests that are applied together; its owner was checked. Raises what its kind refuses."""
        if isinstance(manifest, JobManifest):
            limits = ChangeKind.IN_PLACE if self._executor.changes_limits(manifest) else ChangeKind.RESTART
            plan = plan_apply(self._registry.views.get(name), manifest, source, now_ns, limits=limits)
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

    async def _stop(self, ref: str, force: bool, reason: Reason) -> RunId:
        name, run = await self._lookup.resolve(ref)
        async with self._registry.lock(name):
            view = self._lookup.work(name) if run is None or not run.phase.is_final else self._lookup.job_of(name, run)
            stopped = plan_stop(view, reason, force=force, only=run.id if run else None)
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


def check_owner(view: JobView | ResourceView, source: Source) -> None:
    """Any gRPC client may change what another one applied; files and repositories own their jobs. Raises OwnershipConflict."""
    if view.source.owner != source.owner:
        raise OwnershipConflict(view.name, view.source)

"""The controller of GitSources: one task follows each, and what it finds is the condition Ready and the status of its source."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from joblet.clock import Clock
from joblet.errors import JobletError
from joblet.manifest import GitSourceManifest, ResourceManifest
from jobletd.errors import NoSuchResource, WrongState
from jobletd.lookup import Lookup
from jobletd.model import JobName, JobView, ResourceView, Source
from jobletd.registry import Registry
from jobletd.resources import READY, NotInLine
from jobletd.secrets.vault import Vault
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.git.access import NoCredentials
from jobletd.sources.git.contents import Contents
from jobletd.sources.git.repository import SHORT
from jobletd.sources.git.scope import GitScope, follower_of
from jobletd.sources.git.source import GitSource, Settings, Wishes

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0
log = structlog.get_logger("git")


@dataclass(slots=True)
class _Followed:
    """A source with the task that follows it; None before ``run``."""

    source: GitSource
    task: asyncio.Task[None] | None = None
    leaving: bool = False  # the task removes what it has declared


class GitSources:
    """See ``jobletd.resources.Controller``. ``begin`` before ``run``."""

    def __init__(
        self, directory: str, registry: Registry, vault: Vault, contents: Callable[[], Contents], clock: Clock
    ) -> None:
        """directory: of all mirrors. contents: makes what takes the files that a source's jobs name."""
        self._directory = directory
        self._contents = contents
        self._registry = registry
        self._vault = vault
        self._clock = clock
        self._labels: Mapping[str, str] = {}
        self._desired: DesiredJobs | None = None
        self._look_at: Callable[[JobName], None] = lambda _: None
        self._followed: dict[str, _Followed] = {}
        self._running = False

    def begin(self, desired: DesiredJobs, look_at: Callable[[JobName], None]) -> None:
        """Tell it what to change, and whom to tell of a source whose condition has changed."""
        self._desired = desired
        self._look_at = look_at

    async def run(self) -> None:
        """Follow what is declared, until cancelled."""
        self._running = True
        try:
            for view in list(self._registry.resources.values()):
                if isinstance(view.manifest, GitSourceManifest) and not view.deleting:
                    self._follow(view)
            await asyncio.get_running_loop().create_future()
        finally:
            self._running = False
            await _end(*(one.task for one in self._followed.values() if one.task is not None))

    def reconfigure(self, labels: Mapping[str, str]) -> None:
        """What this host is called from now on."""
        if labels != self._labels:
            self._labels = labels
            for one in self._followed.values():
                with suppress(WrongState):
                    one.source.look_soon()

    def pushed(self, name: str) -> None:
        """Somebody says that the repository has changed: look, and let nobody wait. Raises NoSuchResource, WrongState."""
        followed = self._followed.get(name)
        if followed is None or followed.leaving:
            raise NoSuchResource("gitsource", name, Lookup(self._registry).nearest("gitsource", name))
        followed.source.look_soon()

    async def sync(self, name: str, wishes: Wishes) -> GitSource:
        """Look now; the source that is returned says how it went. Raises NoSuchResource, WrongState."""
        view = self._registry.resources.get(JobName(f"gitsource/{name}"))
        if view is None or view.deleting:
            raise NoSuchResource("gitsource", name, Lookup(self._registry).nearest("gitsource", name))
        source = self._follow(view).source  # as it is declared now, though nobody may have looked at that yet
        await source.sync(wishes)
        return source

    def job_changed(self, name: JobName, view: JobView | None) -> None:
        """A name is free, or was handed to a repository: one that had a conflict about it may have it now."""
        if view is None or view.source.kind == "git":
            for one in self._followed.values():
                one.source.job_changed(name)

    def synced_ns(self) -> list[tuple[str, int | None]]:
        """When each was last seen in line; None: not since the start."""
        return [(name, one.source.synced_ns) for name, one in self._followed.items()]

    # -- as Controller --

    def check(
        self, current: ResourceManifest | None, desired: ResourceManifest, others: Iterable[ResourceManifest]
    ) -> None:
        """Its own model has looked at everything; what only the repository knows is in the condition."""

    async def realize(self, view: ResourceView) -> None:
        """Raises NotInLine until it is in line; until the first look is over, what was known before holds."""
        source = self._follow(view).source
        if source.looked:
            if source.fault is not None:
                raise NotInLine(source.fault.reason, str(source.fault))
            return
        before = next((one for one in view.conditions if one.type == READY), None)
        if before is None:
            raise NotInLine("Looking", "the first look is under way")
        if before.status != "True":
            raise NotInLine(before.reason, before.message)

    async def remove(self, view: ResourceView) -> None:
        """With it goes what it declares; with ``prune: false`` that stays, for any client to change.

        That takes the locks of others, and we are called with ours held: so a task does it, and this raises NotInLine meanwhile.
        """
        manifest = _manifest(view)
        name = manifest.metadata.name
        followed = self._followed.get(name)
        if followed is None:
            followed = self._followed[name] = _Followed(self._make(manifest))
        if not followed.leaving:
            if followed.task is not None:
                await _end(followed.task)
            followed.leaving = True
            followed.task = asyncio.create_task(self._leave(manifest), name=f"git-{name}")
        if followed.task is None or not followed.task.done():
            raise NotInLine("Leaving", "what it has declared goes first")
        followed.leaving = False
        followed.task.result()  # a defect of ours is told, and tried again
        await asyncio.to_thread(followed.source.discard)
        del self._followed[name]

    async def _leave(self, manifest: GitSourceManifest) -> None:
        """Remove or give away all that a source owns; what is still used is waited for."""
        name, desired = manifest.metadata.name, self._desired
        assert desired is not None
        scope, heir = GitScope(name, ""), Source("grpc", f"left-by-{name}")
        follower = follower_of(name, desired)
        pause = FIRST_PAUSE_SECONDS
        while True:
            owners = await desired.owners()
            owned = [(job, owner) for job, owner in owners.items() if scope.file_of(owner) is not None]
            try:
                await follower.tell_conflicts(())
                if not manifest.spec.prune.enabled:
                    await follower.hand_over((job, owner, heir) for job, owner in owned)
                    break
                if await follower.delete(owned):
                    break
            except JobletError as error:
                log.warning("git source not left yet", gitsource=name, error=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        asyncio.get_running_loop().call_soon(self._look_at, JobName(f"gitsource/{name}"))  # when this task is done

    async def status(self, view: ResourceView) -> Mapping[str, str]:
        """What is in force, and how the last look went."""
        followed = self._followed.get(view.manifest.metadata.name)
        if followed is None:
            return {}
        source = followed.source
        found: dict[str, str] = {}
        if source.applied is not None:
            applied = source.applied
            found |= {"revision": f"{applied.label}@{applied.revision[:SHORT]}", "manifests": str(applied.manifests)}
        if source.synced_ns is not None:
            found["synced"] = f"{datetime.fromtimestamp(source.synced_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"
        if not source.selected:
            found["selected"] = "no"
        numbers = {"drifted": len(source.drifted), "conflicts": source.conflicts, "kept": len(source.kept)}
        return {**found, **{name: str(number) for name, number in numbers.items() if number}}

    def _follow(self, view: ResourceView) -> _Followed:
        manifest = _manifest(view)
        name = manifest.metadata.name
        followed = self._followed.get(name)
        if followed is None:
            followed = self._followed[name] = _Followed(self._make(manifest))
        if followed.leaving:  # it is declared again
            if followed.task is not None:
                followed.task.cancel()
            followed.leaving, followed.task = False, None
        followed.source.update(manifest.spec)
        if self._running and followed.task is None:
            followed.task = asyncio.create_task(followed.source.run(), name=f"git-{name}")
        return followed

    def _make(self, manifest: GitSourceManifest) -> GitSource:
        assert self._desired is not None, "begin comes first"
        os.makedirs(self._directory, 0o700, exist_ok=True)
        name = manifest.metadata.name
        key = JobName(f"gitsource/{name}")
        settings = Settings(
            self._directory,
            self._contents(),
            lambda: self._labels,
            self._secret,
            lambda: self._look_at(key),
            self._clock,
        )
        return GitSource(name, manifest.spec, settings, self._desired)

    def _secret(self, name: str) -> Mapping[str, bytes]:
        """Raises NoCredentials, SecretKeyError, SecretDamaged."""
        view = self._registry.resources.get(JobName(f"secret/{name}"))
        if view is None or view.deleting:
            raise NoCredentials(
                "is not there", where=f"secret/{name}", todo="rnx secret create, or change spec.credentials"
            )
        return self._vault.open(view)


def _manifest(view: ResourceView) -> GitSourceManifest:
    assert isinstance(view.manifest, GitSourceManifest)
    return view.manifest


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)

"""GitSources that the daemon's own configuration declares: one more source with one file, owned and pruned as all are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import structlog

from joblet.errors import JobletError
from joblet.manifest import GitSourceManifest, GitSourceSpec, key
from jobletd.model import JobName, JobView, Source
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.following import Follower
from jobletd.sources.ownership import Claim, make_plan

FILE = "gitops.sources"
OWNER = Source("config", FILE)
RETRY_SECONDS = 5.0
log = structlog.get_logger("gitops")


class ConfigScope:
    """See ``ownership.Scope``."""

    def file_of(self, owner: Source) -> str | None:
        return FILE if owner == OWNER else None

    def source_of(self, file: str) -> Source:
        assert file == FILE
        return OWNER


class ConfiguredSources:
    """``run`` works until it is cancelled. A source that another owner has is a conflict, as everywhere; the daemon starts."""

    def __init__(self, sources: Mapping[str, GitSourceSpec], desired: DesiredJobs) -> None:
        self._sources = sources
        self._desired = desired
        self._follower = Follower(desired, ConfigScope(), client="configuration", place="the daemon's configuration")
        self._nudge = asyncio.Event()

    def reconfigure(self, sources: Mapping[str, GitSourceSpec]) -> None:
        """Others from now on."""
        self._sources = sources
        self._nudge.set()

    def job_changed(self, name: JobName, _: JobView | None) -> None:
        """Look soon if that may end a conflict."""
        if self._follower.waits_for(name):
            self._nudge.set()

    async def run(self) -> None:
        """Bring it in line, and again whenever it may not be."""
        while True:
            self._nudge.clear()
            wait: float | None = None
            try:
                if not await self._follow():
                    wait = RETRY_SECONDS
            except JobletError as error:
                log.warning("configured git sources not in line", error=str(error))
                wait = RETRY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._nudge.wait()

    async def _follow(self) -> bool:
        """Whether all that had to go could."""
        manifests = {JobName(key("GitSource", name)): _manifest(name, spec) for name, spec in self._sources.items()}
        plan = make_plan(self._follower.scope, [Claim(FILE, tuple(manifests), (0, FILE))], await self._desired.owners())
        await self._follower.apply([manifests[name] for name in manifests if name in plan.owned[FILE]], OWNER)
        every = await self._follower.delete(plan.deletes)
        await self._follower.tell_conflicts(plan.conflicts)
        for conflict in plan.conflicts:
            log.warning("configured git source belongs to another", source=conflict.job, owner=str(conflict.owner))
        return every


def _manifest(name: str, spec: GitSourceSpec) -> GitSourceManifest:
    data = {"apiVersion": "joblet/v1", "kind": "GitSource", "metadata": {"name": name}}
    return GitSourceManifest.model_validate(
        {**data, "spec": spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
    )

"""Contents that no job names any more go, in the background; one that was just uploaded or asked for has an hour."""

from __future__ import annotations

import asyncio

import structlog

from joblet.clock import Clock
from jobletd.blobs.naming import contents_of
from jobletd.blobs.store import BlobStore
from jobletd.registry import Registry

INTERVAL_SECONDS = 300.0
GRACE_SECONDS = 3600.0
log = structlog.get_logger("blobs")


class BlobCollector:
    """Kept history keeps no contents: a run that is over is not started again as it was."""

    def __init__(self, store: BlobStore, registry: Registry, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock

    async def run(self) -> None:
        """Clean up now and then until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                self.sweep()
            except OSError as error:  # what stays now goes later
                log.warning("contents not removed", error=str(error))

    def sweep(self) -> int:
        """Remove what is due, without giving way to an apply. Raises OSError."""
        named = {
            sha256
            for view in self._registry.views.values()
            for manifest in (view.manifest, *(run.manifest for run in view.runs))
            for sha256, _ in contents_of(manifest)
        }
        before = self._clock.wall_ns() / 1e9 - GRACE_SECONDS
        sizes = self._store.remove_unused(named, before)
        if sizes:
            log.info("contents removed", count=len(sizes), bytes=sum(sizes))
        return len(sizes)

"""A GitSource at work on a desired state in memory: real git, real repositories, no daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joblet.clock import SystemClock
from joblet.manifest import GitSourceManifest
from jobletd.blobs.store import BlobLimits, BlobStore
from jobletd.model import JobName, Source
from jobletd.sources.git.contents import Contents
from jobletd.sources.git.faults import Fault
from jobletd.sources.git.source import GitSource, Settings, Wishes
from tests.unit.spool.desired import MemoryDesired


class Desired(MemoryDesired):
    """With jobs that a person may stop."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped: set[JobName] = set()
        self.triggered: list[str] = []

    async def stopped_by_hand(self) -> frozenset[JobName]:
        return frozenset(self.stopped & self.jobs.keys())

    async def trigger(self, name: JobName, *, trigger: str, why: str) -> Any:
        self.triggered.append(name)
        self.stopped.discard(name)


class Followed:
    """``look`` is one look; what it finds is in ``fault`` and ``desired``."""

    def __init__(self, mirrors: Path, url: str) -> None:
        mirrors.mkdir()
        self.blobs = BlobStore(f"{mirrors}.blobs", BlobLimits(8 << 20, 64 << 20))
        self.blobs.open()
        self.mirrors = mirrors
        self.desired = Desired()
        self.changes = 0
        self.labels: dict[str, str] = {}
        self.secret: Mapping[str, bytes] = {}
        self.spec: dict[str, Any] = {"url": url, "ref": {"branch": "main"}}
        self.source = self.make()

    def make(self) -> GitSource:
        """As a daemon that starts anew makes it."""

        def changed() -> None:
            self.changes += 1

        settings = Settings(
            str(self.mirrors), Contents(self.blobs), lambda: self.labels, lambda _: self.secret, changed, SystemClock()
        )
        return GitSource("fleet", self.manifest.spec, settings, self.desired)

    @property
    def manifest(self) -> GitSourceManifest:
        return GitSourceManifest.model_validate(
            {"apiVersion": "joblet/v1", "kind": "GitSource", "metadata": {"name": "fleet"}, "spec": self.spec}
        )

    def set(self, **spec: Any) -> None:
        """Change the manifest."""
        self.spec.update(spec)
        self.source.update(self.manifest.spec)

    def look(self, wishes: Wishes | None = None) -> Fault | None:
        async def once() -> None:
            asked = asyncio.create_task(
                self.source.sync(wishes or Wishes())
            )  # before it begins: one look and no second
            await asyncio.sleep(0)
            task = asyncio.create_task(self.source.run())
            await asyncio.wait_for(asked, 60)
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(once())
        return self.source.fault

    def look_well(self, wishes: Wishes | None = None) -> None:
        fault = self.look(wishes)
        assert fault is None, str(fault)

    @property
    def jobs(self) -> dict[str, str]:
        """Each job's source."""
        return {str(name): str(source) for name, (_, source, _) in self.desired.jobs.items()}

    def condition(self, name: str, kind: str) -> str:
        """Its status: True or False."""
        return self.desired.conditions[JobName(name), kind][0]

    def give(self, name: str, source: Source) -> None:
        """Somebody else takes a job, or has it."""
        manifest, _, generation = self.desired.jobs[JobName(name)]
        self.desired.jobs[JobName(name)] = (manifest, source, generation)

"""A spool directory with real files and real inotify, before a desired state in memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from joblet.clock import SystemClock
from jobletd.model import JobName
from jobletd.sources.spool import Spool, SpoolSettings
from tests.timing import PATIENCE
from tests.unit.manifest.samples import manifest_text
from tests.unit.spool.desired import MemoryDesired

OWNER = os.getuid()


class Place:
    """A spool directory with its desired state."""

    def __init__(self, path: Path, desired: MemoryDesired | None = None) -> None:
        self.path = path
        path.mkdir(mode=0o755, exist_ok=True)
        self.desired = desired or MemoryDesired()
        self.spool = Spool(SpoolSettings(str(path), 30.0, OWNER), self.desired, clock=SystemClock())

    def write(self, file: str, *names: str, command: str = "[x]") -> Path:
        path = self.path / file
        path.write_text("---\n".join(manifest_text(f"command: {command}", name) for name in names))
        path.chmod(0o644)
        return path

    def last_argument(self, name: str) -> str:
        manifest, _, _ = self.desired.jobs[JobName(name)]
        return (manifest.spec.command or ("",))[-1]

    def error(self, file: str) -> str:
        path = self.path / "status" / f"{file}.error.yml"
        return path.read_text() if path.exists() else ""

    async def until(self, condition: Callable[[], object], *, within: float = 20.0) -> float:
        """Wait until a condition holds; the seconds it took."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < within * PATIENCE, (self.desired, list(self.path.rglob("*")))
            await asyncio.sleep(0.001)
        return time.monotonic() - started

    async def synced(self, condition: Callable[[], object]) -> None:
        """Synchronise without a watch until a condition holds."""
        started = time.monotonic()
        while True:
            await self.spool.sync()
            if condition():
                return
            assert time.monotonic() - started < 20.0 * PATIENCE, self.desired
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[None]:
    task = asyncio.create_task(place.spool.run())
    await asyncio.sleep(0.05)  # not needed for correctness: lets the latencies below be those of a daemon at rest
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])

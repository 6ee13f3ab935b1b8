"""Where manifests come from and what tells of them in files: the spool with its status files, git, the configured sources."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable

from joblet.atomicfile import write_atomic
from joblet.clock import Clock
from joblet.config.server import ServerConfig
from joblet.manifest import JobManifest
from jobletd.control_plane import ControlPlane
from jobletd.lifetime import Lifetime
from jobletd.model import JobName
from jobletd.sources.fleet import Fleet
from jobletd.sources.known_contents import KnownContents
from jobletd.sources.spool import Spool, SpoolSettings
from jobletd.sources.status_files import StatusFiles


class SourceParts:
    """Of one daemon, begun one by one."""

    def __init__(self, life: Lifetime, config: ServerConfig, clock: Clock, control: ControlPlane) -> None:
        self._life = life
        self._config = config
        self._clock = clock
        self._control = control
        self._followed = asyncio.Event()  # the spool, for the first time

    async def once_followed(self, work: Callable[[], Awaitable[None]]) -> None:
        """What can wait until the spool was looked at for the first time, and would only make that take longer."""
        await self._followed.wait()
        await work()

    def start_status_files(self) -> StatusFiles:
        registry, desired = self._control.registry, self._control.desired
        settings = SpoolSettings(self._config.spool.directory)
        os.makedirs(settings.status_directory, 0o755, exist_ok=True)
        files = StatusFiles(settings.status_directory)
        files.keep_only(registry.views)
        desired.on_change(files.changed)

        async def look_at_all() -> None:
            for name, view in registry.views.items():
                files.changed(name, view)

        self._life.background("first status files", self.once_followed(look_at_all))
        return files

    def start_spool(self) -> Spool:
        settings = SpoolSettings(self._config.spool.directory, rescan_seconds=self._config.spool.rescan_seconds)
        registry, desired = self._control.registry, self._control.desired

        def present(name: JobName) -> JobManifest | None:
            view = registry.views.get(name)
            return None if view is None else view.manifest

        def followed() -> None:
            # All jobs are there now, and stay: to go through them again and again for garbage takes as long as to load them.
            gc.freeze()
            gc.enable()
            self._followed.set()

        known = KnownContents(f"{self._config.state.directory}/spool-contents.json", present)
        spool = Spool(settings, desired, clock=self._clock, known=known, on_followed=followed)
        desired.on_change(spool.job_changed)
        self._life.background("spool", spool.run())
        return spool

    def start_git(self) -> None:
        git, desired = self._control.git, self._control.desired
        desired.on_change(git.job_changed)
        self._life.background("git", git.run())

    async def start_fleet(self) -> Fleet:
        """What the configuration itself declares, and the webhook's port."""
        desired = self._control.desired
        fleet = Fleet(self._config, self._control.git, desired)
        desired.on_change(fleet.configured.job_changed)
        self._life.background("configured sources", fleet.configured.run())
        port = await fleet.start()
        self._life.push_async_callback(fleet.stop)
        if port is not None:
            write_atomic(f"{self._config.run.directory}/webhook-port", f"{port}\n".encode(), durable=False)
        return fleet

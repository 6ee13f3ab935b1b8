"""The images of a cluster's volumes: made, enlarged and removed by the daemon, in the shared directory.

A thread of its own waits for that directory, and everybody else for the thread only so long. What is to be changed is claimed
first, as by an attempt: the daemon never touches what a node may have mounted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from joblet.manifest import VolumeManifest
from jobletd.executor.local import volume_image as images
from jobletd.executor.local.volume_image import VolumeError, rounded
from jobletd.executor.local.volumes import HALF_GONE, HALF_MADE, IMAGE
from jobletd.executor.local.workspace import can_limit_disk
from jobletd.executor.slurm_node.volumes import (
    ATTACHED,
    UNNAMED,
    Holder,
    claim,
    holder_of,
    how_to_free,
    plain_holder,
    volume_directory,
)

T = TypeVar("T")


class VolumeImages:
    """Those of one cluster. node, boot_id: of this host. seconds: how long the shared directory may take to answer."""

    def __init__(self, shared_directory: str, node: str, boot_id: str, seconds: float) -> None:
        self._shared = shared_directory
        self._ours = Holder("of the daemon", node, boot_id)
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="volumes")

    async def realize(self, manifest: VolumeManifest) -> None:
        """Raises VolumeError, OSError."""
        await self._call(lambda: self._realize(manifest.metadata.name, manifest.spec.size_bytes))

    async def remove(self, name: str) -> None:
        """Raises VolumeError while an attempt has it; OSError."""
        await self._call(lambda: self._remove(name))

    async def status(self, name: str) -> Mapping[str, str]:
        """Who has it, as far as that can be told now."""
        try:
            return await self._call(lambda: plain_holder(holder_of(self._directory(name))))
        except (VolumeError, OSError):
            return {}

    async def _call(self, function: Callable[[], T]) -> T:
        waiting = asyncio.get_running_loop().run_in_executor(self._pool, function)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(waiting)
        except TimeoutError:
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
            todo = "it is tried again; joblet doctor --executor slurm looks at it"
            raise VolumeError("has not done it yet", where="the shared directory", todo=todo) from None

    def _directory(self, name: str) -> str:
        return volume_directory(self._shared, name)

    def _realize(self, name: str, size: int) -> None:
        """Made beside its place and put there by a rename: what is in its place is whole."""
        directory = self._directory(name)
        if os.path.exists(f"{directory}/{IMAGE}"):
            if images.is_smaller(f"{directory}/{IMAGE}", size):
                self._grow(directory, size)
            return
        if not can_limit_disk():
            todo = "modprobe loop, apt-get install e2fsprogs"
            raise VolumeError("volumes need loop devices and mkfs.ext4", where="this host", todo=todo)
        half_made = self._directory(f"{HALF_MADE}{name}")
        _discard(half_made)
        os.makedirs(half_made, 0o700)
        os.close(images.make_image(f"{half_made}/{IMAGE}", size))
        os.rename(half_made, directory)

    def _grow(self, directory: str, size: int) -> None:
        with self._claimed(directory):
            images.enlarge_file(f"{directory}/{IMAGE}", size)
            images.grow_unmounted(f"{directory}/{IMAGE}")

    def _remove(self, name: str) -> None:
        directory, going = self._directory(name), self._directory(f"{HALF_GONE}{name}")
        _discard(going)
        if os.path.isdir(directory):
            with self._claimed(directory):
                os.rename(directory, going)
            _discard(going)

    @contextmanager
    def _claimed(self, directory: str) -> Iterator[None]:
        """No attempt gets it meanwhile. A claim of a daemon that was killed is ours: there is one thread of one daemon."""
        if not claim(directory, self._ours):
            holder = holder_of(directory) or UNNAMED
            if (holder.attempt_id, holder.node) != (self._ours.attempt_id, self._ours.node):
                raise VolumeError(f"{holder} has it", where=directory, todo=how_to_free(holder, directory))
        try:
            yield
        finally:
            if os.path.isdir(directory):
                os.unlink(f"{directory}/{ATTACHED}")


def _discard(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)


def described(manifest: VolumeManifest) -> dict[str, str]:
    """What is known of it without asking anybody."""
    spec = manifest.spec
    return {"size": rounded(spec.size_bytes), "type": spec.type.value, "on": "slurm"}

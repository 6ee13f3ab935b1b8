"""Volumes on this host: the controller of their kind, and the provider that gives them to attempts.

On disk a volume is ``<state>/volumes/<name>/volume.img``. In memory it is a tmpfs at ``<run>/volumes/<name>``, which is mounted
for all to see, since it has to outlive this process; where the kernel cannot map a tmpfs's ids, the same image lies in it.

As long as this daemon runs it holds one mount of each volume, to know what it uses; each attempt gets one more, which is nowhere
until its init puts it into its root. What an attempt was given ends with its mount namespace: there is nothing to take back.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog

from joblet.atomicfile import sync_directory
from joblet.crash_points import reached
from joblet.manifest import JobSpec, ResourceManifest, VolumeManifest, VolumeType, key, key_of
from joblet.sandbox import syscalls
from joblet.sandbox.volumes import need_own_root
from jobletd.executor import AttemptRequest
from jobletd.executor.local import volume_image as images
from jobletd.executor.local.volume_image import VolumeError, rounded
from jobletd.executor.local.workspace import can_limit_disk, remove_workspace
from jobletd.host_features import kernel_at_least
from jobletd.model import AttemptId, JobName, LimitStatus, ResourceView

IMAGE = "volume.img"
HALF_MADE, HALF_GONE = ".new-", ".gone-"  # no volume's name begins with a dot
BYTES_AN_INODE = 4096
INODES_AT_LEAST = 1024
log = structlog.get_logger("volumes")


class Volumes:
    """See ``jobletd.resources.Controller`` and ``jobletd.executor.local.provider.Provider`` for what each method promises."""

    def __init__(self, state_directory: str, run_directory: str) -> None:
        self._on_disk = f"{state_directory}/volumes"
        self._in_memory = f"{run_directory}/volumes"
        self._held: dict[str, int] = {}  # a descriptor of a mount of each volume, by its name
        self._busy: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def start(self, declared: Iterable[JobName]) -> None:
        """Clean up after a daemon that was killed. What nobody declares any more stays: it is somebody's data."""
        known = {name.partition("/")[2] for name in declared if name.startswith("volume/")}
        for directory in (self._on_disk, self._in_memory):
            os.makedirs(directory, 0o700, exist_ok=True)
            for name in os.listdir(directory):
                path = f"{directory}/{name}"
                if name.startswith((HALF_MADE, HALF_GONE)):
                    _discard(path)
                elif name not in known:
                    todo = "declare it again to have it back, or delete it"
                    log.warning("data of a volume that nobody declares", path=path, todo=todo)

    def close(self) -> None:
        """Let go of everything; what jobs use stays theirs."""
        while self._held:
            os.close(self._held.popitem()[1])

    def has(self, name: str) -> bool:
        """Whether there is data of a volume of that name on this host."""
        return any(os.path.isdir(f"{directory}/{name}") for directory in (self._on_disk, self._in_memory))

    # --- the controller -----------------------------------------------------------------------------------------------

    def check(
        self,
        current: ResourceManifest | None,
        desired: ResourceManifest,
        others: Iterable[ResourceManifest],  # noqa: ARG002
    ) -> None:
        assert isinstance(desired, VolumeManifest)
        if not kernel_at_least(5, 12):
            raise VolumeError("volumes need Linux 5.12 or newer", where="kind: Volume", todo="run a newer kernel")
        if not isinstance(current, VolumeManifest):
            return
        name, old, new = desired.metadata.name, current.spec, desired.spec
        if old.type is not new.type:
            what = f"volume {name} is of type {old.type.value} and cannot become {new.type.value}"
            raise VolumeError(what, where="spec.type", todo="make another one, and copy what is in it by a job")
        if new.size_bytes < old.size_bytes:
            what = f"volume {name} has {rounded(old.size_bytes)} and cannot shrink to {rounded(new.size_bytes)}"
            raise VolumeError(what, where="spec.size", todo="make another one, and copy what is in it by a job")

    async def realize(self, view: ResourceView) -> None:
        manifest = _volume(view)
        async with self._busy[manifest.metadata.name]:
            await asyncio.to_thread(self._realize, manifest)

    async def remove(self, view: ResourceView) -> None:
        name = _volume(view).metadata.name
        async with self._busy[name]:
            await asyncio.to_thread(self._remove, name)

    async def status(self, view: ResourceView) -> Mapping[str, str]:
        spec, name = _volume(view).spec, view.manifest.metadata.name
        found = {"size": rounded(spec.size_bytes), "type": spec.type.value}
        fd = self._held.get(name)
        if fd is None or self._busy[name].locked():  # it is being made or grown: the descriptor may be another's
            return found
        usage = os.fstatvfs(fd)
        used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize  # as df has it in the job
        # An image has a bit more room than was asked for, and what is in that is no use of more than the volume.
        return {**found, "used": rounded(min(used, spec.size_bytes))}

    def _realize(self, manifest: VolumeManifest) -> None:
        name, size = manifest.metadata.name, manifest.spec.size_bytes
        if manifest.spec.type is VolumeType.FILESYSTEM:
            self._realize_image(name, f"{self._on_disk}/{name}", size)
        elif kernel_at_least(6, 3):  # which can map the ids of a tmpfs
            _mount_memory(f"{self._in_memory}/{name}", size)
            if name not in self._held:
                self._held[name] = os.open(f"{self._in_memory}/{name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            directory = f"{self._in_memory}/{name}"
            if not os.path.ismount(directory):
                _check_memory(size, os.sysconf("SC_AVPHYS_PAGES"))  # all of it is taken at once
            _mount_memory(directory, images.image_bytes(size) + (1 << 20))
            self._realize_image(name, f"{directory}/data", size)

    def _realize_image(self, name: str, directory: str, size: int) -> None:
        """Made beside its place and put there by a rename: what is in its place is whole."""
        image = f"{directory}/{IMAGE}"
        if not can_limit_disk():
            todo = "modprobe loop, apt-get install e2fsprogs"
            raise VolumeError("volumes need loop devices and mkfs.ext4", where="this host", todo=todo)
        if not os.path.exists(image):
            parent, last = os.path.split(directory)
            half_made = f"{parent}/{HALF_MADE}{last}"
            _discard(half_made)
            os.mkdir(half_made, 0o700)
            self._hold(name, images.make_image(f"{half_made}/{IMAGE}", size))
            os.rename(half_made, directory)
            sync_directory(parent)
            reached("volume.put-in-place")
            return
        if name not in self._held:
            self._hold(name, images.mount_image(image))
        if images.is_smaller(image, size):
            self._grow(name, image, size)
            reached("volume.grown")

    def _grow(self, name: str, image: str, size: int) -> None:
        try:
            images.grow_image(image, self._held[name], size)
        except PermissionError:
            os.close(self._held.pop(name))
            try:
                images.grow_unmounted(image)
            finally:
                self._hold(name, images.mount_image(image))

    def _hold(self, name: str, mount_fd: int) -> None:
        if (old := self._held.pop(name, None)) is not None:
            os.close(old)
        self._held[name] = mount_fd

    def _remove(self, name: str) -> None:
        if (held := self._held.pop(name, None)) is not None:
            os.close(held)
        for directory in (self._on_disk, self._in_memory):
            path, going = f"{directory}/{name}", f"{directory}/{HALF_GONE}{name}"
            _discard(going)
            if os.path.ismount(path):
                _discard(path)  # mount points are not renamed
            elif os.path.isdir(path):
                os.rename(path, going)
                sync_directory(directory)
                reached("volume.set-aside")
                _discard(going)
        reached("volume.removed")

    # --- the provider -------------------------------------------------------------------------------------------------

    async def attach(
        self,
        request: AttemptRequest,
        first_id: int,  # noqa: ARG002
        descriptors: list[int],
        limits: list[LimitStatus],  # noqa: ARG002
    ) -> dict[str, Any]:
        manifests = {key_of(one): one for one in request.resources}

        async def mount(name: str) -> int:
            async with self._busy[name]:
                return await asyncio.to_thread(self._one_more_mount, manifests[key("Volume", name)])

        return await lent(request.manifest.spec, mount, descriptors)

    async def detach(self, attempt_id: AttemptId) -> None:
        """Its mounts ended with it."""

    async def keep_only(self, live: frozenset[AttemptId]) -> None:
        """Likewise."""

    def _one_more_mount(self, manifest: ResourceManifest) -> int:
        assert isinstance(manifest, VolumeManifest)
        name = manifest.metadata.name
        if name not in self._held:
            raise VolumeError("is not on this host", where=f"volume {name}", todo=f"rnx get volume {name} tells why")
        path = f"{self._in_memory}/{name}"
        if manifest.spec.type is VolumeType.FILESYSTEM:
            return images.mount_image(f"{self._on_disk}/{name}/{IMAGE}")
        if os.path.exists(f"{path}/data/{IMAGE}") and not kernel_at_least(6, 3):
            return images.mount_image(f"{path}/data/{IMAGE}")
        return syscalls.open_tree(path, syscalls.OPEN_TREE_CLONE)


async def lent(spec: JobSpec, mount: Callable[[str], Awaitable[int]], descriptors: list[int]) -> dict[str, Any]:
    """What a job's launch spec says of its volumes. mount: one more of the volume of that name, whose descriptor goes to the
    others."""
    if not spec.volumes:
        return {}
    volumes: list[dict[str, Any]] = []
    for volume in spec.volumes:
        descriptors.append(await mount(volume.name))
        reached("volume.lent")
        index = len(descriptors) - 1
        volumes.append({"name": volume.name, "path": volume.path, "read_only": volume.read_only, "tree": index})
    return {"volumes": volumes, "own_root": spec.isolation.rootfs == "host" and need_own_root(volumes)}


def _volume(view: ResourceView) -> VolumeManifest:
    assert isinstance(view.manifest, VolumeManifest)
    return view.manifest


def _mount_memory(path: str, size: int) -> None:
    """A tmpfs of that size at least, with so many inodes that empty files do not fill the kernel's memory."""
    _check_memory(size, os.sysconf("SC_PHYS_PAGES"))
    options = f"size={size},nr_inodes={max(size // BYTES_AN_INODE, INODES_AT_LEAST)}"
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    if not os.path.ismount(path):
        os.makedirs(path, 0o700, exist_ok=True)
        syscalls.mount("tmpfs", path, "tmpfs", flags, f"mode=1777,{options}")
        reached("volume.memory-mounted")
        return
    present = os.statvfs(path)
    if present.f_blocks * present.f_frsize < size:
        syscalls.mount("", path, "", syscalls.MS_REMOUNT | flags, options)
        reached("volume.memory-grown")


def _check_memory(size: int, pages: int) -> None:
    if size > (there := pages * os.sysconf("SC_PAGE_SIZE")):
        what = f"needs {rounded(size)} of memory, and this host has {rounded(there)}"
        raise VolumeError(what, where="spec.size", todo="declare less, or type: filesystem")


def _discard(path: str) -> None:
    """Delete a directory, or a mounted tmpfs. Its files first: other mount namespaces may have copies of the mount."""
    if os.path.ismount(path):
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                remove_workspace(entry.path)
            else:
                os.unlink(entry.path)
        syscalls.umount2(path, syscalls.MNT_DETACH)
        os.rmdir(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)

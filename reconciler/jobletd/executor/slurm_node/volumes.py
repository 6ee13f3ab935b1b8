"""Volumes of a cluster: an image each in the shared directory, which one attempt at a time has, on whichever node it is.

<shared>/volumes/<name>/volume.img   an ext4 file system, as on one host
                        attached     who has it: node, boot and attempt; made by O_EXCL as an attempt's claim is

Two nodes that mount one image would destroy it, and a node that is cut off may still write. So nobody takes a volume away from
another node: that node gives it back, at the end of the attempt or when it clears away after one. It takes over itself what it
had before it was started anew. All of this waits for disks: call it in a thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from joblet.atomicfile import make_once, write_atomic
from joblet.manifest import JobManifest
from jobletd.executor import AttemptRequest
from jobletd.executor.local import volume_image as images
from jobletd.executor.local.volume_image import VolumeError
from jobletd.executor.local.volumes import IMAGE, lent
from jobletd.executor.slurm_node.directories import NodeDirectories
from jobletd.model import AttemptId, LimitStatus

ATTACHED = "attached"
RELEASED_WITHIN_SECONDS = 10.0
PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a volume."""

    attempt_id: str
    node: str
    boot_id: str

    def __str__(self) -> str:
        return f"attempt {self.attempt_id} on {self.node}" if self.attempt_id else "somebody who left no name"


UNNAMED = Holder("", "", "")


def volume_directory(shared_directory: str, name: str) -> str:
    return f"{shared_directory}/volumes/{name}"


def holder_of(directory: str) -> Holder | None:
    """None: nobody has it. Raises OSError."""
    try:
        with open(f"{directory}/{ATTACHED}", "rb") as file:
            document = json.load(file)
        return Holder(*(str(document[name]) for name in ("attempt_id", "node", "boot_id")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # torn by a power cut: somebody was about to have it
        return UNNAMED


def why_not(shared_directory: str, job: JobManifest, attempt_id: str) -> str:
    """Why an attempt cannot have its volumes now; empty if it can. Raises OSError."""
    for name in names_of(job):
        directory = volume_directory(shared_directory, name)
        holder = holder_of(directory)
        if holder is not None and holder.attempt_id != attempt_id:
            return f"waits for the volume {name}, which {holder} has: {how_to_free(holder, directory)}"
    return ""


def claim(directory: str, holder: Holder) -> bool:
    """Whether it is ours now. Durable, as the image may be written to from now on. Raises OSError."""
    return make_once(f"{directory}/{ATTACHED}", json.dumps(asdict(holder)).encode())


def give_back(directory: str) -> None:
    """Once all that was written is in the shared directory, and nobody here has it mounted. Raises VolumeError, OSError."""
    fd = os.open(f"{directory}/{IMAGE}", os.O_RDWR | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + RELEASED_WITHIN_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the loop device holds it as long as it has the image
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    todo = "joblet sandbox-exec --sweep, on this node, tries again"
                    raise VolumeError("is still mounted", where=directory, todo=todo) from None
                time.sleep(PAUSE_SECONDS)
        os.fsync(fd)
        os.unlink(f"{directory}/{ATTACHED}")
    finally:
        os.close(fd)


def give_all_back(shared_directory: str, attempt_id: str, names: Iterable[str]) -> None:
    """Those of these that an attempt of this node has. Raises VolumeError, OSError."""
    for name in names:
        directory = volume_directory(shared_directory, name)
        holder = holder_of(directory)
        if holder is not None and holder.attempt_id == attempt_id:
            give_back(directory)


def names_of(job: JobManifest) -> tuple[str, ...]:
    """The volumes that a job uses."""
    return tuple(volume.name for volume in job.spec.volumes)


class SharedVolumes:
    """See ``jobletd.executor.local.provider.Provider``. For the one attempt that sandbox-exec runs."""

    def __init__(
        self, shared_directory: str, names: Sequence[str], directories: NodeDirectories, node: str, boot_id: str
    ) -> None:
        self._shared = shared_directory
        self._names = names
        self._directories = directories
        self._node = node
        self._boot_id = boot_id

    async def attach(
        self,
        request: AttemptRequest,
        first_id: int,  # noqa: ARG002
        descriptors: list[int],
        limits: list[LimitStatus],  # noqa: ARG002
    ) -> dict[str, Any]:
        async def mount(name: str) -> int:
            return await asyncio.to_thread(self._mount, name, request.attempt_id)

        return await lent(request.manifest.spec, mount, descriptors)

    async def detach(self, attempt_id: AttemptId) -> None:
        """Its mounts ended with it."""
        await asyncio.to_thread(give_all_back, self._shared, attempt_id, self._names)

    async def keep_only(self, live: frozenset[AttemptId]) -> None:
        """There is but one attempt, which clears away after itself, or is cleared away after."""

    def _mount(self, name: str, attempt_id: str) -> int:
        directory = volume_directory(self._shared, name)
        if not os.path.exists(f"{directory}/{IMAGE}"):
            todo = "declare it with spec.executor: slurm"
            raise VolumeError("is not in the shared directory", where=f"volume {name}", todo=todo)
        ours = Holder(attempt_id, self._node, self._boot_id)
        with self._directories.alone():
            if not claim(directory, ours):
                self._take_over(name, directory, ours)
        return images.mount_image(f"{directory}/{IMAGE}")

    def _take_over(self, name: str, directory: str, ours: Holder) -> None:
        """From this node itself, if its attempt is gone. ``alone`` keeps others of this node out, and no other node does it."""
        holder = holder_of(directory) or UNNAMED
        is_gone = (
            holder.attempt_id == ours.attempt_id
            or holder.boot_id != self._boot_id
            or not os.path.exists(self._directories.live(holder.attempt_id))
        )
        if holder.node != self._node or not is_gone:
            todo = how_to_free(holder, directory)
            raise VolumeError(f"{holder} has it", where=f"volume {name}", todo=todo)
        write_atomic(f"{directory}/{ATTACHED}", json.dumps(asdict(ours)).encode(), durable=True)


def how_to_free(holder: Holder, directory: str) -> str:
    """For people, who can know what no other node can."""
    where = f"on {holder.node}" if holder.node else "on its node"
    return (
        f"wait for its end; if its node was lost, joblet sandbox-exec --sweep {where} gives it back; only if that "
        f"node is off for good, remove {directory}/{ATTACHED}"
    )


def plain_holder(holder: Holder | None) -> Mapping[str, str]:
    """For the status of a volume."""
    return {} if holder is None else {"attached": str(holder)}

"""An attempt's /work: in memory, or a file system of its own in an image on the host's disk; bounded in every case."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from joblet.cgroup.hierarchy import readable_size
from joblet.errors import JobletError
from joblet.manifest import Limits
from joblet.sandbox.syscalls import fallocate
from jobletd.executor.local.settings import LocalSettings

IMAGE = "disk.ext4"
SMALLEST_BYTES = 1 << 20
RESERVE_BYTES = 1 << 30  # of the host's disk, or a twentieth of it, that workspaces leave alone


class WorkspaceError(JobletError):
    """The workspace could not be made."""


def can_limit_disk() -> bool:
    """Whether this host has loop devices and mkfs.ext4."""
    return os.path.exists("/dev/loop-control") and mkfs() is not None


def mkfs() -> str | None:
    return shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")


@dataclass(frozen=True, slots=True)
class Bound:
    """How large a workspace is. in_memory: a tmpfs, whose files count as the job's memory; else a file system in an image."""

    bytes: int
    in_memory: bool


def bound_of(limits: Limits, settings: LocalSettings, *, has_loop: Callable[[], bool]) -> Bound:
    """There always is one, so that no job fills the host's disk.

    What was not asked for shall not cost the job its memory: at most half of it, so that a full workspace means ENOSPC. A
    limit on I/O means a disk.
    """
    memory = limits.memory_bytes
    if limits.disk_bytes is None and limits.io is None:
        size = settings.default_disk_bytes
        return Bound(size if memory is None else max(min(size, memory // 2), SMALLEST_BYTES), in_memory=True)
    size = limits.disk_bytes or settings.default_disk_bytes
    small = size <= settings.memory_disk_bytes and (memory is None or size <= memory // 2)
    return Bound(size, in_memory=(small and limits.io is None) or not has_loop())


async def make_workspace(directory: str, bound: Bound, owner: int) -> dict[str, Any]:
    """Make it, empty; returns its description for the launch spec. owner: host id. Raises WorkspaceError, OSError."""
    if bound.in_memory:
        return {"type": "tmpfs", "bytes": bound.bytes}
    os.mkdir(directory, 0o700)
    image = f"{directory}/{IMAGE}"
    await asyncio.to_thread(make_image, image, bound.bytes)
    # No journal: nobody reads this file system after a crash.
    options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", f"root_owner={owner}:{owner},nodiscard"]
    process = await asyncio.create_subprocess_exec(
        mkfs() or "mkfs.ext4", *options, image, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env={},
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        last = output.decode(errors="replace").strip().splitlines()[-1:]
        raise WorkspaceError(
            f"mkfs.ext4 failed: {' '.join(last)}",
            where="spec.limits.disk",
            todo="raise the limit: 1Mi is too little for some",
        )
    return {"type": "loop", "image": image}


def make_image(path: str, size: int) -> None:
    """A file whose blocks are taken at once: a job that fills its workspace later finds them, and the host loses nothing more.

    Raises WorkspaceError where that would leave the host without a reserve, OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        disk = os.fstatvfs(fd)
        reserve = min(disk.f_blocks * disk.f_frsize // 20, RESERVE_BYTES)
        free = disk.f_bavail * disk.f_frsize - reserve
        if size > free:
            raise WorkspaceError(
                f"the host's disk has {readable_size(max(free, 0))} left for workspaces, less than {readable_size(size)}",
                where="spec.limits.disk",
                todo="lower the limit, or make room",
            )
        os.ftruncate(fd, size)
        try:
            fallocate(fd, size)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # not every file system can: there it takes blocks as they are written
                raise
    finally:
        os.close(fd)


def remove_workspace(directory: str) -> None:
    """Delete it with all that is in it, following no link (rmtree works on descriptors here)."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except (RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EMFILE:
            raise
        _flatten(directory)  # a job may nest directories deeper than rmtree goes
        shutil.rmtree(directory)


def _flatten(directory: str) -> None:
    """Move each directory below to the top, so that none is deep."""
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        waiting = _directories(top)
        prefix = f".deep-{os.urandom(8).hex()}"  # a name that the job cannot have taken
        count = 0
        while waiting:
            fd = os.open(waiting.pop(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            try:
                for name in _directories(fd):
                    count += 1
                    os.rename(name, f"{prefix}-{count}", src_dir_fd=fd, dst_dir_fd=top)
                    waiting.append(f"{prefix}-{count}")
            finally:
                os.close(fd)
    finally:
        os.close(top)


def _directories(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

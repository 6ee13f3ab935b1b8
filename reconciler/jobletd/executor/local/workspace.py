"""An attempt's /work on the host: a directory, or a file system of its own where the disk is limited."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from typing import Any

from joblet.errors import JobletError

IMAGE = "disk.ext4"


class WorkspaceError(JobletError):
    """The workspace could not be made."""


def can_limit_disk() -> bool:
    """Whether this host has loop devices and mkfs.ext4."""
    return os.path.exists("/dev/loop-control") and mkfs() is not None


def mkfs() -> str | None:
    return shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")


async def make_workspace(directory: str, disk_bytes: int | None, owner: int) -> dict[str, Any]:
    """Make it, empty; returns its description for the launch spec. owner: host id. Raises WorkspaceError, OSError."""
    os.mkdir(directory, 0o711)
    if disk_bytes is None:
        path = f"{directory}/work"
        os.mkdir(path, 0o755)
        return {"type": "directory", "path": path}
    if not can_limit_disk():
        return {"type": "tmpfs", "bytes": disk_bytes}
    image = f"{directory}/{IMAGE}"
    fd = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, disk_bytes)
    finally:
        os.close(fd)
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

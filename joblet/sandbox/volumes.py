"""Volumes in a job's new root: each comes as a mount that is nowhere yet, gets the job's ids, and is put into its place.

Imported only for jobs that have some. The paths lie in directories that a job or a stranger's root file system may have
furnished, links included, so they are walked part by part and no link is followed.
"""

from __future__ import annotations

import os

from joblet.sandbox.syscalls import (
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    mount_setattr,
    move_mount,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WRITABLE_PLACES = ("work", "tmp", "run")  # of every job's root: their own mounts
_WALK = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def need_own_root(volumes: list[dict[str, Any]]) -> bool:
    """Whether one of them has its place in the root itself, which is the same read-only one for all jobs."""
    return any(volume["path"].split("/")[1] not in WRITABLE_PLACES for volume in volumes)


def make_own_root(template: str, root: str) -> None:
    """A root for this job alone at ``root``, a directory of the template: what the template has, and room for more names."""
    mount("tmpfs", root, "tmpfs", MS_NOSUID, "mode=0755,size=1m,nr_inodes=256")
    for entry in os.scandir(template):
        target = f"{root}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
            continue
        os.mkdir(target, 0o755)
        links = None if os.path.ismount(entry.path) else _links_alone(entry.path)
        if links is not None:  # made anew: a volume's place may be below it
            for name in links:
                os.symlink(os.readlink(f"{entry.path}/{name}"), f"{target}/{name}")
        elif entry.path != root:
            mount(entry.path, target, "", MS_BIND | MS_REC)


def _links_alone(directory: str) -> list[str] | None:
    """The names in it if all are links; None if there is anything else."""
    with os.scandir(directory) as entries:
        found = list(entries)
    return [entry.name for entry in found] if all(entry.is_symlink() for entry in found) else None


def seal_own_root(root: str) -> None:
    """No further names: as read-only as the template."""
    mount("", root, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


def mount_volumes(
    root: str, volumes: list[dict[str, Any]], given: list[int], user_namespace: int, owner: tuple[int, int]
) -> None:
    """Put each into its place below ``root``. given: the descriptors that the volumes name by their index in it.

    user_namespace: the command's, whose map the mounts take: what is stored as id 0 belongs to the job's root, whatever range
    of host ids the job got. owner: host ids of the directories that are made on the way. Leaves the working directory
    elsewhere. Raises OSError that names the volume's path.
    """
    for volume in volumes:
        tree, path = given[volume["tree"]], volume["path"]
        attributes = MOUNT_ATTR_IDMAP | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        if volume["read_only"]:
            attributes |= MOUNT_ATTR_RDONLY
        try:
            mount_setattr(tree, attr_set=attributes, userns_fd=user_namespace, propagation=MS_PRIVATE)
            enter(root, path, owner)
            move_mount(tree, ".")
        except OSError as error:
            raise OSError(error.errno, f"volume {volume['name']}: {error.strerror}", path) from None


def enter(root: str, path: str, owner: tuple[int, int]) -> None:
    """Make ``path`` below ``root`` the working directory; what is not there is made, a link is an error."""
    fd = os.open(root, _WALK)
    try:
        for part in path.strip("/").split("/"):
            try:
                os.mkdir(part, 0o755, dir_fd=fd)
                os.chown(part, *owner, dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                pass
            below = os.open(part, _WALK, dir_fd=fd)
            os.close(fd)
            fd = below
        os.fchdir(fd)
    finally:
        os.close(fd)

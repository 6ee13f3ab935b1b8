"""Cgroups of one attempt below those that this process is in, whoever made them: an engine that gave us an allocation.

Nothing here leaves what that engine has made: each controller's cgroup is a child of our own one in that tree, which in v1 may be
another one for each. The freezer is left alone, since an engine that kills by it looks into no child.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from joblet.cgroup import files
from joblet.cgroup.detect import mounted
from joblet.cgroup.errors import CgroupError
from joblet.cgroup.hierarchy import CONTROLLERS, DAEMON, INITS, JOB_PREFIX, ROOT
from joblet.cgroup.removal import remove_if_empty, remove_tree
from joblet.cgroup.v1 import V1Hierarchy
from joblet.cgroup.v2 import V2Hierarchy

PREFIX = "joblet-"
_OF_A_JOB = re.compile(r"(job|step|task)_[a-z0-9]+|user")  # as Slurm names them


class NestedV1(V1Hierarchy):
    """In each tree ``joblet-<name>`` below our own cgroup there."""

    def __init__(self, name: str, enabled: frozenset[str], mounts: dict[str, str], unified: str | None) -> None:
        directory = f"{PREFIX}{name}"
        mounts = {controller: point for controller, point in mounts.items() if controller != "freezer"}
        super().__init__(f"{ROOT}/{directory}", mounts, unified, enabled)
        own = own_cgroups()
        self._trees = {
            controller: f"{_inside(mounts[controller], own.get(controller, '/'))}/{directory}"
            for controller in self._trees
        }
        if unified:
            self._unified = f"{_inside(unified, own.get('', '/'))}/{directory}"
        trees = [self._trees[controller] for controller in (*self._always, "cpuset") if controller in self._trees]
        self._bases = tuple(dict.fromkeys((*trees, *([self._unified] if self._unified else []))))

    def remains(self, attempt_id: str) -> list[str]:  # noqa: ARG002
        """What is to be removed if we are killed."""
        return list(self._bases)


class NestedV2(V2Hierarchy):
    """Our own cgroup itself, in which we move into a leaf for as long as it has children with controllers."""

    def __init__(self, enabled: frozenset[str]) -> None:
        own = _inside(ROOT, own_cgroups().get("", "/"))
        if os.path.basename(own) == DAEMON:  # we have been here before
            own = os.path.dirname(own)
        super().__init__(own, enabled=enabled)

    def remains(self, attempt_id: str) -> list[str]:
        """As in v1."""
        return [f"{self._base}/{name}" for name in (f"{JOB_PREFIX}{attempt_id}", INITS, DAEMON)]

    def lock(self) -> None:
        """It is ours alone: nobody else is in this allocation."""

    def remove_base(self) -> None:
        """Leave it as it was: without children, and with us in it."""
        remove_if_empty(f"{self._base}/{INITS}")
        enabled = (files.read(f"{self._base}/cgroup.subtree_control") or "").split()
        if enabled:
            files.write(f"{self._base}/cgroup.subtree_control", " ".join(f"-{name}" for name in enabled))
        files.write(f"{self._base}/cgroup.procs", str(os.getpid()))
        remove_if_empty(f"{self._base}/{DAEMON}")


def open_nested(name: str, enabled: frozenset[str] = CONTROLLERS) -> NestedV1 | NestedV2:
    """For the attempt of that name. Nothing is made yet. Raises CgroupError where there are no cgroups, or ours are not seen."""
    v1, v2 = mounted()
    if v2 == ROOT:
        return NestedV2(enabled)
    if v1:
        return NestedV1(name, enabled, v1, v2)
    raise CgroupError("no cgroup hierarchy is mounted", where=ROOT, todo="see joblet doctor")


def own_cgroups() -> dict[str, str]:
    """Where this process is: path by controller, that of the v2 tree by an empty name."""
    found: dict[str, str] = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


def remove_nested(remains: Iterable[str], seconds: float) -> None:
    """What an attempt whose process was killed has left behind, and the engine's own cgroups around it that it could not remove
    because of that. Raises CgroupError if there still are processes after so long."""
    for path in remains:
        remove_tree(path, seconds)
        parent = os.path.dirname(path)
        while _OF_A_JOB.fullmatch(os.path.basename(parent)):
            try:
                os.rmdir(parent)
            except OSError:  # the job goes on, or the engine was faster
                break
            parent = os.path.dirname(parent)


def _inside(mount: str, path: str) -> str:
    """Our own cgroup as a directory. Raises CgroupError."""
    directory = os.path.normpath(f"{mount}/{path.strip('/')}")
    if ".." in path.split("/") or not os.path.isdir(directory):
        raise CgroupError(
            "our own cgroup is not to be seen here",
            where=f"{mount}{path}",
            todo="mount the cgroups as the host has them",
        )
    return directory

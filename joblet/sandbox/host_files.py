"""What an init takes from the host's tree when it gets work, as descriptors: its own root, in which it stands by then, has none
of it.

A detour into the launcher's mount namespace opens them all; mounts come along as copies that are nowhere yet.
"""

from __future__ import annotations

import os
import sys

from joblet.sandbox import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_TREE = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE


class HostFiles:
    """Of one attempt. Raises OSError that names the path.

    cgroups: the directories of what the exit record quotes and of what tells of an OOM kill, by path. log: the log's directory.
    contents: directories of uploaded files, by path. trees: what ``plan_job`` mounts.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        """In the host's tree, once the attempt's cgroups are there."""
        import_for(spec)
        plan = spec["cgroup"]
        paths = (*plan["usage"].values(), *(plan["oom"] or {}).values())
        directories = {path.rpartition("/")[0] for path in paths}
        self.cgroups = {path: os.open(path, DIRECTORY) for path in directories}
        self.log = os.open(os.path.dirname(spec["log_path"]), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.contents: dict[str, int] = {}
        for file in spec["files"]:
            if "host_path" in file and (directory := os.path.dirname(file["host_path"])) not in self.contents:
                self.contents[directory] = os.open(directory, DIRECTORY)
        self.trees: dict[str, Any] = {}
        if spec["rootfs"] != "host":
            # The second one for a file system that cannot map ids: what was tried with a copy stays with it.
            self.trees["rootfs"] = [syscalls.open_tree(spec["rootfs"], _TREE) for _ in range(2)]
        if bound := spec.get("etc_bound"):
            self.trees["etc"] = {
                name: syscalls.open_tree(path, syscalls.OPEN_TREE_CLONE) for name, path in bound.items()
            }
        if views := spec.get("cgroup_view"):
            self.trees["cgroup"] = {
                name: syscalls.open_tree(path, syscalls.OPEN_TREE_CLONE) for name, path in views.items()
            }
        if upkeep := spec.get("upkeep"):
            self.trees["upkeep"] = syscalls.open_tree(upkeep, syscalls.OPEN_TREE_CLONE)
        if spec["workspace"]["type"] == "loop":
            from joblet.sandbox.loop_device import attach  # only jobs with a large disk limit pay for it

            fd, device = attach(spec["workspace"]["image"])
            try:
                self.trees["workspace"] = syscalls.mount_detached("ext4", device, {})
            finally:
                os.close(fd)  # the mount holds the device; it frees itself with the last mount


def import_for(spec: dict[str, Any]) -> None:
    """What only some jobs need: later there is no way to it."""
    if "volumes" in spec or spec.get("own_root"):
        import joblet.sandbox.volumes
    if spec["secrets"]:
        import joblet.sandbox.secret_files  # noqa: F401


def forbid_imports() -> None:
    """The modules' path leads into a job's own files from here on."""
    sys.path.clear()
    sys.meta_path.clear()

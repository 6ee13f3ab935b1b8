"""What the kernel lets us do, found out by doing it, in a short-lived process of its own.

Run as a script by ``HostFeatures.probe``: the raw calls need a process with one thread, and whatever they make ends with it.
Each trial forks; nothing on the host is changed, no kernel module is loaded. Prints one JSON object, trial to error text; an
empty text is success.
"""

import json
import os
import select
import sys
from collections.abc import Callable

ALLOW_ALL = b"\x06\x00\x00\x00\x00\x00\xff\x7f"  # BPF_RET, SECCOMP_RET_ALLOW
NAMESPACES = ("user", "pid", "mount", "network", "ipc", "uts", "cgroup")
WAIT_MS = 10_000
HIGHEST_FD = 0x7FFF_FFFF


def in_child(action: Callable[[], object]) -> str:
    """Do it in a forked child. Returns the error's text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except OSError as error:
            os.write(write, (error.strerror or "failed").encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read().decode()
    _, status = os.waitpid(pid, 0)
    return text or ("" if status == 0 else f"ended by signal {status & 0x7F}")


def attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return error.strerror or "failed"
    return ""


def map_ids_of_a_mount(place: str) -> None:
    """An idmapped copy of the mount that a directory lies on, or the nearest one above that is there; it is put nowhere."""
    from joblet.sandbox import syscalls

    while not os.path.isdir(place):
        place = os.path.dirname(place)
    read, write = os.pipe()
    pid, _ = syscalls.clone3(syscalls.CLONE_NEWUSER)
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write("0 2000000000 65536\n")
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        tree = syscalls.open_tree(place, syscalls.OPEN_TREE_CLONE)
        syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def main(package_directory: str, state_directory: str) -> None:
    sys.path.insert(0, package_directory)
    from joblet.sandbox import syscalls

    flags = {
        "user": syscalls.CLONE_NEWUSER,
        "pid": syscalls.CLONE_NEWPID,
        "mount": syscalls.CLONE_NEWNS,
        "network": syscalls.CLONE_NEWNET,
        "ipc": syscalls.CLONE_NEWIPC,
        "uts": syscalls.CLONE_NEWUTS,
        "cgroup": syscalls.CLONE_NEWCGROUP,
    }

    def clone(flag: int = 0, cgroup_fd: int | None = None) -> None:
        pid, pidfd = syscalls.clone3(flag, cgroup_fd)
        if pid == 0:
            os._exit(0)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(WAIT_MS)
        os.close(pidfd)
        os.waitpid(pid, 0)

    def map_users() -> None:
        read, write = os.pipe()
        pid, _ = syscalls.clone3(syscalls.CLONE_NEWUSER)
        if pid == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is done with us
            os._exit(0)
        os.close(read)
        try:
            with open(f"/proc/{pid}/uid_map", "w") as file:
                file.write("0 2000000000 65536\n")
        finally:
            os.close(write)
            os.waitpid(pid, 0)

    def clone_into_own_cgroup() -> None:
        with open("/proc/self/cgroup") as file:
            own = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), None)
        mounts = [
            path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(f"{path}/cgroup.procs")
        ]
        if own is None or not mounts:
            raise FileNotFoundError(2, "no v2 tree")
        fd = os.open(mounts[0] + own, os.O_RDONLY | os.O_DIRECTORY)
        try:
            clone(cgroup_fd=fd)
        finally:
            os.close(fd)

    def mount_tmpfs() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("tmpfs", "/tmp", "tmpfs")  # noqa: S108  seen by this child alone

    def seccomp() -> None:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.set_seccomp_filter(ALLOW_ALL)

    def close_range() -> None:
        syscalls.close_range(HIGHEST_FD)  # of which there is none: what is open here tells how it went

    found = {name: in_child(lambda name=name: syscalls.unshare(flags[name])) for name in NAMESPACES}  # type: ignore[misc]
    found["mapping"] = attempt(map_users)
    found["mounts"] = in_child(mount_tmpfs)
    found["idmap"] = in_child(lambda: map_ids_of_a_mount(state_directory))
    found["seccomp"] = in_child(seccomp)
    found["close_range"] = in_child(close_range)
    found["clone3"] = attempt(clone)
    found["pidfd"] = in_child(lambda: os.close(os.pidfd_open(os.getpid())))
    found["clone_into_cgroup"] = attempt(clone_into_own_cgroup)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])

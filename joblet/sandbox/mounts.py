"""The mount plan of a job's new root, as data.

An operation is a tuple: its name and its arguments. ``plan_template`` describes the read-only root that the launcher builds
once in a mount namespace of its own; ``plan_spare`` and ``plan_job`` what each job adds to its copy. All are pure;
``execute`` touches the kernel.
"""

from __future__ import annotations

import errno
import os
import stat

from joblet.sandbox.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
)

TYPE_CHECKING = False  # typing itself would cost the launcher 15 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SYSTEM_DIRECTORIES = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# What programs look up in /etc; all else of the host's /etc stays out.
ETC_COPIES = ("ld.so.cache", "localtime", "timezone", "alternatives", "ssl/certs", "ssl/openssl.cnf", "resolv.conf")
ETC_FILES = {
    "passwd": "root:x:0:0:root:/work:/bin/sh\nnobody:x:65534:65534:nobody:/work:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
DEVICE_LINKS = {
    **{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"},
    **{"ptmx": "pts/ptmx", "core": "/proc/kcore"},
}
# As container runtimes have them: what tells about the host, and what changes it.
MASKED_PATHS = (
    *("kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "interrupts", "kpagecount"),
    *("kpageflags", "kpagecgroup", "kallsyms", "kmsg", "mtrr", "acpi", "asound", "scsi"),
)
READ_ONLY_PATHS = ("bus", "fs", "irq", "sys", "sysrq-trigger")
COPY_BYTES_AT_MOST = 8 << 20


def plan_template(root: str) -> list[tuple[Any, ...]]:
    """The operations that build the template at ``root``, an empty directory."""
    plan: list[tuple[Any, ...]] = [
        ("tmpfs", root, "mode=0755,size=32m", MS_NOSUID),
        *(("system", f"/{name}", f"{root}/{name}") for name in SYSTEM_DIRECTORIES),
        *(("directory", f"{root}/{name}", 0o755) for name in ("etc", "etc/ssl", "dev", "dev/pts", "dev/shm", "proc")),
        *(("directory", f"{root}/{name}", 0o755) for name in ("work", "tmp", "run", "var", "sys", "opt", "mnt")),
        ("symlink", "/tmp", f"{root}/var/tmp"),
        ("symlink", "/run", f"{root}/var/run"),
        *(("copy", f"/etc/{name}", f"{root}/etc/{name}") for name in ETC_COPIES),
        *(("file", f"{root}/etc/{name}", text) for name, text in ETC_FILES.items()),
        *(("device", f"{root}/dev/{name}", *number) for name, number in DEVICES.items()),
        *(("symlink", target, f"{root}/dev/{name}") for name, target in DEVICE_LINKS.items()),
        ("read-only", root, MS_NOSUID),
    ]
    return plan


def plan_spare(template: str) -> list[tuple[Any, ...]]:
    """What every job with the host's system directories adds to its copy of the template, whatever its spec."""
    return _plan_kernel_files(template, template)


def plan_job(template: str, spec: dict[str, Any]) -> tuple[list[tuple[Any, ...]], str]:
    """What a job's spec adds to that, and its new root's path. spec: the launch spec."""
    root = template
    plan: list[tuple[Any, ...]] = []
    if spec["rootfs"] != "host":
        root = f"{template}/run/root"
        plan += [
            ("tmpfs", f"{template}/run", "mode=0755,size=64m", MS_NODEV),
            *(("directory", f"{template}/run/{name}", 0o755) for name in ("upper", "work", "root")),
            ("overlay", spec["rootfs"], f"{template}/run/upper", f"{template}/run/work", root),
            *(("directory", f"{root}/{name}", 0o755) for name in ("dev", "proc", "work", "tmp")),
            ("bind", f"{template}/dev", f"{root}/dev", MS_NOSUID | MS_NOEXEC | MS_RDONLY),
            *_plan_kernel_files(root, template),
        ]
    elif spec["script"] is not None:
        plan.append(("tmpfs", f"{root}/run", "mode=0755,size=4m", MS_NOSUID | MS_NODEV))
    tmp = f"mode=1777,size={spec['tmp_bytes']}"
    plan += [
        ("tmpfs", f"{root}/tmp", tmp, MS_NOSUID | MS_NODEV),
        ("tmpfs", f"{root}/dev/shm", tmp, MS_NOSUID | MS_NODEV | MS_NOEXEC),
        ("workspace", spec["workspace"], f"{root}/work"),
    ]
    if spec["network"] == "host":
        plan.append(("resolv", "/etc/resolv.conf", f"{root}/etc/resolv.conf"))
    plan += [("etc", source, root, name) for name, source in spec.get("etc", {}).items()]
    return plan, root


def _plan_kernel_files(root: str, template: str) -> list[tuple[Any, ...]]:
    """/proc of the job's own pid namespace, masked, and terminals of its own."""
    return [
        ("proc", f"{root}/proc"),
        *(("mask", f"{root}/proc/{name}", f"{template}/dev/null") for name in MASKED_PATHS),
        *(("protect", f"{root}/proc/{name}") for name in READ_ONLY_PATHS),
        ("devpts", f"{root}/dev/pts"),
    ]


def execute(plan: list[tuple[Any, ...]]) -> None:
    """Carry the plan out, in its order. Raises OSError naming the path concerned."""
    for name, *arguments in plan:
        _DO[name](*arguments)


def _tmpfs(target: str, data: str, flags: int) -> None:
    mount("tmpfs", target, "tmpfs", flags, data)


def _bind(source: str, target: str, flags: int) -> None:
    mount(source, target, "", MS_BIND)
    mount("", target, "", MS_REMOUNT | MS_BIND | flags)


def _system(source: str, target: str) -> None:
    """A system directory of the host: the same link where it is one, else a read-only bind."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
    elif os.path.isdir(source):
        os.mkdir(target, 0o755)
        mount(source, target, "", MS_BIND | MS_REC)
        mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _directory(path: str, mode: int) -> None:
    if not os.path.isdir(path):
        os.mkdir(path, mode)
        os.chmod(path, mode)


def _file(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o644)


def _copy(source: str, target: str) -> None:
    """Copy a file or a tree of files and links that belong to everybody; what is missing or too large is left out."""
    try:
        status = os.stat(source, follow_symlinks=not source.startswith("/etc/alternatives"))
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode):
        os.makedirs(target, 0o755, exist_ok=True)
        for entry in os.scandir(source):
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), f"{target}/{entry.name}")
            else:
                _copy(entry.path, f"{target}/{entry.name}")
    elif stat.S_ISREG(status.st_mode) and status.st_mode & 0o004 and status.st_size <= COPY_BYTES_AT_MOST:
        with open(source, "rb") as reader, open(target, "wb") as writer:
            writer.write(reader.read())
        os.chmod(target, 0o644)


def _symlink(target: str, path: str) -> None:
    os.symlink(target, path)


def _device(path: str, major: int, minor: int) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.chmod(path, 0o666)


def _read_only(target: str, flags: int) -> None:
    mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | flags)


def _overlay(lower: str, upper: str, work: str, target: str) -> None:
    if any(character in lower for character in ",:\\"):
        raise OSError(22, "a root file system's path may not contain , : or \\", lower)
    mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, f"lowerdir={lower},upperdir={upper},workdir={work}")


def _proc(target: str) -> None:
    mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _mask(target: str, null: str) -> None:
    """Hide a file behind /dev/null, a directory behind an empty read-only tmpfs."""
    try:
        is_directory = stat.S_ISDIR(os.stat(target).st_mode)
    except FileNotFoundError:
        return
    if is_directory:
        mount("tmpfs", target, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k")
    else:
        mount(null, target, "", MS_BIND)


def _protect(target: str) -> None:
    if os.path.lexists(target):
        _bind(target, target, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _devpts(target: str) -> None:
    mount("devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")


def _workspace(workspace: dict[str, Any], target: str) -> None:
    flags = MS_NOSUID | MS_NODEV
    if workspace["type"] == "tmpfs":
        mount("tmpfs", target, "tmpfs", flags, f"mode=0755,size={workspace['bytes']}")
    elif workspace["type"] == "loop":
        from joblet.sandbox.loop_device import attach  # only jobs with a disk limit pay for it

        fd, device = attach(workspace["image"])
        try:
            mount(device, target, "ext4", flags)
        finally:
            os.close(fd)  # the mount holds the device; it frees itself with the last mount
    else:
        _bind(workspace["path"], target, flags)


def _resolv(source: str, target: str) -> None:
    if os.path.exists(source) and os.path.exists(target):
        _bind(os.path.realpath(source), target, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _etc(source: str, root: str, name: str) -> None:
    """A file of the host as one of /etc, where it goes on changing. Links in a root file system of the job's are not followed."""
    directory, target = f"{root}/etc", f"{root}/etc/{name}"
    if os.path.islink(directory):
        raise OSError(errno.ELOOP, "may not be a link in a root file system", "/etc")
    try:
        if os.path.islink(target):
            os.unlink(target)
        if not os.path.exists(target):
            os.makedirs(directory, 0o755, exist_ok=True)
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    except OSError as error:
        if error.errno == errno.EROFS:
            return  # the host itself has no such file
        raise
    _bind(source, target, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


_DO: dict[str, Callable[..., None]] = {
    **{"tmpfs": _tmpfs, "bind": _bind, "system": _system, "directory": _directory, "file": _file, "copy": _copy},
    **{"symlink": _symlink, "device": _device, "read-only": _read_only, "overlay": _overlay, "proc": _proc},
    **{
        "mask": _mask,
        "protect": _protect,
        "devpts": _devpts,
        "workspace": _workspace,
        "resolv": _resolv,
        "etc": _etc,
    },
}

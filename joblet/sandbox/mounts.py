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
    MNT_DETACH,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    mount_setattr,
    move_mount,
    umount2,
)

TYPE_CHECKING = False  # typing itself would cost the launcher 15 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SYSTEM_DIRECTORIES = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# What programs look up in /etc; all else of the host's /etc stays out.
ETC_COPIES = (
    *("ld.so.cache", "localtime", "timezone", "alternatives"),
    *("ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted/pem"),
)
ETC_FILES = {"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n"}
# Each job has its own, below JOB_ETC; where there is none, the link leads nowhere.
ETC_OF_THE_JOB = ("passwd", "group", "hosts", "hostname", "resolv.conf")
JOB_ETC = "run/joblet/etc"
CGROUP_VIEW = "sys/fs/cgroup"
UPKEEP = "run/joblet/upkeep"  # of jobs that may ask the daemon for something: a socket to it
ETC_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
# What programs look up to know how many processors there are, and how memory lies.
SYS_DIRECTORIES = ("devices/system/cpu", "devices/system/node", "kernel/mm/transparent_hugepage")
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
# Of a root file system of the job's own: these must be directories, never links, since we work on them from outside.
PLACES = ("dev", "proc", "sys", "run", "work", "tmp", "etc")
NO_NAMESPACE = -1
CANNOT_MAP = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
COPY_BYTES_AT_MOST = 8 << 20
RUN_BYTES = 4 << 20
TERMINALS = 64
BYTES_AN_INODE = 4096  # at least, on a tmpfs: so that empty files do not fill the kernel's memory
INODES_AT_LEAST = 1024


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
        *(("symlink", f"/{JOB_ETC}/{name}", f"{root}/etc/{name}") for name in ETC_OF_THE_JOB),
        *(("sys", f"/sys/{name}", f"{root}/sys/{name}") for name in SYS_DIRECTORIES),
        *(("directory", f"{root}/{name}", 0o755) for name in ("sys/fs", CGROUP_VIEW)),
        *(("device", f"{root}/dev/{name}", *number) for name, number in DEVICES.items()),
        *(("symlink", target, f"{root}/dev/{name}") for name, target in DEVICE_LINKS.items()),
        ("read-only", root, MS_NOSUID),
    ]
    return plan


def plan_spare(template: str) -> list[tuple[Any, ...]]:
    """What every job with the host's system directories adds to its copy of the template, whatever its spec."""
    return [*_plan_kernel_files(template, template), *_plan_run(template)]


def plan_job(
    template: str, spec: dict[str, Any], trees: dict[str, Any], user_namespace: int = NO_NAMESPACE
) -> tuple[list[tuple[Any, ...]], str]:
    """What a job's spec adds to that, and its new root's path: ``template``, unless it needs one of its own.

    template: the path of the copy of the template; empty, if that is our root. spec: the launch spec. trees: mounts of the host
    that are nowhere yet, see ``HostFiles``. user_namespace: the command's.
    """
    root = template
    plan: list[tuple[Any, ...]] = []
    bound: dict[str, int] = trees.get("etc", {})  # files of the host that go on changing
    etc = {**spec["etc"], **dict.fromkeys(bound, "")}
    if spec.get("own_root"):
        root = f"{template}/mnt"
        plan.append(("own-root", template, root))
    if spec["rootfs"] != "host":
        root = f"{template}/run/root"
        plan += [
            ("tmpfs", f"{template}/run", tmpfs_options(spec["root_bytes"], "0755"), MS_NODEV),
            *(("directory", f"{template}/run/{name}", 0o755) for name in ("lower", "upper", "work", "root")),
            ("own", f"{template}/run/upper", spec["id_base"]),
            ("overlay", trees["rootfs"], f"{template}/run", root, user_namespace),
            *(("place", f"{root}/{name}") for name in PLACES),
            ("bind", f"{template}/dev", f"{root}/dev", MS_NOSUID | MS_NOEXEC | MS_RDONLY),
            ("tree", f"{template}/sys", f"{root}/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY),
            *_plan_kernel_files(root, template),
            *_plan_run(root),
            *(("replace", f"{root}/etc", name, f"/{JOB_ETC}/{name}") for name in ETC_OF_THE_JOB if name in etc),
        ]
    tmp = tmpfs_options(spec["tmp_bytes"], "1777")
    plan += [
        *(("file", f"{root}/{JOB_ETC}/{name}", text) for name, text in etc.items()),
        *(("attach", tree, f"{root}/{JOB_ETC}/{name}", ETC_FLAGS) for name, tree in bound.items()),
        *_plan_upkeep(root, trees),
        *_plan_cgroup_view(root, trees),
        ("tmpfs", f"{root}/tmp", tmp, MS_NOSUID | MS_NODEV),
        ("tmpfs", f"{root}/dev/shm", tmp, MS_NOSUID | MS_NODEV | MS_NOEXEC),
        workspace(spec["workspace"], trees, f"{root}/work"),
    ]
    return plan, root


def _plan_upkeep(root: str, trees: dict[str, Any]) -> list[tuple[Any, ...]]:
    if "upkeep" not in trees:
        return []
    place = f"{root}/{UPKEEP}"
    return [("directory", place, 0o755), ("attach", trees["upkeep"], place, MS_RDONLY | MS_NOSUID | MS_NODEV)]


def _plan_cgroup_view(root: str, trees: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The job's own cgroup where the configuration shows it: one directory, or with cgroup v1 one for each hierarchy."""
    views: dict[str, int] = trees.get("cgroup", {})
    if not views:
        return []
    place = f"{root}/{CGROUP_VIEW}"
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    if "" in views:
        return [("attach", views[""], place, flags)]
    return [
        ("tmpfs", place, tmpfs_options(BYTES_AN_INODE, "0755"), flags & ~MS_RDONLY),
        *(("directory", f"{place}/{name}", 0o755) for name in views),
        *(("attach", tree, f"{place}/{name}", flags) for name, tree in views.items()),
        ("read-only", place, flags),
    ]


def workspace(workspace: dict[str, Any], trees: dict[str, Any], target: str) -> tuple[Any, ...]:
    """In memory, or on an image of its own."""
    flags = MS_NOSUID | MS_NODEV
    if workspace["type"] == "tmpfs":
        return "tmpfs", target, tmpfs_options(workspace["bytes"], "0755"), flags
    return "attach", trees["workspace"], target, flags


def tmpfs_options(size_bytes: int, mode: str) -> str:
    """Bounded in bytes and in files."""
    return f"mode={mode},size={size_bytes},nr_inodes={max(size_bytes // BYTES_AN_INODE, INODES_AT_LEAST)}"


def _plan_kernel_files(root: str, template: str) -> list[tuple[Any, ...]]:
    """/proc of the job's own pid namespace, masked, and terminals of its own."""
    return [
        ("proc", f"{root}/proc"),
        *(("mask", f"{root}/proc/{name}", f"{template}/dev/null") for name in MASKED_PATHS),
        *(("protect", f"{root}/proc/{name}") for name in READ_ONLY_PATHS),
        ("devpts", f"{root}/dev/pts"),
    ]


def _plan_run(root: str) -> list[tuple[Any, ...]]:
    """/run, where init puts what is the job's own and the job may read."""
    return [
        ("tmpfs", f"{root}/run", tmpfs_options(RUN_BYTES, "0755"), MS_NOSUID | MS_NODEV),
        *(("directory", f"{root}/{name}", 0o755) for name in ("run/joblet", JOB_ETC)),
    ]


def execute(plan: list[tuple[Any, ...]]) -> None:
    """Carry the plan out, in its order. Raises OSError naming the path concerned."""
    for name, *arguments in plan:
        _DO[name](*arguments)


def _tmpfs(target: str, data: str, flags: int) -> None:
    mount("tmpfs", target, "tmpfs", flags, data)


def _attach(tree: int, target: str, flags: int) -> None:
    """A mount that is nowhere yet."""
    move_mount(tree, target)
    os.close(tree)
    mount("", target, "", MS_REMOUNT | MS_BIND | flags)


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
        _seal(target)


def _seal(target: str) -> None:
    """Read-only with all that is mounted below; and what the host mounts or unmounts there later is not seen."""
    try:
        attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        mount_setattr(target, attr_set=attributes, propagation=MS_PRIVATE, recursive=True)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # before Linux 5.12
            raise
        mount("", target, "", MS_REC | MS_PRIVATE)
        mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _sys(source: str, target: str) -> None:
    """A part of the host's /sys, less what counts the heat of its processors: that tells what others compute."""
    if not os.path.isdir(source):
        return
    os.makedirs(target, 0o755, exist_ok=True)
    mount(source, target, "", MS_BIND)
    _seal(target)
    for name in os.listdir(target):
        if os.path.isdir(hot := f"{target}/{name}/thermal_throttle"):
            mount("tmpfs", hot, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k")


def _directory(path: str, mode: int) -> None:
    if not os.path.isdir(path):
        os.mkdir(path, mode)
        os.chmod(path, mode)


def _file(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    os.write(fd, text.encode())
    os.fchmod(fd, 0o644)
    os.close(fd)


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


def _own(path: str, owner: int) -> None:
    os.chown(path, owner, owner)


def _place(path: str) -> None:
    """A directory for us to mount on, in a tree that somebody else made: a link there may lead anywhere on the host."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise OSError(
                errno.ENOTDIR, f"the root file system's /{os.path.basename(path)} is no directory", path
            ) from None


def _replace(directory: str, name: str, target: str) -> None:
    """A link instead of whatever has that name. directory: a place."""
    path = f"{directory}/{name}"
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.symlink(target, path)


def _tree(source: str, target: str, flags: int) -> None:
    """A directory with all that is mounted below it."""
    mount(source, target, "", MS_BIND | MS_REC)
    mount("", target, "", MS_REMOUNT | MS_BIND | flags)


def _overlay(trees: list[int], layers: str, target: str, user_namespace: int) -> None:
    """A root file system below a layer to write to. trees: two copies of it. Its root is the job's root, where the kernel and the
    file system can map ids; else its files are nobody's. Before Linux 5.19 they can be mapped, but not overlaid then."""
    first, second = trees
    if not (_lower(first, f"{layers}/lower", user_namespace) and _overlaid(layers, target)):
        _lower(second, f"{layers}/lower", NO_NAMESPACE)
        if not _overlaid(layers, target):
            raise OSError(errno.EINVAL, "the kernel cannot overlay this root file system", target)
    else:
        os.close(second)


def _lower(tree: int, target: str, user_namespace: int) -> bool:
    """Mount a root file system read-only. Returns whether its ids could be mapped; if not, nothing was mounted."""
    try:
        if user_namespace != NO_NAMESPACE:
            mount_setattr(tree, attr_set=MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
        move_mount(tree, target)
    except OSError as error:
        if user_namespace == NO_NAMESPACE or error.errno not in CANNOT_MAP:
            raise
        return False
    finally:
        os.close(tree)
    _seal(target)
    return True


def _overlaid(layers: str, target: str) -> bool:
    """The layers are given by their last names alone: the job reads them in its mountinfo."""
    os.chdir(layers)
    try:
        mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, "lowerdir=lower,upperdir=upper,workdir=work")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        umount2("lower", MNT_DETACH)
        return False
    finally:
        os.chdir("/")
    return True


def _proc(target: str) -> None:
    # 2: of others' processes, so of init, not even the numbers are seen. Linux 5.8 calls it invisible.
    mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2")


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
    # There are kernel.pty.max for all jobs together.
    mount("devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620,max={TERMINALS}")


def _own_root(template: str, root: str) -> None:
    from joblet.sandbox.volumes import make_own_root  # only jobs with volumes pay for it

    make_own_root(template or "/", root)


_DO: dict[str, Callable[..., None]] = {
    **{"tmpfs": _tmpfs, "bind": _bind, "system": _system, "directory": _directory, "file": _file, "copy": _copy},
    **{"symlink": _symlink, "device": _device, "read-only": _read_only, "overlay": _overlay, "proc": _proc},
    **{"mask": _mask, "protect": _protect, "devpts": _devpts, "attach": _attach, "sys": _sys, "tree": _tree},
    **{"own": _own, "place": _place, "replace": _replace, "own-root": _own_root},
}

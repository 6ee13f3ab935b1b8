"""The only place that makes raw system calls. Constants are named as in the kernel's headers.

Each call is one small function that raises OSError with the errno. Imported by launcher and init: ctypes and os, no more.
PyDLL, not CDLL: the interpreter lock stays held, since after a raw clone there is no second thread that could want it.
"""

import ctypes
import errno
import os

CLONE_VM = 0x00000100
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000
CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x00100000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECBIT_NO_SETUID_FIXUP = 4
SECCOMP_MODE_FILTER = 2

# The numbers are the same on every architecture for calls newer than 5.0; pivot_root is not.
_SYS_CLONE3 = 435
_SYS_PIDFD_SEND_SIGNAL = 424
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442
_SYS_CLOSE_RANGE = 436
_SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
_KEEPER_STACK_BYTES = 16384
_KEPT: list[object] = []  # what the keeper of our memory uses
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SIGCHLD = 17
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# For calls that wait for a disk, and are never made after a raw clone: other threads run meanwhile.
_waiting_libc = ctypes.CDLL(None, use_errno=True)
_waiting_libc.syscall.restype = ctypes.c_long


class clone_args(ctypes.Structure):
    """struct clone_args of <linux/sched.h>, clone(2)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    )


class mount_attr(ctypes.Structure):
    """struct mount_attr of <linux/mount.h>."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


class sock_fprog(ctypes.Structure):
    """struct sock_fprog of <linux/filter.h>: a classic BPF program."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _check(result: int, what: str = "") -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what) if what else OSError(number, os.strerror(number))
    return result


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


def clone3(flags: int, cgroup_fd: int | None = None, exit_signal: int = _SIGCHLD) -> tuple[int, int]:
    """clone3(2) without shared memory: as fork, in new namespaces, into a cgroup.

    exit_signal: for the parent at the child's end, if that comes before the child executes something; then it is SIGCHLD. With
    CLONE_PARENT it is that of the caller.
    Returns (pid, pidfd) in the parent and (0, -1) in the child. The caller must have one thread only.
    """
    pidfd = ctypes.c_int(-1)
    if flags & CLONE_PARENT:
        exit_signal = 0  # it is the caller's own then
    args = clone_args(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal)
    if cgroup_fd is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    pid = _check(_libc.syscall(_long(_SYS_CLONE3), ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))), "clone3")
    return pid, (pidfd.value if pid else -1)


def keep_memory() -> int:
    """Start a process that shares our memory, and waits to be killed. Returns its pid.

    Whoever executes a program or ends first takes its memory apart, which for an interpreter takes longer than the rest of it,
    and keeps a processor to itself meanwhile. With a second user the memory is left to that one, whose end can wait. It is our
    parent's child, with our exit signal, our rights and copies of our descriptors, and runs no code but pause(2).
    """
    stack = ctypes.create_string_buffer(_KEEPER_STACK_BYTES)
    _KEPT.append(stack)
    top = (ctypes.addressof(stack) + _KEEPER_STACK_BYTES) & ~15
    function = ctypes.cast(_libc.pause, ctypes.c_void_p)
    return _check(_libc.clone(function, ctypes.c_void_p(top), ctypes.c_int(CLONE_VM | CLONE_PARENT), None), "clone")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def join_session_keyring() -> None:
    """keyctl(2): a new anonymous session keyring instead of the inherited one. A kernel without keys needs none."""
    try:
        _check(_libc.syscall(_long(_SYS_KEYCTL), _long(_KEYCTL_JOIN_SESSION_KEYRING), None), "keyctl")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def unshare_thread(flags: int) -> None:
    """unshare(2) of the calling thread, in a process with others, which run on meanwhile: the kernel may take its time."""
    _check(ctypes.CDLL(None, use_errno=True).unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2). kind: one CLONE_NEW flag, or 0 for whatever namespace it is."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    encoded = [os.fsencode(text) if text else None for text in (source, target, kind)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(data) if data else None), target)


def fallocate(fd: int, size: int) -> None:
    """fallocate(2) of the first ``size`` bytes: EOPNOTSUPP where the file system cannot, instead of writing them all."""
    _check(_waiting_libc.fallocate(ctypes.c_int(fd), 0, ctypes.c_int64(0), ctypes.c_int64(size)), "fallocate")


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def open_tree(path: str, flags: int) -> int:
    """open_tree(2). With OPEN_TREE_CLONE: a copy of the mount at ``path`` (with AT_RECURSIVE: of those below too) that is
    nowhere yet, as a descriptor; move_mount puts it into its place."""
    arguments = (ctypes.c_int(AT_FDCWD), os.fsencode(path), ctypes.c_uint(flags | OPEN_TREE_CLOEXEC))
    return _check(_libc.syscall(_long(_SYS_OPEN_TREE), *arguments), path)


def move_mount(tree_fd: int, target: str) -> None:
    """move_mount(2) of what open_tree gave to ``target``."""
    arguments = (ctypes.c_int(tree_fd), b"", ctypes.c_int(AT_FDCWD), os.fsencode(target))
    _check(_libc.syscall(_long(_SYS_MOVE_MOUNT), *arguments, ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)), target)


def mount_setattr(
    place: int | str, *, attr_set: int, userns_fd: int = -1, propagation: int = 0, recursive: bool = False
) -> None:
    """mount_setattr(2) on a descriptor of open_tree or a path. Linux 5.12.

    userns_fd: with MOUNT_ATTR_IDMAP, whose map the mount takes: what is 0 on the disk is there whoever is 0 in that user
    namespace. Such a mount must not be attached anywhere yet; a file system that cannot do it answers EINVAL.
    """
    attributes = mount_attr(attr_set=attr_set, propagation=propagation, userns_fd=max(userns_fd, 0))
    flags = AT_RECURSIVE if recursive else 0
    if isinstance(place, int):
        where, path, flags = place, b"", flags | AT_EMPTY_PATH
    else:
        where, path = AT_FDCWD, os.fsencode(place)
    arguments = (ctypes.c_int(where), path, ctypes.c_uint(flags), ctypes.byref(attributes))
    what = "mount_setattr" if isinstance(place, int) else place
    _check(_libc.syscall(_long(_SYS_MOUNT_SETATTR), *arguments, ctypes.c_size_t(ctypes.sizeof(attributes))), what)


def mount_detached(kind: str, source: str, options: dict[str, str]) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): mount a file system nowhere, as a descriptor that move_mount puts into its place.

    A block device that is mounted already gives one more mount of the same. options: an empty value is a flag. The last close
    of the descriptor unmounts what was put nowhere. May wait for a disk.
    """
    call = _waiting_libc.syscall
    context = _check(call(_long(_SYS_FSOPEN), os.fsencode(kind), ctypes.c_uint(FSOPEN_CLOEXEC)), f"fsopen {kind}")
    try:
        for key, value in {"source": source, **options}.items():
            command = ctypes.c_uint(FSCONFIG_SET_STRING if value else FSCONFIG_SET_FLAG)
            text = os.fsencode(value) if value else None
            _check(call(_long(_SYS_FSCONFIG), ctypes.c_int(context), command, key.encode(), text, ctypes.c_int(0)), key)
        create = ctypes.c_uint(FSCONFIG_CMD_CREATE)
        _check(call(_long(_SYS_FSCONFIG), ctypes.c_int(context), create, None, None, ctypes.c_int(0)), source)
        arguments = (ctypes.c_int(context), ctypes.c_uint(FSMOUNT_CLOEXEC), ctypes.c_uint(0))
        return _check(call(_long(_SYS_FSMOUNT), *arguments), source)
    finally:
        os.close(context)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.syscall(_long(_SYS_PIVOT_ROOT), os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def current_cpu() -> int:
    """The processor that we run on, getcpu(3)."""
    return _check(_libc.sched_getcpu(), "sched_getcpu")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    encoded = os.fsencode(name)
    _check(_libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """prctl(2), for the options that take numbers."""
    return _check(
        _libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(value) for value in (arg2, arg3, 0, 0))), f"prctl({option})"
    )


def drop_bounding_set(last: int, keep: int) -> None:
    """PR_CAPBSET_DROP for every capability up to ``last`` that is not in the mask ``keep``."""
    call = _libc.prctl
    for number in range(last + 1):
        if not keep >> number & 1:
            _check(call(PR_CAPBSET_DROP, number, 0, 0, 0), "PR_CAPBSET_DROP")


def set_name(name: str) -> None:
    """The name of this thread, as ps(1) shows it: at most 15 bytes."""
    _check(_libc.prctl(ctypes.c_int(PR_SET_NAME), ctypes.c_char_p(name.encode()[:15]), 0, 0, 0), "PR_SET_NAME")


def set_command_line(text: str) -> None:
    """What ps(1) shows as our command line: overwrites the area between arg_start and arg_end, proc_pid_stat(5)."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)
        encoded = text.encode()[: end - start - 1]
        ctypes.memmove(start, encoded, len(encoded))


def set_seccomp_filter(program: bytes) -> None:
    """Install a seccomp filter, seccomp(2). program: struct sock_filter, 8 bytes each."""
    fprog = sock_fprog(len(program) // 8, program)
    _check(
        _libc.prctl(ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(fprog), 0, 0),
        "PR_SET_SECCOMP",
    )


class CapabilitySet:
    """What capset(2) is told: the effective and permitted set become ``mask``, the inheritable one ``inheritable``."""

    def __init__(self, mask: int, inheritable: int) -> None:
        self.header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
        low, high = mask & 0xFFFFFFFF, mask >> 32
        self.data = (ctypes.c_uint32 * 6)(low, low, inheritable & 0xFFFFFFFF, high, high, inheritable >> 32)

    def apply(self) -> None:
        _check(_libc.capset(self.header, self.data), "capset")


def capset(mask: int, inheritable: int) -> None:
    """capset(2), see ``CapabilitySet``."""
    CapabilitySet(mask, inheritable).apply()


def close_range(first: int, last: int = 0x7FFFFFFF, flags: int = 0) -> None:
    """close_range(2): close (or mark close-on-exec) all descriptors from first to last."""
    _check(
        _libc.syscall(_long(_SYS_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(flags)),
        "close_range",
    )


def reset_signal(number: int) -> None:
    """rt_sigaction(2) to SIG_DFL, also for those that the C library keeps for itself (32 and 33)."""
    default = bytes(4 * ctypes.sizeof(ctypes.c_long))  # struct sigaction as the kernel has it, all of it zero
    sigset_bytes = ctypes.c_size_t(8)
    _check(_libc.syscall(_long(_SYS_RT_SIGACTION), ctypes.c_int(number), default, None, sigset_bytes), "rt_sigaction")

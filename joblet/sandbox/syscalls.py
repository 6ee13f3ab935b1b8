"""The only place that makes raw system calls. Constants are named as in the kernel's headers.

Each call is one small function that raises OSError with the errno. Imported by launcher and init: ctypes and os, no more.
PyDLL, not CDLL: the interpreter lock stays held, since after a raw clone there is no second thread that could want it.
"""

import ctypes
import os

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

PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
CLOSE_RANGE_CLOEXEC = 4

# The numbers are the same on every architecture for calls newer than 5.0; pivot_root is not.
_SYS_CLONE3 = 435
_SYS_PIDFD_SEND_SIGNAL = 424
_SYS_CLOSE_RANGE = 436
_SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class clone_args(ctypes.Structure):
    """struct clone_args of <linux/sched.h>, clone(2)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    )


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


def clone3(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """clone3(2) without shared memory: as fork, in new namespaces, into a cgroup.

    Returns (pid, pidfd) in the parent and (0, -1) in the child. The caller must have one thread only.
    """
    pidfd = ctypes.c_int(-1)
    args = clone_args(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=17)
    if cgroup_fd is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    pid = _check(_libc.syscall(_long(_SYS_CLONE3), ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))), "clone3")
    return pid, (pidfd.value if pid else -1)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


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


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.syscall(_long(_SYS_PIVOT_ROOT), os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


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


def capset(mask: int, inheritable: int) -> None:
    """capset(2): the effective and permitted set become ``mask``, the inheritable one ``inheritable``."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, inheritable & 0xFFFFFFFF, high, high, inheritable >> 32)
    _check(_libc.capset(header, data), "capset")


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

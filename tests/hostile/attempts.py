"""What attack scripts share. Lies in each attack's workspace and runs inside the job, on the standard library alone.

Every attempt ends in one line: ``HELD name: why`` if it was refused, ``BROKE name: what`` if it was not, or failed in a
way that is no refusal (a wrong argument of ours would otherwise count as a defence).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable

REFUSALS = frozenset((errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS))
# Calls newer than Linux 5.0 have one number on all architectures.
_SAME = {
    **{"pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430},
    **{"fspick": 433, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "mount_setattr": 442},
}
_X86_64 = {
    **{"mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "ptrace": 101},
    **{"process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "name_to_handle_at": 303},
    **{"open_by_handle_at": 304, "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "userfaultfd": 323},
    **{"perf_event_open": 298, "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313},
    **{"delete_module": 176, "clock_settime": 227, "settimeofday": 164, "clock_adjtime": 305, "reboot": 169},
    **{"swapon": 167, "acct": 163, "quotactl": 179, "syslog": 103, "personality": 135, "fanotify_init": 300},
    **{"sethostname": 170, "setdomainname": 171, "vhangup": 153, "move_pages": 279, "clone": 56, "iopl": 172},
    **{"ioperm": 173, "capset": 126, "sched_setscheduler": 144, "ioprio_set": 251, "io_setup": 206},
}
_AARCH64 = {
    **{"mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "ptrace": 117},
    **{"process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "name_to_handle_at": 264},
    **{"open_by_handle_at": 265, "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "userfaultfd": 282},
    **{"perf_event_open": 241, "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273},
    **{"delete_module": 106, "clock_settime": 112, "settimeofday": 170, "clock_adjtime": 266, "reboot": 142},
    **{"swapon": 224, "acct": 89, "quotactl": 60, "syslog": 116, "personality": 92, "fanotify_init": 262},
    **{"sethostname": 161, "setdomainname": 162, "vhangup": 58, "move_pages": 239, "clone": 220},
    **{"capset": 91, "sched_setscheduler": 119, "ioprio_set": 30, "io_setup": 0},
}
MACHINE = os.uname().machine
NUMBERS = {**_SAME, **(_X86_64 if MACHINE == "x86_64" else _AARCH64)}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


FILTER = "filter: "


def mode_of_filter() -> str:
    """0 for none, 2 for a filter, proc_pid_status(5)."""
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith("Seccomp:"))


if __name__ == "attempts":  # in a job, and not where tests look at this file
    print(f"{FILTER}{mode_of_filter()}", flush=True)


def target(name: str) -> str:
    """Where on the host something is that the attack is after, as the test's environment tells."""
    return os.environ["TARGET_" + name]


def held(name: str, why: object) -> None:
    if isinstance(why, OSError) and why.errno:
        why = f"{errno.errorcode.get(why.errno, why.errno)} ({why.strerror})"
    print(f"HELD {name}: {why}", flush=True)


def broke(name: str, what: object) -> None:
    print(f"BROKE {name}: {what}", flush=True)


def check(name: str, holds: object, found: object) -> None:
    """For what is seen, not done."""
    (held if holds else broke)(name, found)


def raw(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A system call by its number. Raises OSError."""
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *passed)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A system call by its name. Raises OSError; ENOSYS for one that this architecture does not have."""
    if name not in NUMBERS:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return raw(NUMBERS[name], *arguments)


def attempt(name: str, call: Callable[..., object], *arguments: object, also: tuple[int, ...] = ()) -> None:
    """Try it. also: errors beyond REFUSALS that mean that there is nothing to be reached."""
    try:
        result = call(*arguments)
    except OSError as error:
        if error.errno in REFUSALS or error.errno in also:
            held(name, error)
        else:
            broke(name, f"{error} is no refusal")
    else:
        broke(name, f"returned {result!r}")


def in_child(name: str, call: Callable[[], object], *, deadly: tuple[int, ...] = ()) -> None:
    """Try what would change this process, in a child. deadly: signals whose arrival is a refusal, too."""
    pid = os.fork()
    if pid == 0:
        try:
            attempt(name, call)
        except BaseException as error:
            broke(name, repr(error))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        check(name, number in deadly, f"killed by {signal.Signals(number).name}")


def write_to(path: str, text: str | None) -> None:
    """Open for writing, and write if there is a text. Raises OSError."""
    fd = os.open(path, os.O_WRONLY)
    try:
        if text is not None:
            os.write(fd, text.encode())
    finally:
        os.close(fd)


def read_from(path: str) -> bytes:
    """The first bytes. Raises OSError; ENOENT if there are none."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if data := os.read(fd, 64):
            return data
    finally:
        os.close(fd)
    raise OSError(errno.ENOENT, "nothing in it")

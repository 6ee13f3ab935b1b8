"""What the command's process does from its birth to its exec: privileges are dropped in one visible sequence, top to bottom.

Its namespaces were made before it was known what will run, and are entered; into its cgroup it is born.
"""

from __future__ import annotations

import _signal
import _socket  # the C parts alone: signal.py and socket.py would cost each launch their imports
import errno
import fcntl
import os
import resource

from joblet.sandbox import syscalls
from joblet.sandbox.capabilities import last_capability, mask_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
READY = b"r"
GO = b"g"
_LAST_CAPABILITY = last_capability()  # read once, in the launcher
_DEFAULTS = (*(_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD, _signal.SIGINT, _signal.SIGTERM, _signal.SIGUSR1),)


class Doors:
    """Descriptors by which the command's process gets to where it belongs.

    cgroups: ``tasks`` files of v1 controllers. namespaces: the user namespace first. standard: stdin, stdout, stderr.
    """

    def __init__(self, cgroups: list[int], namespaces: list[int], standard: tuple[int, int, int]) -> None:
        self.cgroups = cgroups
        self.namespaces = namespaces
        self.standard = standard

    def enter(self) -> None:
        for fd in self.cgroups:
            # Only for a thread that moves itself, by this file and not cgroup.procs, the kernel takes no lock over all forks.
            os.write(fd, b"0")
        for fd in self.namespaces:
            syscalls.setns(fd, 0)
        for number, fd in enumerate(self.standard):
            os.dup2(fd, number)


def furnish_namespaces(ready: int, own_network: bool) -> None:
    """In a process born in the namespaces of a command to come: what they need, a word to init, wait to be killed."""
    try:
        if own_network:
            bring_loopback_up()
        os.write(ready, READY)
        while True:
            _signal.pause()
    finally:
        os._exit(1)


def become_command(spec: dict[str, Any], doors: Doors, seccomp: bytes, gate: int, errors: int) -> None:
    """Turn this process, new in its cgroup, into the command. Never returns.

    spec: the launch spec. gate: GO comes out of it once the new root stands and the command may run; end of file: never.
    errors: where one line ``code text`` goes if the command can't be executed; it closes itself on exec.
    """
    what = command = ""
    try:
        command = spec["argv"][0]
        doors.enter()
        os.setsid()
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        syscalls.sethostname(spec["hostname"])
        set_limits(spec["rlimits"])
        os.umask(0o022)
        restore_signals()
        close_all_but(gate, errors)
        drop_privileges(spec["uid"], spec["gid"], mask_of(spec["capabilities"]))
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if seccomp:
            syscalls.set_seccomp_filter(seccomp)
        if os.read(gate, 1) != GO:
            os._exit(126)
        os.close(gate)
        os.chdir("/")
        what = f"workdir {spec['workdir']}"
        os.chdir(spec["workdir"])
        what = command
        execute(spec["argv"], spec["env"])
    except OSError as error:
        code = 127 if error.errno == errno.ENOENT and what == command else 126
        if code == 127 and "/" in command and os.path.exists(command):
            what += ": the interpreter that it names"  # by #! or as an ELF program's loader
        report(errors, code, f"{what}: {os.strerror(error.errno or 0)}" if what else str(error))
    except BaseException as error:  # whatever it is, it must neither unwind into init's code nor reach the job's output
        report(errors, 126, f"{type(error).__name__}: {error}")
    finally:
        os._exit(126)


def close_all_but(*kept: int) -> None:
    """Close what is left of the set-up before anything of the job's choice happens, not only at exec: its working directory may
    be a path below /proc/self/fd."""
    first = 3
    for fd in sorted(kept):
        if first < fd:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


def report(errors: int, code: int, text: str) -> None:
    """Hand the reason to init."""
    os.write(errors, f"{code} {text}".encode()[:4000])


def bring_loopback_up() -> None:
    """Set IFF_UP on lo, netdevice(7)."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    request = bytearray(40)
    request[:2] = b"lo"
    fcntl.ioctl(control.fileno(), SIOCGIFFLAGS, request)
    request[16] |= IFF_UP
    fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, request)
    control.close()


def set_limits(rlimits: dict[str, list[int]]) -> None:
    """setrlimit(2). A hard limit that may not be raised stays as low as it is."""
    for name, (soft, hard) in rlimits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, present = resource.getrlimit(number)
        if present != resource.RLIM_INFINITY:
            hard = min(hard, present)
        resource.setrlimit(number, (min(soft, hard), hard))


def drop_privileges(uid: int, gid: int, keep: int) -> None:
    """Become (uid, gid) of the job's user namespace with no capability but those in the mask ``keep``."""
    os.setgroups([])
    syscalls.drop_bounding_set(_LAST_CAPABILITY, keep)
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscalls.join_session_keyring()  # of the daemon's it would be a possessor, whoever it is
    syscalls.capset(keep, keep)
    if uid != 0:
        for number in range(keep.bit_length()):
            if keep >> number & 1:
                syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)


def restore_signals() -> None:
    """All dispositions at their defaults, nothing blocked: the interpreter's own choices are not the command's."""
    for number in _DEFAULTS:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def execute(argv: list[str], env: dict[str, str]) -> None:
    """execve(2), with the search of execvp(3) along the job's own PATH. Raises OSError as a shell would see it."""
    if "/" in argv[0]:
        os.execve(argv[0], argv, env)
    denied = None
    for directory in env.get("PATH", "").split(":"):
        try:
            os.execve(f"{directory or '.'}/{argv[0]}", argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])

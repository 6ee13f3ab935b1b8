"""What the command's process does from its birth to its exec: privileges are dropped in one visible sequence, top to bottom."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal

from joblet.sandbox import syscalls
from joblet.sandbox.capabilities import last_capability, mask_of

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
RELEASE = b"go"
_LAST_CAPABILITY = last_capability()  # read once, in the launcher


def become_command(spec: dict, gate: int, errors: int, seccomp: bytes) -> None:  # type: ignore[type-arg]
    """Turn this process, new in its namespaces, into the command. Never returns.

    gate: readable once the user mapping and the cgroups are set. errors: where one line ``code text`` goes if the command
    can't be executed; it closes itself on exec.
    """
    what = ""
    try:
        if os.read(gate, 2) != RELEASE:
            os._exit(126)
        os.setsid()
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        syscalls.sethostname(spec["hostname"])
        if spec["network"] != "host":
            bring_loopback_up()
        set_limits(spec["rlimits"])
        drop_privileges(spec["uid"], spec["gid"], mask_of(spec["capabilities"]))
        what = f"workdir {spec['workdir']}"
        os.chdir(spec["workdir"])
        what = ""
        restore_signals()
        os.umask(0o022)
        syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if seccomp:
            syscalls.set_seccomp_filter(seccomp)
        what = spec["argv"][0]
        execute(spec["argv"], spec["env"])
    except OSError as error:
        code = 127 if error.errno == errno.ENOENT and what == spec["argv"][0] else 126
        report(errors, code, f"{what}: {os.strerror(error.errno or 0)}" if what else str(error))
    except BaseException as error:  # whatever it is, it must neither unwind into init's code nor reach the job's output
        report(errors, 126, f"{type(error).__name__}: {error}")
    finally:
        os._exit(126)


def report(errors: int, code: int, text: str) -> None:
    """Hand the reason to init."""
    os.write(errors, f"{code} {text}".encode()[:4000])


def bring_loopback_up() -> None:
    """Set IFF_UP on lo, netdevice(7)."""
    import _socket  # the C part alone: socket.py would cost each launch its imports

    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    request = bytearray(40)
    request[:2] = b"lo"
    fcntl.ioctl(control.fileno(), SIOCGIFFLAGS, request)
    request[16] |= IFF_UP
    fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, request)
    control.close()


def set_limits(rlimits: dict) -> None:  # type: ignore[type-arg]
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
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(_LAST_CAPABILITY + 1):
        if not keep >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscalls.capset(keep, keep)
    if uid != 0:
        for number in range(keep.bit_length()):
            if keep >> number & 1:
                syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)


def restore_signals() -> None:
    """All dispositions at their defaults, nothing blocked: the interpreter's own choices are not the command's."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


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

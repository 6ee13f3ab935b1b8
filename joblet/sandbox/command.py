"""What the command's process does from its birth to its exec: privileges are dropped in one visible sequence, top to bottom.

It is born in its namespaces before it is known what will run, and enters its cgroups; or, where the kernel makes that slow, it is
born into its cgroup later, and enters its namespaces. See ``birth``.
"""

from __future__ import annotations

import _signal
import _socket  # the C parts alone: signal.py and socket.py would cost each launch their imports
import errno
import fcntl
import os
import resource
import sys

from joblet.sandbox import syscalls
from joblet.sandbox.capabilities import last_capability, mask_of
from joblet.sandbox.host_files import forbid_imports
from joblet.sandbox.memory_file import content_of, made
from joblet.sandbox.sample_spec import PACKED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
READY = b"r"
REHEARSE = b"h"
CGROUPS = b"c"
GO = b"g"
MOST_CGROUPS = 16
LEAST_PRIORITY = 19
ALL_CAPABILITIES = (1 << 41) - 1
_LAST_CAPABILITY = last_capability()  # read once, in the launcher
_DEFAULTS = (
    *(
        _signal.SIGPIPE,
        _signal.SIGXFSZ,
        _signal.SIGCHLD,
        _signal.SIGINT,
        _signal.SIGTERM,
        _signal.SIGUSR1,
        _signal.SIGURG,
    ),
)


class Doors:
    """Descriptors by which the command's process gets to where it belongs.

    cgroups: ``tasks`` files of v1 controllers. namespaces: in the order in which they are entered. standard: stdin, stdout and
    stderr.
    """

    def __init__(self, cgroups: list[int], namespaces: list[int], standard: tuple[int, int, int]) -> None:
        self.cgroups = cgroups
        self.namespaces = namespaces
        self.standard = standard

    def enter(self) -> None:
        enter_cgroups(self.cgroups)
        for fd in self.namespaces:
            syscalls.setns(fd, 0)
        for number, fd in enumerate(self.standard):
            os.dup2(fd, number)


def enter_cgroups(tasks: list[int]) -> None:
    """Only for a thread that moves itself, by this file and not cgroup.procs, the kernel takes no lock over all forks."""
    for fd in tasks:
        os.write(fd, b"0")


def furnish_namespaces(channel: _socket.socket, own_network: bool) -> None:
    """In a process born in the namespaces of a command to come: what they need, a word to init, wait to be killed."""
    try:
        if own_network:
            bring_loopback_up()
        channel.send(READY)
        while True:
            _signal.pause()
    finally:
        os._exit(1)


def wait_for_work(channel: _socket.socket, profiles: dict[str, bytes], own_network: bool) -> None:
    """In a process born in the command's namespaces, with no capability outside of them: do all that is the same for most jobs,
    wait for the launch spec, become the command. Never returns.

    channel: the standard descriptors and that for errors come out of it; REHEARSE, unless there is work; a launch spec's memfd;
    CGROUPS with the ``tasks`` files; GO.
    """
    error = Errors(-1)
    try:
        forbid_imports()
        if own_network:
            bring_loopback_up()
        become_nobodys_child()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in range(3):
            os.dup2(null, number)
        close_all_but(channel.fileno())
        keeper = syscalls.keep_memory()  # while there is no descriptor that anybody waits for the end of
        give_way(keeper)
        _, (*standard, error.fd) = received(channel, 4)
        for number, fd in enumerate(standard):
            os.dup2(fd, number)
            os.close(fd)
        syscalls.drop_bounding_set(_LAST_CAPABILITY, 0)
        processors = os.sched_getaffinity(0)
        channel.send(READY + b"%d" % keeper)
        word, fds = received(channel, 1)
        if word == REHEARSE:
            rehearse()
            word, fds = received(channel, 1)
        (memfd,) = fds
        spec = content_of(memfd)
        os.close(memfd)
        set_limits(spec["rlimits"])
        syscalls.sethostname(spec["hostname"])
        word, tasks = received(channel, MOST_CGROUPS)
        if word != CGROUPS:
            os._exit(126)
        enter_cgroups(tasks)
        for fd in tasks:
            os.close(fd)
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        run_anywhere(processors)
        become_command(spec, channel, error, profiles)
    except (
        BaseException
    ) as problem:  # whatever it is, it must neither unwind into init's code nor reach the job's output
        error.report(problem)
    finally:
        os._exit(126)


def give_way(pid: int) -> None:
    """Its end, which takes a processor longer than some commands do, shall be in nobody's way. pid: 0 for ourselves."""
    try:
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    except PermissionError:
        pass  # a daemon under SCHED_IDLE: the kernel lets nobody out of that, and it competes even less
    os.setpriority(os.PRIO_PROCESS, pid, LEAST_PRIORITY)


def run_anywhere(processors: set[int]) -> None:
    """Where we may run, but for the start: see ``Birth``. A cpuset of the job's own has the last word."""
    try:
        os.sched_setaffinity(0, processors)
    except OSError:
        pass  # none of them is in it, so the cpuset's are allowed by now


def rehearse() -> None:
    """Go through the rest to no effect: see ``sample_spec``."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    memfd = made("rehearsal", PACKED)
    for fds in ([memfd], [0] * 5):
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        ours.sendmsg([CGROUPS], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
    ours.send(GO)
    os.close(memfd)
    _, (memfd,) = received(theirs, 1)
    spec = content_of(memfd)
    os.close(memfd)
    present = {
        name: list(resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))) for name in ("NOFILE", "CORE", "NICE")
    }
    set_limits(present)
    syscalls.sethostname(spec["hostname"])
    _, tasks = received(theirs, MOST_CGROUPS)
    enter_cgroups(tasks)
    for fd in tasks:
        os.close(fd)
    steps = (
        lambda: syscalls.unshare(0),
        lambda: run_anywhere(os.sched_getaffinity(0)),
        lambda: os.setgroups([]),
        lambda: syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0),
        lambda: os.setresgid(-1, -1, -1),
        lambda: os.setresuid(-1, -1, -1),
        lambda: syscalls.capset(ALL_CAPABILITIES, mask_of(spec["capabilities"])),
        lambda: syscalls.set_seccomp_filter(b""),
        lambda: theirs.recv(1),
        lambda: os.chdir(spec["workdir"]),
        lambda: execute(spec["argv"], spec["env"]),
    )
    for step in steps:
        try:
            step()
        except OSError:
            pass  # as expected of some
    ours.close()
    theirs.close()


def become_new_command(
    spec: dict[str, Any], doors: Doors, channel: _socket.socket, errors: int, profiles: dict[str, bytes]
) -> None:
    """Turn this process, new in its cgroup, with all of init's rights, into the command. Never returns."""
    error = Errors(errors)
    try:
        doors.enter()
        become_nobodys_child()
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        syscalls.sethostname(spec["hostname"])
        set_limits(spec["rlimits"])
        close_all_but(channel.fileno(), errors)
        syscalls.drop_bounding_set(_LAST_CAPABILITY, mask_of(spec["capabilities"]))
        become_command(spec, channel, error, profiles)
    except (
        BaseException
    ) as problem:  # whatever it is, it must neither unwind into init's code nor reach the job's output
        error.report(problem)
    finally:
        os._exit(126)


def become_command(spec: dict[str, Any], channel: _socket.socket, error: Errors, profiles: dict[str, bytes]) -> None:
    """The last steps of both, in its cgroup and namespaces: ids, capabilities, seccomp; execute the command when init says GO."""
    profile = spec["seccomp"]
    seccomp = profile["program"] if "program" in profile else profiles[profile["name"]]
    drop_privileges(spec["uid"], spec["gid"], mask_of(spec["capabilities"]))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if seccomp:
        syscalls.set_seccomp_filter(seccomp)
    if channel.recv(1) != GO:
        os._exit(126)
    channel.close()
    os.chdir("/")
    error.what = f"workdir {spec['workdir']}"
    os.chdir(spec["workdir"])
    error.what = error.command = spec["argv"][0]
    execute(spec["argv"], spec["env"])


class Errors:
    """Why the command can't be executed, for init: one line ``code text`` into a pipe that closes itself on exec.

    what: what is being tried, for the text. command: its argv[0], once it is tried.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.what = ""
        self.command = ""

    def report(self, problem: BaseException) -> None:
        """126 or 127, as shells do."""
        if not isinstance(problem, OSError):
            self._tell(126, f"{type(problem).__name__}: {problem}")
            return
        code = 127 if problem.errno == errno.ENOENT and self.command else 126
        what = self.what
        if code == 127 and "/" in self.command and os.path.exists(self.command):
            what += ": the interpreter that it names"  # by #! or as an ELF program's loader
        self._tell(code, f"{what}: {os.strerror(problem.errno or 0)}" if what else str(problem))

    def _tell(self, code: int, text: str) -> None:
        os.write(self.fd, f"{code} {text}".encode()[:4000])


def received(channel: _socket.socket, most: int) -> tuple[bytes, list[int]]:
    """The next message of init's, with its descriptors. Without init there is nothing to wait for."""
    data, ancillary, _, _ = channel.recvmsg(16, _socket.CMSG_SPACE(4 * most), _socket.MSG_CMSG_CLOEXEC)
    if not data:
        os._exit(126)
    packed = ancillary[0][2] if ancillary else b""
    return data, [
        int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed) - len(packed) % 4, 4)
    ]


def become_nobodys_child() -> None:
    """A session of its own, and nothing left of what the interpreter chose for itself."""
    os.setsid()
    os.umask(0o022)
    restore_signals()


def close_all_but(*kept: int) -> None:
    """Close what is left of the set-up before anything of the job's choice happens, not only at exec: its working directory may
    be a path below /proc/self/fd."""
    first = 3
    for fd in sorted(kept):
        if first < fd:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


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

"""The nursery: the process of which all inits are children, and that does nothing else.

A page that parent and child share after a fork is the child's alone as soon as the parent writes to its own. So an init would
also have a copy of all that the launcher writes to from one birth to the next, as long as its job runs. The nursery goes through
the same few lines for each birth.

It is also where what an init will do is gone through beforehand, so often that the interpreter has adapted itself to the code:
what it would write down only because the code is new to it would be a copy in each init as well.
"""

from __future__ import annotations

import _signal
import _socket  # the C parts alone
import fcntl
import os
import select
import sys

from joblet.crash_points import armed, hold
from joblet.sandbox import syscalls
from joblet.sandbox.birth import ALL_KINDS, BEFORE_EXEC
from joblet.sandbox.init import Init, hold_signals, keep_children, unpacked
from joblet.sandbox.rehearsal import is_idle, rehearse_init, rehearse_setup
from joblet.sandbox.setup import HOST_MOUNTS_FD, Setup

CONTROL_FD = 3  # free in the nursery: where the next descriptor that it receives will be
CHANNEL_FD = 5  # to the launcher
SCRATCH_FD = 6  # a directory that is nowhere, for rehearsals
WARM_UPS = 16
GONE_WITHIN_MILLISECONDS = 2000
OWN_NETWORK = b"o"
HOSTS_NETWORK = b"h"


class Home:
    """What all inits have in common.

    template, profiles, boot_id, early: see ``Setup``. into: the directory of their cgroup, or None.
    """

    def __init__(
        self, template: str, profiles: dict[str, bytes], boot_id: str, into: str | None, *, early: bool
    ) -> None:
        self.template = template
        self.profiles = profiles
        self.boot_id = boot_id
        self.into = into
        self.early = early


class Nursery:
    """Seen from the launcher."""

    def __init__(self, home: Home, mounts: int) -> None:
        """Fork it. mounts: a descriptor of the launcher's mount namespace."""
        self.channel, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        pid, self.pidfd = syscalls.clone3(0)
        if pid == 0:
            self.channel.close()
            be_nursery(theirs.detach(), home, mounts)
        theirs.close()

    def bear(self, control: int, own_network: bool) -> tuple[int, int]:
        """An init that gets its work from ``control``. Returns its pid and pidfd. Raises OSError; without a nursery we end."""
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, control.to_bytes(4, sys.byteorder))]
        try:
            self.channel.sendmsg([OWN_NETWORK if own_network else HOSTS_NETWORK], rights)
            data, ancillary, _, _ = self.channel.recvmsg(64, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        except (BrokenPipeError, ConnectionResetError):
            data, ancillary = b"", []
        if not data:
            raise SystemExit("launcher: the process of which inits are born is gone")
        number = int(data)
        if number < 0:
            raise OSError(-number, os.strerror(-number), "clone3")
        (pidfd,) = unpacked(ancillary[0][2])
        return number, pidfd

    def close(self) -> None:
        """See it end."""
        self.channel.close()
        seen_to_end(self.pidfd)


def seen_to_end(pidfd: int) -> None:
    """Wait for a process that is about to end, but not for ever."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(GONE_WITHIN_MILLISECONDS)


def be_nursery(channel_fd: int, home: Home, mounts: int) -> None:
    """Until the launcher hangs up, or is gone. Never returns. What inits inherit is made here, once."""
    try:
        mount = syscalls.mount_detached("tmpfs", "joblet-rehearsal", {})
        scratch = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        move_to_places({channel_fd: CHANNEL_FD, mounts: HOST_MOUNTS_FD, scratch: SCRATCH_FD})
        os.dup2(SCRATCH_FD, CONTROL_FD, inheritable=False)  # a place is kept
        hold()
        os.setsid()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.set_name("joblet-init")
        hold_signals()  # nothing may reach an init before it can handle it
        if not armed():
            warm_up()
        os.close(CONTROL_FD)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # who wants to know of an init's end holds a pidfd
        channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CHANNEL_FD)
        while bear(channel, home):
            pass
    except BaseException as error:  # nothing may unwind into the launcher's loop
        os.write(2, f"joblet-init: {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def move_to_places(places: dict[int, int]) -> None:
    """Descriptors to the numbers that they shall have; all others above the standard ones are closed."""
    above = max(places.values()) + 1
    high = {fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above): place for fd, place in places.items()}
    syscalls.close_range(3, above - 1)
    for fd, place in high.items():
        os.dup2(fd, place, inheritable=False)
    syscalls.close_range(above)


def bear(channel: _socket.socket, home: Home) -> bool:
    """Clone an init for one request; False when there will be no more."""
    data, _, _, _ = channel.recvmsg(16, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    if not data:
        return False
    cgroup = None
    try:
        if home.into:
            cgroup = os.open(home.into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS, cgroup)
        if pid == 0:
            become_init(home, cgroup, own_network=data == OWN_NETWORK)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pidfd.to_bytes(4, sys.byteorder))]
        channel.sendmsg([b"%d" % pid], rights)
        os.close(pidfd)
    except OSError as error:
        channel.sendmsg([b"%d" % -(error.errno or 1)])
    finally:
        os.close(CONTROL_FD)
        if cgroup is not None:
            os.close(cgroup)
    return True


def become_init(home: Home, cgroup: int | None, *, own_network: bool) -> None:
    """The child: be an init, with a process beside it that sets up its job's sandbox. Never returns."""
    role = "joblet-init"
    try:
        os.close(CHANNEL_FD)
        if cgroup is not None:
            os.close(cgroup)
        os.setsid()
        pid, channel, idle = divide()
        if pid == 0:
            role = "joblet-setup"
            os.close(SCRATCH_FD)
            set_up_a_job(home, channel, own_network=own_network)
        else:
            os.close(CONTROL_FD)
            os.close(HOST_MOUNTS_FD)
            if idle:
                rehearse_init(SCRATCH_FD)
            os.close(SCRATCH_FD)
            init = Init(pid)
            init.prepare()
            init.take_over(channel)
            init.run()
    except BaseException as error:  # nothing may unwind into the nursery's loop; the lock says that we are gone
        os.write(2, f"{role}: {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def divide() -> tuple[int, _socket.socket, bool]:
    """Clone the process that sets up. Returns its pid, or 0 in it; the socket to the other; whether there is time to rehearse."""
    keep_children()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    idle = is_idle(CONTROL_FD)
    pid, pidfd = syscalls.clone3(0, exit_signal=BEFORE_EXEC)
    if pid == 0:
        ours.close()
        return 0, theirs, idle
    theirs.close()
    os.close(pidfd)
    return pid, ours, idle


def set_up_a_job(home: Home, channel: _socket.socket, *, own_network: bool) -> None:
    """In the process beside the init. channel: to it; its end hangs up."""
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CONTROL_FD)
    setup = Setup(home.template, home.profiles, home.boot_id, own_network=own_network, early=home.early)
    try:
        setup.prepare()
        if is_idle(CONTROL_FD):
            rehearse_setup(setup)
    except Exception as error:  # told once there is an attempt to tell it of
        os.seteuid(0)  # it may have broken off in between
        setup.failed = error
    setup.wait_for_work(control)
    setup.run(channel)


def warm_up() -> None:
    """Go through an init's part. Anything may be at CONTROL_FD."""
    for _ in range(WARM_UPS):
        pid, channel, _ = divide()
        if pid == 0:
            os._exit(0)
        channel.close()
        os.waitpid(pid, ALL_KINDS)
        rehearse_init(SCRATCH_FD)

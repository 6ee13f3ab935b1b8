"""The rehearsals of an init and of the process that sets its job's sandbox up: each goes through its part of an attempt that
comes to nothing while there is no work, see ``sample_spec``.

All is as in an attempt but for what cannot be undone: nothing is mounted, nobody is killed or waited for, no right is given up.
"""

from __future__ import annotations

import _signal
import _socket
import os
import select
import sys

from joblet.atomicfile import open_unnamed
from joblet.crash_points import armed
from joblet.sandbox import exit_record, syscalls
from joblet.sandbox.birth import Birth
from joblet.sandbox.capabilities import effective_capabilities
from joblet.sandbox.init import HELD, Init
from joblet.sandbox.memory_file import made
from joblet.sandbox.mounts import execute, plan_job, tmpfs_options
from joblet.sandbox.sample_spec import HANDED_NAMES, HANDED_OVER, PACKED
from joblet.sandbox.setup import GO, WORK_WITH_RECORD, Setup

SCRATCH = "/run/joblet"  # in the root of the job to come
FILE = f"{SCRATCH}/rehearsal"
NOBODY = 1  # ourselves or our parent, whom we can neither kill nor wait for
NO_SIGNAL = 0
FROM_THE_DAEMON = (_signal.SIGTERM, _signal.SIGUSR1)  # they are for the job, which may have begun meanwhile
OUR_RIGHTS = syscalls.CapabilitySet(effective_capabilities(), 0)
NOBODY_SEEN = exit_record.unknown("the command's end was not seen")


def is_idle(control: int) -> bool:
    """Whether there is time to rehearse: no work waits, and nobody is to die at a crash point. control: where work comes from."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    return not (armed() or poll.poll(0))


def rehearse_setup(setup: Setup) -> None:
    """And let the process that waits to become the command rehearse."""
    try:
        setup.birth.rehearse()
        rehearsal = SetupRehearsal(setup)
        rehearsal.perform()
        trouble = rehearsal.trouble
    except OSError as error:
        trouble = str(error)
    complain(trouble)


def rehearse_init(scratch: int) -> None:
    """scratch: a directory for its exit record."""
    trouble = "it broke off"
    try:
        init = Init(NOBODY, NOBODY, NO_SIGNAL, OUR_RIGHTS, FROM_THE_DAEMON)
        perform(init, scratch)
        if init.ended == NOBODY_SEEN:
            trouble = ""
    except FileNotFoundError:
        trouble = ""  # another init rehearses at the same time, in the same place
    except OSError as error:
        trouble = str(error)
    complain(trouble)


def complain(trouble: str) -> None:
    if trouble:  # the launch is slower then
        os.write(2, f"joblet-init: rehearsal: {trouble}\n".encode())


class Unborn(Birth):
    """Talks to us ourselves."""

    def was_killed(self) -> bool:
        super().was_killed()
        return False

    def _step_aside(self) -> None:
        syscalls.current_cpu()
        os.sched_setaffinity(0, self.processors)


class SetupRehearsal(Setup):
    """An attempt without a command."""

    def __init__(self, setup: Setup) -> None:
        self.trouble = "it broke off"
        super().__init__(setup.template, setup.profiles, setup.boot_id, own_network=False, early=True)
        self.init_pid, self.start_time, self.oom_adjusted = setup.init_pid, setup.start_time, False
        self.null_fd = os.dup(setup.null_fd)
        self.out_read, self.out_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.err_read, self.err_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.own_mounts, self.host_mounts = os.dup(setup.own_mounts), os.dup(setup.host_mounts)
        standard = (self.null_fd, self.out_write, self.err_write)
        self.birth = Unborn("/proc", self.init_pid, standard, setup.profiles, own_network=False)
        self.birth.pid = NOBODY
        self.birth.not_the_jobs = [NOBODY]
        self.birth.pidfd = self.null_fd
        self.birth.user_namespace = os.dup(self.null_fd)
        self.birth.maps = [os.dup(self.null_fd), os.dup(self.null_fd)]

    def perform(self) -> None:
        launcher, control = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        channel, init = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        spec = made("rehearsal", PACKED)
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        fds = (os.dup(self.null_fd), status_write, os.dup(self.null_fd), spec)
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        launcher.sendmsg([WORK_WITH_RECORD], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
        launcher.send(GO)
        commands_end = os.dup(self.birth.theirs.fileno())
        try:
            self.wait_for_work(control)
            self.run(channel)
        finally:
            os.unlink(FILE)
        launcher.close()
        channel.close()
        init.close()
        os.close(commands_end)
        left = (
            self.state_fd,
            self.status_fd,
            self.attempt_fd,
            self.record_fd,
            self.oom_fd,
            self.out_read,
            self.err_read,
        )
        for fd in (
            *fds,
            *left,
            self.oom_event,
            self.host.log,
            self.birth.errors,
            *self.usage_fds.values(),
            status_read,
        ):
            os.close(fd)

    def hand_over(self, channel: _socket.socket, why: str) -> None:
        self.trouble = why
        super().hand_over(channel, why)

    def set_up(self) -> None:
        plan_job("", self.spec, self.host.trees)
        options = tmpfs_options(self.spec["tmp_bytes"], "1777")
        try:
            execute([("file", FILE, "rehearsal"), ("tmpfs", f"{FILE}/no-directory", options, syscalls.MS_NOSUID)])
        except NotADirectoryError:
            pass  # what is mounted would have to be unmounted, which takes long
        self.fill_workspace(SCRATCH)
        os.close(self.birth.user_namespace)

    def stand_aside(self) -> None:
        """There is no command to stand in the way of."""

    def forbid_imports(self) -> None:
        """Not yet."""

    def drop_rights(self) -> None:
        OUR_RIGHTS.apply()


def perform(init: Init, scratch: int) -> None:
    """An attempt of which there is nothing to see."""
    channel, setup = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    init.prepare()
    pipes = [os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(3)]
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    record = open_unnamed(f"/proc/self/fd/{scratch}", os.O_WRONLY)
    fds = {"oom_event": event, "attempt": scratch, "record": record}
    fds |= {name: read for name, (read, _) in zip(("stdout", "stderr", "errors"), pipes, strict=True)}
    packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in [fds.get(name, null) for name in HANDED_NAMES])
    setup.sendmsg([HANDED_OVER], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
    for fd in (null, event, record, *(fd for pipe in pipes for fd in pipe), setup.detach()):
        os.close(fd)
    _signal.raise_signal(_signal.SIGCHLD)  # it waits until it can be handled
    try:
        init.take_over(channel)
        init.run()
        os.unlink(exit_record.EXIT, dir_fd=scratch)
    finally:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, HELD)
        _signal.set_wakeup_fd(-1)
    assert init.output is not None
    left = (
        init.state_fd,
        init.status_fd,
        init.attempt_fd,
        init.record_fd,
        init.oom_fd,
        init.oom_event,
        init.output.log.directory_fd,
    )
    for fd in (*left, *init.usage_fds.values(), init.wake_read, init.wake_write):
        os.close(fd)

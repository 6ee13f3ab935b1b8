"""An init's rehearsal: it goes through an attempt that comes to nothing while there is no work, see ``sample_spec``.

All is as in an attempt but for what cannot be undone: nothing is mounted, nobody is killed or waited for, no right is given up.
"""

from __future__ import annotations

import _signal
import _socket
import os
import select
import sys

from joblet.crash_points import armed
from joblet.sandbox import exit_record, syscalls
from joblet.sandbox.birth import Birth
from joblet.sandbox.init import GO, HELD, Init
from joblet.sandbox.log_writer import LogWriter
from joblet.sandbox.mounts import execute, plan_job, tmpfs_options
from joblet.sandbox.sample_spec import PACKED

SCRATCH = "/run/joblet"  # in the root of the job to come
FILE = f"{SCRATCH}/rehearsal"
NOBODY = 1  # ourselves, whom we can neither kill nor wait for
ALL_CAPABILITIES = (1 << 41) - 1


def rehearse_init(init: Init, control: _socket.socket) -> None:
    """Unless work waits already. control: where it comes from."""
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    if armed() or poll.poll(0):
        return
    try:
        init.birth.rehearse()
        rehearsal = Rehearsal(init)
        rehearsal.perform()
        trouble = rehearsal.trouble
    except OSError as error:
        trouble = str(error)
    if trouble:  # the launch is slower then
        os.write(2, f"joblet-init: rehearsal: {trouble}\n".encode())


class Unborn(Birth):
    """Talks to us ourselves."""

    def was_killed(self) -> bool:
        return False


class Rehearsal(Init):
    """An attempt without a command."""

    def __init__(self, init: Init) -> None:
        self.trouble = "it broke off"
        super().__init__(init.template, init.profiles, init.boot_id, own_network=False, early=True)
        self.host_pid, self.start_time, self.oom_adjusted = init.host_pid, init.start_time, False
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.null_fd = os.dup(init.null_fd)
        self.out_read, self.out_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.err_read, self.err_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.own_mounts, self.host_mounts = os.dup(init.own_mounts), os.dup(init.host_mounts)
        standard = (self.null_fd, self.out_write, self.err_write)
        self.birth = Unborn("/proc", self.host_pid, standard, init.profiles, own_network=False)
        self.birth.pid = NOBODY
        self.birth.user_namespace = os.dup(self.null_fd)
        self.birth.maps = [os.dup(self.null_fd), os.dup(self.null_fd)]
        self.scratch = os.open(SCRATCH, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def perform(self) -> None:
        launcher, control = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        spec = os.memfd_create("rehearsal", os.MFD_CLOEXEC)
        os.write(spec, PACKED)
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        fds = (os.dup(self.null_fd), status_write, spec)
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        launcher.sendmsg([b"work"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
        launcher.send(GO)
        commands_end = os.dup(self.birth.theirs.fileno())
        os.write(self.wake_write, bytes([_signal.SIGCHLD]))
        try:
            self.wait_for_work(control)
            os.close(self.attempt_fd)
            self.attempt_fd = self.scratch
            self.run()
        finally:
            for name in (exit_record.EXIT, FILE):
                os.unlink(name, dir_fd=self.scratch)
        launcher.close()
        os.close(commands_end)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, HELD)
        left = (self.state_fd, self.status_fd, self.attempt_fd, self.wake_read, self.wake_write, self.oom_fd)
        for fd in (*fds, *left, self.oom_event, self.host.log, *self.usage_fds.values(), status_read):
            os.close(fd)

    def record(self, outcome: dict[str, object]) -> None:
        self.trouble = "" if outcome == exit_record.exited(0) else str(outcome)
        super().record(outcome)

    def set_up(self) -> None:
        plan_job("", self.spec, self.host.trees)
        self.log = LogWriter(self.host.log, "log", self.spec["log_bytes"])
        options = tmpfs_options(self.spec["tmp_bytes"], "1777")
        try:
            execute([("file", FILE, "rehearsal"), ("tmpfs", f"{FILE}/no-directory", options, syscalls.MS_NOSUID)])
        except NotADirectoryError:
            pass  # what is mounted would have to be unmounted, which takes long
        self.fill_workspace(SCRATCH)
        os.close(self.birth.user_namespace)

    def forbid_imports(self) -> None:
        """Not yet."""

    def drop_rights(self) -> None:
        try:
            syscalls.capset(ALL_CAPABILITIES, 0)  # those that we have
        except OSError:
            pass  # we have fewer

    def kill_everything(self) -> None:
        os.kill(NOBODY, 0)

    def reap(self, *, block: bool) -> None:
        try:
            os.wait4(NOBODY, 0 if block else os.WNOHANG)
        except ChildProcessError:
            self.main_status = 0

"""How the command's process comes into the world, seen from the one that sets its sandbox up, as whose sibling it is born.

Its namespaces are made before it is known what will run. Where a process can enter its cgroups by itself (cgroup v1: its own
thread, by ``tasks``), the process that was born in them waits there for the launch spec, with all done that is the same for
most jobs: it becomes the command. Elsewhere it only holds the namespaces open for an instant, and the command is cloned into its
cgroup when that is known: to move a process takes the kernel a grace period of RCU, some 10 ms.
"""

from __future__ import annotations

import _signal
import _socket  # the C parts alone
import errno
import os
import select
import sys

from joblet.sandbox import command, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# Ends a process before it has executed the command, or the keeper of its memory: init waits for no keeper when all is over.
BEFORE_EXEC = _signal.SIGURG
NAMESPACE_OWNERS = 0xF000_0000  # far above the pool of jobs' ids; a pid has 22 bits


ALL_KINDS = 0x4000_0000  # __WALL, waitpid(2): children with whatever exit signal


class Birth:
    """The command's namespaces, and its process as soon as there is one.

    pid: of the process, a child of our parent, the init; 0 as long as there is none. not_the_jobs: children of the init that the
    job is not to be billed for, among them who keeps that process's memory, see ``syscalls.keep_memory``.
    user_namespace: a descriptor. errors: where ``code text`` comes from if the command can't be executed; end of file means that
    it runs.
    """

    def __init__(
        self, proc: str, host_pid: int, standard: tuple[int, int, int], profiles: dict[str, bytes], *, own_network: bool
    ) -> None:
        """proc: the mounted /proc of our pid namespace. host_pid: the init's. standard: the command's three."""
        self.proc = proc
        self.host_pid = host_pid
        self.standard = standard
        self.profiles = profiles
        self.own_network = own_network
        self.pid = 0
        self.pidfd = -1
        self.keeper = 0
        self.not_the_jobs: list[int] = []
        self.channel, self.theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.errors, self.errors_write = os.pipe2(os.O_CLOEXEC)
        self.namespaces: list[int] = []
        self.user_namespace = -1
        self.maps: list[int] = []
        self.tasks: list[int] = []
        self.cgroup_fd: int | None = None
        self.processors = os.sched_getaffinity(0)

    def prepare(self, *, early: bool) -> None:
        """Make the namespaces. early: the process that is born in them stays. Raises OSError."""
        flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
        names = ["ipc", "uts"]
        if self.own_network:
            flags |= syscalls.CLONE_NEWNET
            names.append("net")
        # What a job has of things that the kernel counts a user (inotify instances, namespaces) counts for whoever made its user
        # namespace, too: that is not root, whose own share a job could use up, but a user id for this init alone.
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECBIT_NO_SETUID_FIXUP)  # its capabilities stay
        os.seteuid(NAMESPACE_OWNERS + self.host_pid)
        if early:
            flags |= syscalls.CLONE_PARENT
        pid, self.pidfd = syscalls.clone3(flags, exit_signal=BEFORE_EXEC)
        if pid == 0:
            self.channel.close()
            if early:
                command.wait_for_work(self.theirs, self.profiles, self.own_network)
            command.furnish_namespaces(self.theirs, self.own_network)
        os.seteuid(0)
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, 0)
        self.theirs.close()  # if that process is killed, we hear of it
        if early:
            self._send(b"descriptors", [*self.standard, self.errors_write])
        word = self.channel.recv(64)
        if not word.startswith(command.READY):
            raise OSError(errno.EIO, "the command's namespaces could not be made")
        if early:
            self.keeper = int(word[len(command.READY) :])
            self.not_the_jobs.append(self.keeper)
        # The mounted /proc of our own pid namespace: in the host's that pid is somebody else.
        directory = f"{self.proc}/{pid}"
        self.user_namespace = os.open(f"{directory}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        self.namespaces = [os.open(f"{directory}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]
        self.maps = [os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC) for name in ("uid_map", "gid_map")]
        self.pid = pid
        if early:
            self.not_the_jobs.append(pid)
        else:
            self.discard()
            os.waitpid(pid, ALL_KINDS)

    def discard(self) -> None:
        """End the process that holds the namespaces: they are held by descriptors. The next one talks by other ends."""
        for pid in filter(None, (self.pid, self.keeper)):
            os.kill(pid, _signal.SIGKILL)
        os.close(self.pidfd)
        self.pid = 0
        self.channel.close()
        self.channel, self.theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    def rehearse(self) -> None:
        """Let the process that waits, if there is one, rehearse."""
        if self.pid:
            self._send(command.REHEARSE, [])

    def was_killed(self) -> bool:
        """The keeper of its memory may still hold its end of the channel."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def map_ids(self, first: int, count: int) -> None:
        mapping = b"0 %d %d" % (first, count)
        for fd in self.maps:
            os.write(fd, mapping)
            os.close(fd)

    def announce(self, spec: dict[str, Any], memfd: int) -> None:
        """Hand the launch spec over, if the process that waits suits the job; else there is none from now on.

        What it gave up cannot be given back, and a network that is given belongs to the host's user namespace.
        """
        if self.pid and not spec["capabilities"] and spec["network"] != "given" and not self.was_killed():
            try:
                self._step_aside()
                self._send(b"work", [memfd])
                self.not_the_jobs.remove(self.pid)
                return
            except OSError:
                pass  # somebody killed it while it waited
        if self.pid:
            self.discard()

    def _step_aside(self) -> None:
        """The kernel likes to wake a process where its waker runs: it would wait for us, though another processor is idle."""
        try:
            if elsewhere := self.processors - {syscalls.current_cpu()}:
                os.sched_setaffinity(self.pid, elsewhere)
        except OSError:
            pass  # somebody killed it, which is seen soon enough; or whoever started us kept the right to himself

    def find_cgroups(self, cgroup: dict[str, Any]) -> None:
        """In the host's tree, once they are there. A process that waits enters them now, while we go on."""
        self.tasks = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in cgroup["join"]]
        if into := cgroup["command_into"]:
            self.cgroup_fd = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self.pid:
            try:
                self._send(command.CGROUPS, self.tasks)
            except BrokenPipeError:
                pass  # its status will say why it ended

    def complete(self, spec: dict[str, Any], given: list[int]) -> None:
        """Back in our own tree. Without a process that waits, clone the command into its cgroup."""
        if not self.pid:
            self._clone(spec, given)

    def let_go(self) -> None:
        """Close what was the command's, once it needs us no more: the end of its output and of its errors would not be seen."""
        for fd in (*self.tasks, self.errors_write, *self.namespaces, *self.standard):
            os.close(fd)
        if self.cgroup_fd is not None:
            os.close(self.cgroup_fd)  # it would keep the removed cgroup in the kernel
        self.theirs.close()

    def _clone(self, spec: dict[str, Any], given: list[int]) -> None:
        """With all of our rights: it drops them, while we set up, and waits."""
        namespaces = [self.user_namespace, *self.namespaces]  # the user namespace gives the right to enter the others
        if spec["network"] == "given":
            # It is entered before the right to is given up. Our own goes unused.
            namespaces[-1:] = []
            namespaces.insert(0, given[spec["network_fd"]])
        self.pid, self.pidfd = syscalls.clone3(syscalls.CLONE_PARENT, self.cgroup_fd)
        if self.pid == 0:
            self.channel.close()
            doors = command.Doors(self.tasks, namespaces, self.standard)
            command.become_new_command(spec, doors, self.theirs, self.errors_write, self.profiles)

    def release(self) -> None:
        """The new root stands: the command may run."""
        try:
            self.channel.send(command.GO)
        except BrokenPipeError:
            pass  # it was killed meanwhile, for one by a memory limit that is too low for it: its status will say so
        self.channel.close()

    def _send(self, word: bytes, fds: list[int]) -> None:
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        self.channel.sendmsg([word], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if fds else [])

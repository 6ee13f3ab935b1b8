"""The launcher: a small single-threaded process that forks jobs.

Started by the daemon with one end of a SOCK_SEQPACKET socket pair. Messages are memfds with marshalled data, since both sides
are the same interpreter and json would weigh on every init. The first is the greeting (version, seccomp programs, where the
template root goes, the inits' cgroup); then each is a launch spec, with the descriptors that it names. The answer is one message:
with the init's pid, its pidfd and its status pipe attached; or with an error, which is then also on record in the attempt's
directory. End of file on the socket ends the launcher; the jobs run on.

One init is kept ready as a spare: its namespaces, those of the command, and the kernel's files are there before a job asks.
A launch hands it the spec; the next spare is made when no request has come for a moment.
"""

from __future__ import annotations

import _signal
import _socket  # the C parts alone
import fcntl
import gc
import marshal
import os
import select
import sys
import time

from joblet.crash_points import armed, hold, reached
from joblet.sandbox import exit_record, syscalls
from joblet.sandbox.init import GO, HELD, HOST_MOUNTS_FD, MOST_DESCRIPTORS, Init, unpacked
from joblet.sandbox.mounts import execute, plan_template
from joblet.sandbox.rehearsal import rehearse_init
from joblet.sandbox.sample_spec import CGROUP, SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
MESSAGE_BYTES = 4096
CONTROL_FD = 3
WRONG_SPEC = (LookupError, TypeError, ValueError, AttributeError)  # what it is to carry out a spec that is none
# Later than a launch takes: the new spare shall not compete with the job for processors.
SPARE_AFTER_MILLISECONDS = 10
GONE_WITHIN_MILLISECONDS = 2000
# SIGKILL and SIGSTOP can't be changed; a write to whom nobody listens shall be an error for us, as Python has it.
UNCHANGED = (_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGPIPE, _signal.SIGXFSZ)


class Spare:
    """An init that waits for work, seen from the launcher."""

    def __init__(self, pid: int, pidfd: int, control: _socket.socket) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.control = control

    def give_work(self, lock_fd: int, status_fd: int, given: list[int]) -> None:
        """Hand it the attempt. given: the launch spec's memfd, and what came with it. Raises OSError if it is gone."""
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (lock_fd, status_fd, *given))
        self.control.sendmsg([b"work"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])

    def let_go(self) -> None:
        """Its cgroups are there. If it died meanwhile, its lock says so."""
        try:
            self.control.send(GO)
        except OSError:
            pass
        self.control.close()


class Launcher:
    """What stays the same from launch to launch."""

    def __init__(self, fd: int) -> None:
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        greeting = self.receive()
        if greeting is None or greeting[0].get("version") != VERSION:
            raise SystemExit(f"launcher: not a greeting of protocol version {VERSION}")
        os.close(greeting[1][0])
        self.profiles: dict[str, bytes] = greeting[0]["seccomp"]
        self.template: str = greeting[0]["template"]
        self.inits_cgroup: str | None = greeting[0]["init_into"]
        self.early: bool = greeting[0].get("early", False)
        self.boot_id = exit_record.boot_id()
        self.spare: Spare | None = None

    def prepare(self) -> None:
        """A mount namespace of our own with the template root in it; then nothing is left to collect or to change."""
        os.chdir("/")
        syscalls.unshare(syscalls.CLONE_NEWNS)
        # What the host mounts later is seen here, nothing of ours is seen there.
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        self.mounts_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        os.makedirs(self.template, 0o700, exist_ok=True)
        execute(plan_template(self.template))
        for number in range(1, _signal.NSIG):  # whoever started the daemon may ignore some: no job inherits that
            if number not in UNCHANGED:
                syscalls.reset_signal(number)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps; who wants to know holds a pidfd
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's to handle
        syscalls.set_name("joblet-launch")
        syscalls.set_command_line(
            "joblet-init"
        )  # what jobs see of pid 1; the paths of this host are not theirs to know
        gc.collect()
        gc.freeze()
        gc.disable()

    def serve(self) -> None:
        """Answer until the daemon hangs up."""
        self.make_spare()
        self.answer({"version": VERSION, "ready": True})
        while self.serve_one():
            if self.spare is None and not self.request_within(SPARE_AFTER_MILLISECONDS):
                self.make_spare()
                self.rehearse()

    def serve_one(self) -> bool:
        """Answer one request; False when the daemon has hung up. Nothing of a job is left for the memory of the next one."""
        message = self.receive()
        if message is None:
            return False
        spec, given = message
        answer, fds = self.launch(spec, given)
        for fd in given:
            os.close(fd)
        self.answer(answer, fds)
        return True

    def rehearse(self) -> None:
        """Go through a launch that comes to nothing, of a spare that is none, asked for by ourselves: see ``sample_spec``."""
        if armed():  # a process shall die in the launch that a test means
            return
        scratch = f"{self.template}.rehearsal"
        daemon, spare = self.socket, self.spare
        asking, self.socket = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        control, init = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        request = os.memfd_create("rehearsal", os.MFD_CLOEXEC)
        try:
            os.makedirs(f"{scratch}/cgroup", exist_ok=True)
            self.spare = Spare(0, os.dup(request), control)
            cgroup = {**CGROUP, "mkdir": [f"{scratch}/cgroup/job"]}
            os.write(request, marshal.dumps({**SPEC, "attempt_dir": scratch, "cgroup": cgroup}))
            asking.sendmsg([b"request"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, request.to_bytes(4, sys.byteorder))])
            self.serve_one()
        except OSError:
            pass  # the next launch is somewhat slower
        finally:
            for end in (asking, self.socket, control, init):
                end.close()
            os.close(request)
            self.socket, self.spare = daemon, spare
            remove_scratch(scratch)

    def make_spare(self) -> None:
        try:
            self.spare = self.make_init(own_network=True)
        except OSError:
            self.spare = None  # the next launch tries again, and puts on record why not

    def request_within(self, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return bool(poll.poll(milliseconds))

    def dismiss_spare(self) -> None:
        """Let it end, and see it gone: it sits in a cgroup that the daemon may want to remove."""
        if self.spare is None:
            return
        self.spare.control.close()
        poll = select.poll()
        poll.register(self.spare.pidfd, select.POLLIN)
        poll.poll(GONE_WITHIN_MILLISECONDS)

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message with its descriptors, the first of which is its memfd; or None at the end.

        What is no message of ours is an empty one.
        """
        room = _socket.CMSG_SPACE(4 * (1 + MOST_DESCRIPTORS))
        data, ancillary, _, _ = self.socket.recvmsg(MESSAGE_BYTES, room, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        fds = unpacked(ancillary[0][2]) if ancillary else []
        try:
            content = marshal.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
        except (OSError, EOFError, MemoryError, *WRONG_SPEC):
            content = None
        return content if isinstance(content, dict) else {}, fds

    def answer(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if fds else []
        self.socket.sendmsg([marshal.dumps(message)], rights)
        for fd in fds:
            os.close(fd)

    def launch(self, spec: dict[str, Any], given: list[int]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Give an init its work, or put on record why not. Idempotent: an attempt that was launched is not launched again."""
        attempt, directory = spec.get("attempt"), spec.get("attempt_dir")
        if not (isinstance(attempt, str) and isinstance(directory, str)):
            return {"attempt": "", "error": "not a launch spec", "code": 126}, ()
        answer = {"attempt": attempt}
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            lock_fd = os.open(f"{directory}/{exit_record.STATE}", flags, 0o600)
        except (OSError, ValueError) as error:
            return {**answer, "error": f"no attempt's directory: {error}", "code": 126}, ()
        try:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return {**answer, "already": True}, ()
            if os.fstat(lock_fd).st_size or os.path.exists(f"{directory}/{exit_record.EXIT}"):
                return {**answer, "already": True}, ()
            made: list[str] = []
            reached("launcher.attempt-locked")
            try:
                init, status_fd = self.give_to_init(spec, lock_fd, given)
                reached("launcher.work-given")
                try:
                    make_cgroups(spec["cgroup"], made)  # while the init wakes up and reads its spec
                except (OSError, *WRONG_SPEC):
                    init.control.close()  # it ends
                    os.close(init.pidfd)
                    os.close(status_fd)
                    raise
                reached("launcher.cgroups-made")
                init.let_go()
                reached("launcher.init-let-go")
            except (OSError, *WRONG_SPEC) as error:
                if not isinstance(error, OSError):
                    message = f"the launch spec is wrong: {type(error).__name__}: {error}"
                else:
                    message = f"{error.strerror}: {error.filename}" if error.filename else str(error)
                self.record_failure(spec, message)
                for path in reversed(made):
                    os.rmdir(path)
                return {**answer, "error": message, "code": 126}, ()
            return {**answer, "pid": init.pid}, (init.pidfd, status_fd)
        finally:
            os.close(lock_fd)

    def give_to_init(self, spec: dict[str, Any], lock_fd: int, given: list[int]) -> tuple[Spare, int]:
        """The spare if there is one of the kind, else a new init. Returns it with the status pipe's read end."""
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        try:
            init = self.spare
            if spec["network"] == "host":
                init = self.make_init(own_network=False)
            elif init is not None:
                self.spare = None
                try:
                    init.give_work(lock_fd, status_write, given)
                except OSError:  # it died while it waited
                    os.close(init.pidfd)
                    init = None
                else:
                    return init, status_read
            if init is None:
                init = self.make_init(own_network=True)
            init.give_work(lock_fd, status_write, given)
            return init, status_read
        except (OSError, *WRONG_SPEC):
            os.close(status_read)
            raise
        finally:
            os.close(status_write)

    def make_init(self, *, own_network: bool) -> Spare:
        """clone3 an init, which prepares itself and waits."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        into = self.inits_cgroup
        cgroup_fd = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if into else None
        # Nothing may reach the init before it can handle it.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, HELD)
        try:
            pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS, cgroup_fd)
            if pid == 0:
                self.become_init(theirs, own_network)
            reached("launcher.init-cloned")
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            if cgroup_fd is not None:
                os.close(cgroup_fd)
            theirs.close()
        return Spare(pid, pidfd, ours)

    def become_init(self, control: _socket.socket, own_network: bool) -> None:
        """The child: keep its end of the control socket, let go of all else of the launcher's. Never returns."""
        attempt = "spare"
        try:
            # Above both places first: neither may be overwritten by the other.
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, HOST_MOUNTS_FD + 1) for fd in (control.detach(), self.mounts_fd)]
            for fd, place in zip(high, (CONTROL_FD, HOST_MOUNTS_FD), strict=True):
                os.dup2(fd, place, inheritable=False)
            control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CONTROL_FD)
            syscalls.close_range(HOST_MOUNTS_FD + 1)
            os.setsid()
            hold()
            init = Init(self.template, self.profiles, self.boot_id, own_network=own_network, early=self.early)
            try:
                init.prepare()
                rehearse_init(init, control)
            except Exception as error:  # told once there is an attempt to tell it of
                os.seteuid(0)  # it may have broken off in between
                init.failed = error
            init.wait_for_work(control)
            attempt = init.spec["attempt"]
            init.run()
        except BaseException as error:  # nothing may unwind into the launcher's loop; the lock says that we are gone
            os.write(2, f"joblet-init {attempt}: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)

    def record_failure(self, spec: dict[str, Any], message: str) -> None:
        """The exit record of an attempt that did not get as far as its init."""
        dir_fd = os.open(spec["attempt_dir"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            exit_record.write(
                dir_fd,
                {
                    "attempt": spec["attempt"],
                    "boot_id": self.boot_id,
                    "outcome": exit_record.not_started(126, message),
                    "cause": "",
                    "started_ns": None,
                    "ended_ns": time.time_ns(),
                    "usage": {},
                    "cpu_seconds": 0.0,
                },
                durable=True,
            )
        finally:
            os.close(dir_fd)


def make_cgroups(plan: dict[str, Any], made: list[str]) -> None:
    """Carry out the cgroup plan: directories, then values. Raises OSError that names the limit."""
    for directory in plan["mkdir"]:
        os.mkdir(directory, 0o755)
        made.append(directory)
    for path, value, limit in plan["write"]:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            text = f"limit {limit}: the kernel refuses {value!r} ({error.strerror})"
            raise OSError(error.errno, text, path) from None
        finally:
            os.close(fd)


def remove_scratch(directory: str) -> None:
    """What a rehearsal left, if it got so far."""
    for name, remove in (
        (exit_record.STATE, os.unlink),
        ("cgroup/job", os.rmdir),
        ("cgroup", os.rmdir),
        ("", os.rmdir),
    ):
        try:
            remove(f"{directory}/{name}")
        except OSError:
            pass


def main() -> None:
    """Entry point: ``python -I -S -c "... main()" FD``."""
    launcher = Launcher(int(sys.argv[1]))
    launcher.prepare()
    try:
        launcher.serve()
    except (ConnectionResetError, BrokenPipeError):
        pass  # the daemon was killed over a request: an end of file as well
    launcher.dismiss_spare()

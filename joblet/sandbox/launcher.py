"""The launcher: a small single-threaded process that has jobs forked and hands them their work.

Started by the daemon with one end of a SOCK_SEQPACKET socket pair. Messages are memfds with marshalled data, since both sides
are the same interpreter and json would weigh on every init. The first is the greeting (version, seccomp programs, where the
template root goes, the inits' cgroup); then each is a launch spec, with the descriptors that it names. The answer is one message:
with the init's pid, its pidfd and its status pipe attached; or with an error, which is then also on record in the attempt's
directory. End of file on the socket ends the launcher; the jobs run on.

One init is kept ready as a spare: its namespaces, those of the command, and the kernel's files are there before a job asks.
A launch hands it the spec; the next spare is made when no request has come for a moment. Inits are children of another process,
see ``nursery``.
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

from joblet.atomicfile import name_file, open_unnamed
from joblet.crash_points import armed, reached
from joblet.sandbox import exit_record, syscalls
from joblet.sandbox.init import MOST_DESCRIPTORS, unpacked
from joblet.sandbox.memory_file import content_of
from joblet.sandbox.mounts import execute, plan_template
from joblet.sandbox.nursery import Home, Nursery, seen_to_end
from joblet.sandbox.sample_spec import CGROUP, SPEC
from joblet.sandbox.setup import GO, WORK, WORK_WITH_RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
MESSAGE_BYTES = 4096
WRONG_SPEC = (LookupError, TypeError, ValueError, AttributeError)  # what it is to carry out a spec that is none
# Later than a launch takes: the new spare shall not compete with the job for processors.
SPARE_AFTER_MILLISECONDS = 10
# SIGKILL and SIGSTOP can't be changed; a write to whom nobody listens shall be an error for us, as Python has it.
UNCHANGED = (_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGPIPE, _signal.SIGXFSZ)


class Spare:
    """An init that waits for work, seen from the launcher."""

    def __init__(self, pid: int, pidfd: int, control: _socket.socket) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.control = control

    def give_work(self, own: tuple[int, ...], given: list[int]) -> None:
        """Hand it the attempt. own: the lock, the status pipe, the file of the exit record if that is made. given: the launch
        spec's memfd, and what came with it. Raises OSError if it is gone."""
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (*own, *given))
        word = WORK_WITH_RECORD if len(own) == 3 else WORK
        self.control.sendmsg([word], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])

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
        self.spare_cgroups: list[str] = greeting[0].get("spare_cgroups", [])
        self.attempts: str = greeting[0].get("attempts", "")
        self.files: list[int] = []  # without a name: a state file, and one for the exit record
        self.cgroups: dict[str, str] = {}  # those that are there, by the directory that they are in
        self.boot_id = exit_record.boot_id()
        self.spare: Spare | None = None

    def prepare(self) -> None:
        """A mount namespace of our own with the template root in it; then nothing is left to collect or to change."""
        os.chdir("/")
        syscalls.unshare(syscalls.CLONE_NEWNS)
        # What the host mounts later is seen here, nothing of ours is seen there.
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
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
        home = Home(self.template, self.profiles, self.boot_id, self.inits_cgroup, early=self.early)
        self.nursery = Nursery(home, mounts)
        os.close(mounts)

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
        daemon, spare, cgroups, files = self.socket, self.spare, self.cgroups, self.files
        asking, self.socket = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        control, init = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        request = os.memfd_create("rehearsal", os.MFD_CLOEXEC)
        try:
            os.makedirs(f"{scratch}/cgroup/spare", exist_ok=True)
            self.cgroups = {f"{scratch}/cgroup": f"{scratch}/cgroup/spare"}
            self.files = spare_files(scratch)
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
            self.socket, self.spare, self.cgroups, self.files = daemon, spare, cgroups, files
            remove_scratch(scratch)

    def make_spare(self) -> None:
        try:
            self.spare = self.make_init(own_network=True)
        except OSError:
            self.spare = None  # the next launch tries again, and puts on record why not
        self.cgroups = spare_cgroups(self.spare_cgroups)
        self.files = self.files or spare_files(self.attempts)

    def request_within(self, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN)
        return bool(poll.poll(milliseconds))

    def dismiss_spare(self) -> None:
        """Let it end, and see it gone: it sits in a cgroup that the daemon may want to remove. Then the nursery: it reaps it."""
        if self.spare is not None:
            self.spare.control.close()
            seen_to_end(self.spare.pidfd)
        for directory in self.cgroups.values():
            os.rmdir(directory)
        self.nursery.close()

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
            content = content_of(fds[0])
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
        record: list[int] = []  # the file for the exit record
        try:
            lock_fd, record = self.state_file(f"{directory}/{exit_record.STATE}")
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
                init, status_fd = self.give_to_init(spec, lock_fd, record, given)
                reached("launcher.work-given")
                try:
                    make_cgroups(spec["cgroup"], self.cgroups, made)  # while the init wakes up and reads its spec
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
            for fd in (lock_fd, *record):
                os.close(fd)

    def state_file(self, path: str) -> tuple[int, list[int]]:
        """The attempt's state file, opened, and a file for its exit record if there is one beforehand. Raises OSError."""
        files, self.files = self.files, []
        if files:
            try:
                name_file(files[0], path)
                return files[0], files[1:]
            except OSError:  # it is there already, or somewhere else
                for fd in files:
                    os.close(fd)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), []

    def give_to_init(
        self, spec: dict[str, Any], lock_fd: int, record: list[int], given: list[int]
    ) -> tuple[Spare, int]:
        """The spare if there is one of the kind, else a new init. Returns it with the status pipe's read end."""
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        own = (lock_fd, status_write, *record)
        try:
            init = self.spare
            if spec["network"] == "host":
                init = self.make_init(own_network=False)
            elif init is not None:
                self.spare = None
                try:
                    init.give_work(own, given)
                except OSError:  # it died while it waited
                    os.close(init.pidfd)
                    init = None
                else:
                    return init, status_read
            if init is None:
                init = self.make_init(own_network=True)
            init.give_work(own, given)
            return init, status_read
        except (OSError, *WRONG_SPEC):
            os.close(status_read)
            raise
        finally:
            os.close(status_write)

    def make_init(self, *, own_network: bool) -> Spare:
        """Have the nursery bear one, which prepares itself and waits."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            pid, pidfd = self.nursery.bear(theirs.fileno(), own_network)
            reached("launcher.init-cloned")
        finally:
            theirs.close()
        return Spare(pid, pidfd, ours)

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


def spare_files(directory: str) -> list[int]:
    """A state file and one for an exit record, or nothing. directory: where attempts have theirs; may be empty."""
    made: list[int] = []
    try:
        if directory:
            made.append(open_unnamed(directory, os.O_RDWR | os.O_APPEND))
            made.append(open_unnamed(directory, os.O_WRONLY))
    except OSError:  # the file system knows no such thing, or is full
        while made:
            os.close(made.pop())
    return made


def spare_cgroups(directories: list[str]) -> dict[str, str]:
    """Make them; a launch that finds none of them makes its own. Returns each by the directory that it is in."""
    made: dict[str, str] = {}
    for directory in directories:
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            pass  # of a launcher before us
        except OSError:
            continue
        made[os.path.dirname(directory)] = directory
    return made


def make_cgroups(plan: dict[str, Any], spares: dict[str, str], made: list[str]) -> None:
    """Carry out the cgroup plan: directories, made or of the spares, then values. Raises OSError that names the limit."""
    for directory in plan["mkdir"]:
        spare = spares.pop(os.path.dirname(directory), "")
        try:
            os.rename(spare, directory)
        except OSError:
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
        ("cgroup/spare", os.rmdir),
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

"""The launcher: a small single-threaded process that forks jobs.

Started by the daemon with one end of a SOCK_SEQPACKET socket pair. The first message is the greeting (JSON: version, seccomp
programs, where the template root goes); then each launch request is a message with a memfd that holds the launch spec (JSON).
The answer is one JSON message: with the init's pid, its pidfd and its status pipe attached; or with an error, which is then
also on record in the attempt's directory. End of file on the socket ends the launcher; the jobs run on.

It imports next to nothing, so that a fork is cheap and safe.
"""

from __future__ import annotations

import _socket  # the C part alone
import fcntl
import gc
import json
import os
import signal
import sys
import time

from joblet.sandbox import exit_record, syscalls
from joblet.sandbox.init import Init
from joblet.sandbox.mounts import execute, plan_template

VERSION = 1
MESSAGE_BYTES = 4096
GREETING_BYTES = 1 << 20
LOCK_FD = 3
STATUS_FD = 4
FIRST_OTHER_FD = 5


class Launcher:
    """What stays the same from launch to launch."""

    def __init__(self, fd: int) -> None:
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        greeting = json.loads(read_greeting(self.socket))
        if greeting.get("version") != VERSION:
            raise SystemExit(f"launcher: protocol version {greeting.get('version')}, mine is {VERSION}")
        self.seccomp = {name: bytes.fromhex(program) for name, program in greeting["seccomp"].items()}
        self.template: str = greeting["template"]

    def prepare(self) -> None:
        """A mount namespace of our own with the template root in it; then nothing is left to collect or to change."""
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        os.makedirs(self.template, 0o700, exist_ok=True)
        execute(plan_template(self.template))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; who wants to know holds a pidfd
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the daemon's to handle
        syscalls.set_name("joblet-launch")
        syscalls.set_command_line(
            "joblet-init"
        )  # what jobs see of pid 1; the paths of this host are not theirs to know
        gc.collect()
        gc.freeze()
        gc.disable()

    def serve(self) -> None:
        """Answer until the daemon hangs up."""
        self.socket.send(json.dumps({"version": VERSION, "ready": True}).encode())
        while True:
            data, ancillary, _, _ = self.socket.recvmsg(MESSAGE_BYTES, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
            if not data:
                return
            memfd = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            with open(memfd, "rb") as file:
                spec = json.loads(file.read())
            answer, fds = self.launch(spec)
            packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if fds else []
            self.socket.sendmsg([json.dumps(answer).encode()], rights)
            for fd in fds:
                os.close(fd)

    def launch(self, spec: dict) -> tuple[dict, tuple[int, ...]]:  # type: ignore[type-arg]
        """Start one init, or put on record why not. Idempotent: an attempt that was launched is not launched again."""
        answer = {"attempt": spec["attempt"]}
        lock_fd = os.open(
            os.path.join(spec["attempt_dir"], exit_record.LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return {**answer, "already": True}, ()
            if any(
                os.path.exists(os.path.join(spec["attempt_dir"], name))
                for name in (exit_record.EXIT, exit_record.STATE)
            ):
                return {**answer, "already": True}, ()
            made: list[str] = []
            try:
                make_cgroups(spec["cgroup"], made)
                pid, pidfd, status_fd = self.start_init(spec, lock_fd)
            except OSError as error:
                message = f"{error.strerror}: {error.filename}" if error.filename else str(error)
                record_failure(spec, message)
                for directory in reversed(made):
                    os.rmdir(directory)
                return {**answer, "error": message, "code": 126}, ()
            return {**answer, "pid": pid}, (pidfd, status_fd)
        finally:
            os.close(lock_fd)

    def start_init(self, spec: dict, lock_fd: int) -> tuple[int, int, int]:  # type: ignore[type-arg]
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        into = spec["cgroup"]["init_into"]
        cgroup_fd = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if into else None
        # Nothing may reach the init before it can handle it.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD))
        try:
            pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS, cgroup_fd)
            if pid == 0:
                self.become_init(spec, lock_fd, status_write)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.close(status_write)
            if cgroup_fd is not None:
                os.close(cgroup_fd)
        return pid, pidfd, status_read

    def become_init(self, spec: dict, lock_fd: int, status_fd: int) -> None:  # type: ignore[type-arg]
        """The child: keep the lock and the status pipe, let go of all else of the launcher's. Never returns."""
        try:
            high_lock, high_status = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1000) for fd in (lock_fd, status_fd))
            os.dup2(high_lock, LOCK_FD, inheritable=False)
            os.dup2(high_status, STATUS_FD, inheritable=False)
            syscalls.close_range(FIRST_OTHER_FD)
            os.setsid()
            profile = spec["seccomp"]
            program = bytes.fromhex(profile["program"]) if "program" in profile else self.seccomp[profile["name"]]
            Init(spec, STATUS_FD, program, self.template).run()
        except BaseException as error:  # nothing may unwind into the launcher's loop; the lock says that we are gone
            os.write(2, f"joblet-init {spec['attempt']}: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)


def read_greeting(socket: _socket.socket) -> bytes:
    """The greeting comes as the memfd of the first message, as each request does."""
    _, ancillary, _, _ = socket.recvmsg(MESSAGE_BYTES, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    with open(int.from_bytes(ancillary[0][2][:4], sys.byteorder), "rb") as file:
        return file.read(GREETING_BYTES)


def make_cgroups(plan: dict, made: list[str]) -> None:  # type: ignore[type-arg]
    """Carry out the cgroup plan: directories, then values. Raises OSError that names the limit."""
    for directory in plan["mkdir"]:
        os.mkdir(directory, 0o755)
        made.append(directory)
    for path, value, limit in plan["write"]:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(
                error.errno, f"limit {limit}: the kernel refuses {value!r} ({error.strerror})", path
            ) from None
        finally:
            os.close(fd)


def record_failure(spec: dict, message: str) -> None:  # type: ignore[type-arg]
    """The exit record of an attempt that did not get as far as its init."""
    dir_fd = os.open(spec["attempt_dir"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        exit_record.write(
            dir_fd,
            {
                "attempt": spec["attempt"],
                "boot_id": exit_record.boot_id(),
                "outcome": exit_record.not_started(126, message),
                "cause": "",
                "started_ns": None,
                "ended_ns": time.time_ns(),
                "usage": {},
                "cpu_seconds": 0.0,
            },
        )
    finally:
        os.close(dir_fd)


def main() -> None:
    """Entry point: ``python -I -S -c "... main()" FD``."""
    launcher = Launcher(int(sys.argv[1]))
    launcher.prepare()
    launcher.serve()

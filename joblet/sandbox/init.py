"""The init: pid 1 inside a job. Sees the command through: reaps, captures output, records the exit.

It is root of the host's user namespace with few capabilities left, in the job's pid and mount namespaces; the command lives in
a user namespace below, which also owns the command's network, IPC and UTS namespaces. So nothing the command may be given
gives it power over init or over the mounts.

What comes before, from the namespaces to the command's start, is done by a process beside it, see ``setup``: an init lives as
long as its job, and each page of memory that it writes to is one of its own from then on.
"""

from __future__ import annotations

import _signal
import _socket  # the C parts alone: signal.py and socket.py would be in every init's memory
import errno
import marshal
import os
import select
import sys
import time

from joblet.crash_points import reached
from joblet.sandbox import exit_record, outputs, syscalls
from joblet.sandbox.birth import ALL_KINDS, BEFORE_EXEC
from joblet.sandbox.capabilities import mask_of
from joblet.sandbox.log_writer import LogWriter
from joblet.sandbox.memory_file import content_of
from joblet.sandbox.output_capture import OutputCapture
from joblet.sandbox.redaction import Redaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What init needs: to signal the command (whose user ids differ), nothing else.
EVERYBODY = -1  # of our pid namespace, kill(2); of our children, wait4(2)
KEPT_CAPABILITIES = syscalls.CapabilitySet(mask_of(["KILL"]), 0)
HELD = (_signal.SIGTERM, _signal.SIGUSR1, _signal.SIGCHLD, BEFORE_EXEC)  # until they can be handled
CHILD_ENDED = bytes([_signal.SIGCHLD])
FULL_DISK_SECONDS = 0.5  # between two tries to write the exit record
MOST_DESCRIPTORS = 40  # that may come with a launch spec, or be handed over to the init
HANDED_OVER_BYTES = 65536  # at most
USAGE = "usage "  # begins the names of files that the exit record quotes


class Init:
    """One attempt, from the start of its command to its exit record. Lives in a process of its own.

    It is born as a spare, before there is work for it.
    """

    def __init__(
        self,
        setup_pid: int,
        everybody: int = EVERYBODY,
        kill_signal: int = _signal.SIGKILL,
        rights: syscalls.CapabilitySet = KEPT_CAPABILITIES,
        held: tuple[int, ...] = (),
    ) -> None:
        """setup_pid: the process that sets the sandbox up. everybody: whom to kill by ``kill_signal`` and to wait for. rights:
        what is left of them. held: signals that go on waiting. A rehearsal differs in these and not in its class: the interpreter
        adapts itself to classes."""
        self.everybody = everybody
        self.kill_signal = kill_signal
        self.rights = rights
        self.held = held
        self.spec: dict[str, Any] = {}  # what init needs of it
        self.boot_id = ""
        self.state_fd = -1
        self.released = False
        self.why = ""  # the command could not be started
        self.attempt_fd = -1
        self.record_fd = -1  # a file without a name, to become the exit record
        self.status_fd = -1
        self.errors_fd = -1
        self.output: OutputCapture | None = None
        self.redaction: Redaction | None = None  # of what nothing that we keep may show
        self.usage_fds: dict[str, int] = {}
        self.main_status: int | None = None
        self.over = False  # the command has ended
        self.ended: dict[str, object] = {}  # how, once that is on record
        self.cpu_seconds = 0.0
        self.started_ns: int | None = None
        self.cause = ""
        self.killing = False
        self.deadline: float | None = None  # of the timeout, then of the grace; CLOCK_BOOTTIME
        self.start_error: tuple[int, str] | None = None
        self.main_pid = 0
        self.setup_pid = setup_pid
        self.not_counted = {setup_pid}  # children that the job is not billed for
        self.outputs: dict[str, str] = {}
        self.outputs_error = ""
        self.oom_fd = -1
        self.oom_event = -1

    def prepare(self) -> None:
        """Be a spare: signals, and no rights but those that are needed to the end."""
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        os.write(self.wake_write, CHILD_ENDED)  # who ended before we were so far
        self.rights.apply()

    def take_over(self, channel: _socket.socket) -> None:
        """Wait until the sandbox stands and the command may run, or does not, and take what comes with that. If nothing does,
        who sets up was killed over it, or there is no work any more: the attempt's end is ours, too."""
        room = _socket.CMSG_SPACE(4 * MOST_DESCRIPTORS)
        data, ancillary, _, _ = channel.recvmsg(HANDED_OVER_BYTES, room, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        channel.close()
        content, fds = marshal.loads(data), unpacked(ancillary[0][2])
        named = dict(zip(content["names"], fds, strict=True))
        self.spec, self.boot_id, self.why = content["spec"], content["boot_id"], content["why"]
        self.released = content["released"]
        # The state file is locked by this descriptor, which stays open for as long as this process lives.
        self.state_fd, self.status_fd, self.attempt_fd = named["state"], named["status"], named["attempt"]
        self.record_fd = named.get("record", -1)
        self.not_counted.update(content["not_counted"])
        if self.why:
            return
        self.main_pid, self.deadline = content["main_pid"], content["deadline"]
        if "redacted" in named:
            self.redaction = Redaction(content_of(named["redacted"]))
            os.close(named["redacted"])
        streams = {named["stdout"]: "stdout", named["stderr"]: "stderr"}
        log = LogWriter(named["log"], content["log_name"], content["log_bytes"])
        self.output = OutputCapture(streams, log, self.redaction)
        self.errors_fd = named["errors"]
        self.oom_fd, self.oom_event = named.get("oom", -1), named.get("oom_event", -1)
        self.usage_fds = {name[len(USAGE) :]: fd for name, fd in named.items() if name.startswith(USAGE)}

    def run(self) -> None:
        """All that is left of the attempt. The exit record is written in every case."""
        try:
            if self.why:
                outcome = self.not_seen_through(self.why)
            else:
                self.supervise()
                outcome = self.outcome()
                self.collect_outputs()
            reached("init.command-ended")
        except Exception as error:  # the record must be written, whatever it was
            outcome = self.not_seen_through(reason(error))
        self.record(outcome)

    def not_seen_through(self, why: str) -> dict[str, object]:
        self.kill_everything()
        self.reap(block=True)
        return exit_record.unknown(why) if self.released else exit_record.not_started(126, why)

    # --- the command --------------------------------------------------------------------------------------------------

    def supervise(self) -> None:
        """Wait for everything at once until the command is over and its output is drained."""
        poll, output = select.poll(), self.output
        assert output is not None
        for fd in (*output.streams, self.errors_fd, self.wake_read):
            poll.register(fd, select.POLLIN)
        if self.oom_event >= 0:
            poll.register(self.oom_event, select.POLLIN)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.held)
        self.check_oom()  # what happened before anybody waited for it
        while not self.over:
            for fd, _ in poll.poll(self.milliseconds_left()):
                if fd in output.streams:
                    output.copy(poll, fd)
                elif fd == self.errors_fd:
                    self.note_exec(poll)
                elif fd == self.oom_event:
                    os.eventfd_read(fd)
                else:
                    self.take_signals()
            self.check_oom()
            self.check_deadline()
        if self.anybody_left():
            self.kill_everything()
            self.reap(block=True)
        if self.errors_fd >= 0:
            self.note_exec(poll)
        output.drain(poll)

    def note_exec(self, poll: select.poll) -> None:
        """The error pipe says: a reason, or (closed by the exec) that the command runs."""
        text = os.read(self.errors_fd, 4096).decode(errors="replace")
        poll.unregister(self.errors_fd)
        os.close(self.errors_fd)
        self.errors_fd = -1
        if text:
            code, _, reason = text.partition(" ")
            self.start_error = int(code), reason
            return
        self.started_ns = time.time_ns()
        if self.spec["timeout_seconds"] is not None and not self.cause:
            self.deadline = now() + self.spec["timeout_seconds"]  # the command's time; the set-up had its own
        line = f"started {self.started_ns}\n".encode()
        os.write(self.state_fd, line)
        reached("init.exec-noted")
        self.tell(line)

    def tell(self, line: bytes) -> None:
        try:
            os.write(self.status_fd, line)
        except BrokenPipeError:
            pass  # the daemon is away; the files tell the next one

    # --- its end ------------------------------------------------------------------------------------------------------

    def take_signals(self) -> None:
        for number in os.read(self.wake_read, 4096):
            if number == _signal.SIGTERM:
                self.begin_stop("stop")
            elif number == _signal.SIGUSR1:
                self.cause = self.cause or "kill"
                self.kill_everything()
        self.reap(block=False)

    def begin_stop(self, cause: str) -> None:
        """The stop signal to the command, and the grace begins. Later stops change nothing."""
        if self.cause or self.main_status is not None:
            return
        self.cause = cause
        self.deadline = now() + self.spec["grace_seconds"]
        os.kill(self.main_pid, self.spec["stop_signal"])
        # A stopped process takes no signal but SIGKILL and SIGCONT.
        os.kill(self.main_pid, _signal.SIGCONT)

    def check_deadline(self) -> None:
        if self.deadline is None or now() < self.deadline or self.main_status is not None:
            return
        if self.cause:
            self.kill_everything()
            self.deadline = None
        else:
            self.begin_stop("timeout")

    def check_oom(self) -> None:
        if self.oom_fd >= 0 and not self.killing and oom_kills(os.pread(self.oom_fd, 4096, 0)):
            self.kill_everything()

    def kill_everything(self) -> None:
        """Kill all of the pid namespace but ourselves."""
        self.killing = True
        try:
            os.kill(self.everybody, self.kill_signal)
        except ProcessLookupError:
            pass  # nobody is left

    def anybody_left(self) -> bool:
        """Of the job's processes: each is a descendant of ours, and without its parent our child. Whoever else is there, see
        ``not_counted``, or entered from outside, ends with us: their memory shall not be taken apart before that."""
        while True:
            try:
                pid, _, usage = os.wait4(self.everybody, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.cpu_seconds += usage.ru_utime + usage.ru_stime

    def reap(self, *, block: bool) -> None:
        """Collect the dead. block: until nobody is left, which is soon, since all were killed."""
        while True:
            try:
                pid, status, usage = os.wait4(self.everybody, 0 if block else os.WNOHANG | ALL_KINDS)
            except ChildProcessError:
                self.over = True
                return
            if pid == 0:
                return
            if pid == self.main_pid and self.main_status is None:
                self.main_status, self.over = status, True
            if pid in self.not_counted:
                self.not_counted.remove(pid)
                if pid == self.setup_pid:
                    self.dismiss_keeper()
            else:
                self.cpu_seconds += usage.ru_utime + usage.ru_stime
            if block:
                self.kill_everything()  # what was forked in between

    def dismiss_keeper(self) -> None:
        """The command has started, or never will: its first memory is of no use to anybody."""
        for pid in self.not_counted:
            os.kill(pid, _signal.SIGKILL)

    def milliseconds_left(self) -> int | None:
        if self.deadline is None:
            return None
        return max(0, int((self.deadline - now()) * 1000) + 1)

    def outcome(self) -> dict[str, object]:
        if self.start_error is not None:
            return exit_record.not_started(*self.start_error)
        if self.main_status is None:
            return exit_record.unknown("the command's end was not seen")
        code = os.waitstatus_to_exitcode(self.main_status)
        return exit_record.exited(code) if code >= 0 else exit_record.killed(-code)

    def collect_outputs(self) -> None:
        """What the job was to hand on."""
        if names := self.spec.get("outputs"):
            self.outputs, self.outputs_error = outputs.collect(names)
        if self.redaction is not None:
            redact = self.redaction.apply
            self.outputs = {name: redact(text.encode()).decode(errors="replace") for name, text in self.outputs.items()}

    def record(self, outcome: dict[str, object]) -> None:
        """The exit record; then there is nothing left to do."""
        usage = {}
        for key, fd in self.usage_fds.items():
            try:
                usage[key] = os.pread(fd, 65536, 0).decode(errors="replace")
            except OSError as error:
                usage[key] = ""
                outcome.setdefault("usage_error", str(error))
        log = self.output.log if self.output is not None else None
        record = {
            "attempt": self.spec["attempt"],
            "boot_id": self.boot_id,
            "outcome": outcome,
            "cause": self.cause,
            "started_ns": self.started_ns,
            "ended_ns": time.time_ns(),
            "usage": usage,
            "cpu_seconds": round(self.cpu_seconds, 6),
            "log_dropped_bytes": log.dropped_bytes if log else 0,
            "log_error": log.error if log else "",
            "outputs": self.outputs,
            "outputs_error": self.outputs_error,
        }
        while True:
            try:
                exit_record.write(self.attempt_fd, record, durable=False, made=self.record_fd)
                break
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
            time.sleep(FULL_DISK_SECONDS)  # nothing but this record tells how it ended: it waits for room
        # It is there for all to see. What a power cut may do to it before the fsync is seen as no record.
        reached("init.exit-recorded")
        self.tell(b"ended\n")
        reached("init.end-told")
        self.ended = outcome
        exit_record.make_durable(self.attempt_fd)


def now() -> float:
    """Seconds of CLOCK_BOOTTIME: a timeout goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def reason(error: Exception) -> str:
    """For the exit record."""
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}"
    return f"{type(error).__name__}: {error}"


def hold_signals() -> None:
    """Before an init has children: signals that mean something to it wait until it is ready for them."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, HELD)
    for number in HELD:
        _signal.signal(number, _nothing)


def keep_children() -> None:
    """They stay for us to wait for: whoever bears inits ignores SIGCHLD, and the kernel reaps."""
    _signal.signal(_signal.SIGCHLD, _nothing)


def _nothing(_: int, __: object) -> None:
    """Signals are read from the wake-up pipe."""


def oom_kills(text: bytes) -> int:
    """The count in memory.oom_control (v1)."""
    for line in text.splitlines():
        if line.startswith(b"oom_kill "):
            return int(line.split()[1])
    return 0


def unpacked(fds: bytes) -> list[int]:
    """The descriptors of an SCM_RIGHTS message."""
    return [int.from_bytes(fds[at : at + 4], sys.byteorder) for at in range(0, len(fds) - len(fds) % 4, 4)]

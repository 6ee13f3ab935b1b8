"""The init: pid 1 inside a job. Sets the sandbox up, runs the command, reaps, captures output, records the exit.

It is root of the host's user namespace with few capabilities left, in the job's pid and mount namespaces; the command lives in
a user namespace below, which also owns the command's network, IPC and UTS namespaces. So nothing the command may be given
gives it power over init or over the mounts.
"""

from __future__ import annotations

import _signal
import _socket  # the C parts alone: signal.py and socket.py would be in every init's memory
import errno
import fcntl
import marshal
import os
import select
import sys
import time

from joblet.crash_points import reached
from joblet.sandbox import exit_record, syscalls
from joblet.sandbox.birth import ALL_KINDS, BEFORE_EXEC, Birth
from joblet.sandbox.capabilities import mask_of
from joblet.sandbox.host_files import HostFiles, forbid_imports
from joblet.sandbox.log_writer import CHUNK_BYTES, LogWriter
from joblet.sandbox.mounts import execute, plan_job, plan_spare
from joblet.sandbox.workspace_files import fill, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PIPE_BYTES = 1 << 20
DRAIN_BYTES_AT_MOST = 1 << 30
# What init needs once the sandbox stands: to signal the command (whose user ids differ), nothing else.
KEPT_CAPABILITIES = mask_of(["KILL"])
F_SETPIPE_SZ = 1031
HELD = (_signal.SIGTERM, _signal.SIGUSR1, _signal.SIGCHLD, BEFORE_EXEC)  # until they can be handled
GO = b"g"  # from the launcher: the cgroups are there
FULL_DISK_SECONDS = 0.5  # between two tries to write the exit record
HOST_MOUNTS_FD = 4  # the mount namespace with the host's tree, from the launcher
MOST_DESCRIPTORS = 40  # that may come with a launch spec


class Init:
    """One attempt, from its namespaces to its exit record. Lives in a process of its own.

    It is born as a spare, before there is work for it: everything that is the same for all jobs is done by then.
    """

    def __init__(
        self, template: str, profiles: dict[str, bytes], boot_id: str, *, own_network: bool, early: bool
    ) -> None:
        """profiles: seccomp programs by name. own_network: the command gets a network namespace. early: its process is born
        before there is work."""
        self.template = template
        self.profiles = profiles
        self.boot_id = boot_id
        self.own_network = own_network
        self.early = early
        self.spec: dict[str, Any] = {}
        self.given: list[int] = []  # descriptors that the spec names by their place here
        self.state_fd = -1
        self.released = False
        self.failed: Exception | None = None  # why it could not prepare
        self.attempt_fd = -1
        self.status_fd = -1
        self.host_mounts = HOST_MOUNTS_FD
        self.log: LogWriter | None = None
        self.usage_fds: dict[str, int] = {}
        self.main_status: int | None = None
        self.cpu_seconds = 0.0
        self.started_ns: int | None = None
        self.cause = ""
        self.killing = False
        self.deadline: float | None = None  # of the timeout, then of the grace; CLOCK_BOOTTIME
        self.start_error: tuple[int, str] | None = None
        self.main_pid = 0
        self.collect: Callable[[], tuple[dict[str, str], str]] | None = None  # reads what it hands on
        self.outputs: dict[str, str] = {}
        self.outputs_error = ""
        self.oom_fd = -1
        self.oom_event = -1

    def prepare(self) -> None:
        """Be a spare: signals, kernel files, output pipes, and the namespaces that the command will enter."""
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.set_name("joblet-init")
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        for number in HELD:
            _signal.signal(number, _nothing)
        self.host_pid, self.start_time = host_identity()
        with open("/proc/self/oom_score_adj", "rb") as file:
            self.oom_adjusted = file.read() != b"0\n"
        execute(plan_spare(self.template))
        change_root(self.template)
        self.own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self.null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.out_read, self.out_write = output_pipe()
        self.err_read, self.err_write = output_pipe()
        standard = (self.null_fd, self.out_write, self.err_write)
        self.birth = Birth("/proc", self.host_pid, standard, self.profiles, own_network=self.own_network)
        self.birth.prepare(early=self.early)
        reached("init.prepared")

    def wait_for_work(self, control: _socket.socket) -> None:
        """Until the launcher sends a launch spec with the attempt's lock and status pipe; ends with it."""
        room = _socket.CMSG_SPACE(4 * (3 + MOST_DESCRIPTORS))
        data, ancillary, _, _ = control.recvmsg(64, room, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        # The state file is locked by this descriptor, which stays open for as long as this process lives.
        self.state_fd, self.status_fd, memfd, *self.given = unpacked(ancillary[0][2])
        self.spec = marshal.loads(os.pread(memfd, os.fstat(memfd).st_size, 0))
        self.spec_fd = memfd
        syscalls.setns(self.host_mounts, syscalls.CLONE_NEWNS)  # the detour into the host's tree begins
        self.attempt_fd = os.open(self.spec["attempt_dir"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.control = control
        reached("init.work-taken")

    def wait_for_cgroups(self) -> None:
        """Until the launcher has made them."""
        if self.control.recv(1) != GO:
            os._exit(0)  # it could not, which is on record
        self.control.close()

    def run(self) -> None:
        """All of the attempt. The exit record is written in every case."""
        try:
            if self.failed is None:
                self.take_ids()
            self.wait_for_cgroups()
            if self.failed is not None:
                raise self.failed
            self.enter_cgroups()
            reached("init.command-cloned")
            self.set_up()
            reached("init.root-stands")
            self.release_command()
            reached("init.command-released")
            self.open_cgroup_files()
            self.supervise()
            outcome = self.outcome()
            self.collect_outputs()
            reached("init.command-ended")
        except Exception as error:  # the record must be written, whatever it was
            why = (
                f"{error.strerror}: {error.filename}"
                if isinstance(error, OSError)
                else f"{type(error).__name__}: {error}"
            )
            released = self.released
            outcome = exit_record.unknown(why) if released else exit_record.not_started(126, why)
            self.kill_everything()
            self.reap(block=True)
        self.record(outcome)

    def take_ids(self) -> None:
        """The command's process hears of its work; then what is said of the attempt's range of ids, before it can need them."""
        spec = self.spec
        self.birth.announce(spec, self.spec_fd)
        os.close(self.spec_fd)
        self.birth.map_ids(spec["id_base"], spec["id_count"])
        for fd in (self.out_write, self.err_write):
            # The pipes belong to the command's user, which may then open /dev/stdout.
            os.fchown(fd, spec["id_base"] + spec["uid"], spec["id_base"] + spec["gid"])

    # --- set-up -------------------------------------------------------------------------------------------------------

    def enter_cgroups(self) -> None:
        """Take from the host's tree what is needed, and leave it. The command's process, in its cgroups from here on, drops its
        rights while we set up, and waits."""
        self.birth.find_cgroups(self.spec["cgroup"])
        self.host = HostFiles(self.spec)
        self.watch_for_oom()
        syscalls.setns(self.own_mounts, syscalls.CLONE_NEWNS)
        os.close(self.own_mounts)
        os.close(self.host_mounts)
        self.forbid_imports()
        self.birth.complete(self.spec, self.given)
        self.main_pid = self.birth.pid
        if self.oom_adjusted:
            self.reset_oom_score()
        self.streams = {self.out_read: "stdout", self.err_read: "stderr"}
        self.errors_fd = self.birth.errors

    def forbid_imports(self) -> None:
        forbid_imports()

    def reset_oom_score(self) -> None:
        """A daemon may be spared by the kernel when memory runs out, or picked first; its jobs are neither for that."""
        try:
            with open(f"/proc/{self.main_pid}/oom_score_adj", "wb", 0) as file:
                file.write(b"0")
        except (PermissionError, FileNotFoundError):
            pass  # whoever made it likelier to be picked does not let us take that back; or it has ended

    def set_up(self) -> None:
        """The job's own mounts and files."""
        spec = self.spec
        if spec["timeout_seconds"] is not None:
            self.deadline = now() + spec["timeout_seconds"]
        self.log = LogWriter(self.host.log, os.path.basename(spec["log_path"]), spec["log_bytes"])
        user_namespace = self.birth.user_namespace
        plan, root = plan_job("", spec, self.host.trees, user_namespace)
        execute(plan)
        self.fill_workspace(f"{root}/work")
        if spec["script"] is not None:
            self.write_script(root)
        if "volumes" in spec:
            self.mount_volumes(root or "/", user_namespace)
        os.close(user_namespace)
        if spec["secrets"]:
            from joblet.sandbox.secret_files import place  # only jobs with secrets pay for it

            place(root, spec["secrets"], spec["id_base"] + spec["uid"], spec["id_base"] + spec["gid"])
            reached("init.secrets-placed")
        for fd in self.given:
            os.close(fd)
        if root:
            change_root(root)

    def watch_for_oom(self) -> None:
        """While the host's tree is there."""
        oom = self.spec["cgroup"]["oom"] or {}
        if "event_control" in oom:
            # v1 knows no memory.oom.group: wait for the event, and kill the others ourselves.
            self.oom_fd = os.open(oom["control"], os.O_RDONLY | os.O_CLOEXEC)
            self.oom_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            control = os.open(oom["event_control"], os.O_WRONLY | os.O_CLOEXEC)
            os.write(control, b"%d %d" % (self.oom_event, self.oom_fd))
            os.close(control)

    def open_cgroup_files(self) -> None:
        """What the exit record quotes: while the command is being executed, to keep nobody waiting."""
        plan = self.spec["cgroup"]
        for key, path in plan["usage"].items():
            try:
                self.usage_fds[key] = self.open_cgroup_file(path, os.O_RDONLY)
            except OSError:
                pass  # it is not told then; the command runs already
        for fd in self.host.cgroups.values():
            os.close(fd)  # they would keep the removed cgroup in the kernel

    def open_cgroup_file(self, path: str, flags: int) -> int:
        """By the descriptor of its directory: the path leads nowhere since we have left the host's tree."""
        directory, _, name = path.rpartition("/")
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self.host.cgroups[directory])

    def fill_workspace(self, work: str) -> None:
        """spec.files, owned by the command's user. No command has run there: nobody can have put a link in, though an init that
        was killed over it may have left a part."""
        uid, gid = self.spec["id_base"] + self.spec["uid"], self.spec["id_base"] + self.spec["gid"]
        os.chown(work, uid, gid)
        if self.spec["workspace"]["type"] == "loop" and os.path.isdir(f"{work}/lost+found"):
            os.rmdir(f"{work}/lost+found")
        fill(work, self.spec["files"], self.host.contents, uid, gid)
        for fd in self.host.contents.values():
            os.close(fd)
        if self.spec.get("outputs"):
            from joblet.sandbox.outputs import prepare  # loaded in the detour: later there is no way to it

            self.collect = prepare(work, self.spec["outputs"], uid, gid)

    def write_script(self, root: str) -> None:
        """The script, where the command can run but not change it."""
        fd = os.open(f"{root}/run/joblet/script", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o555)
        write_all(fd, self.spec["script"].encode())
        os.fchmod(fd, 0o555)
        os.close(fd)

    def mount_volumes(self, root: str, user_namespace: int) -> None:
        """After the files: the way to a volume may lead through their directories."""
        from joblet.sandbox import volumes  # only jobs that have some pay for it

        spec = self.spec
        owner = spec["id_base"] + spec["uid"], spec["id_base"] + spec["gid"]
        volumes.mount_volumes(root, spec["volumes"], self.given, user_namespace, owner)
        reached("init.volumes-mounted")
        if spec["own_root"]:
            volumes.seal_own_root(root)

    # --- the command --------------------------------------------------------------------------------------------------

    def release_command(self) -> None:
        """Put on record that it may run, drop our rights, let it go."""
        self.write_state()
        for name in ("secrets", "env"):  # the command has its own
            self.spec.pop(name)
        self.drop_rights()
        self.birth.release()

    def drop_rights(self) -> None:
        syscalls.capset(KEPT_CAPABILITIES, 0)

    def write_state(self) -> None:
        """From here on the command may have been executed: say who we are, so that we can be adopted."""
        self.released = True
        os.write(self.state_fd, f"exec {self.host_pid} {self.start_time} {self.boot_id}\n".encode())
        reached("init.exec-announced")

    def supervise(self) -> None:
        """Wait for everything at once until the command is over and its output is drained."""
        poll = select.poll()
        for fd in (*self.streams, self.errors_fd, self.wake_read):
            poll.register(fd, select.POLLIN)
        if self.oom_event >= 0:
            poll.register(self.oom_event, select.POLLIN)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        while self.main_status is None:
            for fd, _ in poll.poll(self.milliseconds_left()):
                if fd in self.streams:
                    self.copy_output(poll, fd)
                elif fd == self.errors_fd:
                    self.note_exec(poll)
                elif fd == self.oom_event:
                    os.eventfd_read(fd)
                else:
                    self.take_signals()
            self.check_oom()
            self.check_deadline()
        self.kill_everything()
        self.reap(block=True)
        if self.errors_fd >= 0:
            self.note_exec(poll)
        self.drain()

    def copy_output(self, poll: select.poll, fd: int) -> bool:
        """One chunk of output into the log. Returns whether there may be more."""
        try:
            data = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            poll.unregister(fd)
            del self.streams[fd]
            os.close(fd)
            return False
        assert self.log is not None
        self.log.write(self.streams[fd], data)
        return True

    def drain(self) -> None:
        """What is left in the pipes. Bounded: with the host's network a descriptor may have been handed to a stranger."""
        poll = select.poll()
        for fd in list(self.streams):
            poll.register(fd)
            left = DRAIN_BYTES_AT_MOST
            while left > 0 and self.copy_output(poll, fd):
                left -= CHUNK_BYTES

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
            os.kill(-1, _signal.SIGKILL)
        except ProcessLookupError:
            pass  # nobody is left

    def reap(self, *, block: bool) -> None:
        """Collect the dead. block: until nobody is left, which is soon, since all were killed."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, 0 if block else os.WNOHANG | ALL_KINDS)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.main_pid and self.main_status is None:
                self.main_status = status
            if pid != self.birth.keeper:
                self.cpu_seconds += usage.ru_utime + usage.ru_stime
            if block:
                self.kill_everything()  # what was forked in between

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
        if self.collect is not None:
            self.outputs, self.outputs_error = self.collect()

    def record(self, outcome: dict[str, object]) -> None:
        """The exit record; then there is nothing left to do."""
        usage = {}
        for key, fd in self.usage_fds.items():
            try:
                usage[key] = os.pread(fd, 65536, 0).decode(errors="replace")
            except OSError as error:
                usage[key] = ""
                outcome.setdefault("usage_error", str(error))
        log = self.log
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
                exit_record.write(self.attempt_fd, record, durable=False)
                break
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
            time.sleep(FULL_DISK_SECONDS)  # nothing but this record tells how it ended: it waits for room
        # It is there for all to see. What a power cut may do to it before the fsync is seen as no record.
        reached("init.exit-recorded")
        self.tell(b"ended\n")
        reached("init.end-told")
        exit_record.make_durable(self.attempt_fd)


def change_root(root: str) -> None:
    """pivot_root into ``root``, and let go of the tree that it was in."""
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def now() -> float:
    """Seconds of CLOCK_BOOTTIME: a timeout goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def host_identity() -> tuple[int, int]:
    """Our pid on the host and our start time, from the host's /proc: field 1 and 22 of stat, proc_pid_stat(5)."""
    fd = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    text = os.read(fd, 4096)
    os.close(fd)
    return int(text.split(b" ", 1)[0]), int(text.rpartition(b")")[2].split()[19])


def output_pipe() -> tuple[int, int]:
    """A pipe for output, with a larger buffer: fewer wake-ups for a chatty job."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    try:
        fcntl.fcntl(read, F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        pass  # over the user's soft limit of pipe pages: the default size does
    return read, write


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

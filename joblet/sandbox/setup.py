"""Sets a job's sandbox up: a process beside the init, of which nothing is left once the command runs.

It is root of the host's user namespace, in the job's pid and mount namespaces. It makes the namespaces and the mounts, takes from
the host's tree what the job needs, lets the command go, and hands over to the init what that needs to see it through. Then it
ends, and with it go the rights and the memory that all this took: the init has neither. The command is the init's child from its
birth.
"""

from __future__ import annotations

import _socket  # the C parts alone: socket.py would be in every process's memory
import fcntl
import marshal
import os
import sys
import time

from joblet.crash_points import reached
from joblet.sandbox import outputs, syscalls
from joblet.sandbox.birth import Birth
from joblet.sandbox.command import give_way
from joblet.sandbox.host_files import HostFiles, forbid_imports
from joblet.sandbox.init import MOST_DESCRIPTORS, USAGE, now, reason, unpacked
from joblet.sandbox.memory_file import content_of, made
from joblet.sandbox.mounts import execute, plan_job, plan_spare
from joblet.sandbox.workspace_files import fill, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIPE_BYTES = 1 << 20
F_SETPIPE_SZ = 1031
STAND_ASIDE_SECONDS = 0.02
WORK = b"w"  # from the launcher: the attempt's lock and status pipe, the launch spec's memfd, and what the spec names
WORK_WITH_RECORD = b"r"  # a file for the exit record comes third
GO = b"g"  # from the launcher: the cgroups are there
HOST_MOUNTS_FD = 4  # the mount namespace with the host's tree, from the launcher
FOR_THE_INIT = ("attempt", "timeout_seconds", "grace_seconds", "stop_signal", "outputs")  # of the launch spec


class Setup:
    """One attempt's sandbox, from its namespaces to the start of its command.

    It is born with a spare, before there is work for it: everything that is the same for all jobs is done by then.
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
        self.record_fd = -1  # a file without a name, to become the exit record
        self.status_fd = -1
        self.host_mounts = HOST_MOUNTS_FD
        self.usage_fds: dict[str, int] = {}
        self.deadline: float | None = None
        self.oom_fd = -1
        self.oom_event = -1
        self.redacted_fd = -1  # a file in memory: what the init may not keep of the output

    def prepare(self) -> None:
        """For a spare: kernel files, output pipes, and the namespaces that the command will enter."""
        syscalls.set_name("joblet-setup")
        self.init_pid, self.start_time = identity_of_parent()
        with open("/proc/self/oom_score_adj", "rb") as file:
            self.oom_adjusted = file.read() != b"0\n"
        execute(plan_spare(self.template))
        change_root(self.template)
        self.own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self.null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.out_read, self.out_write = output_pipe()
        self.err_read, self.err_write = output_pipe()
        standard = (self.null_fd, self.out_write, self.err_write)
        self.birth = Birth("/proc", self.init_pid, standard, self.profiles, own_network=self.own_network)
        self.birth.prepare(early=self.early)
        reached("init.prepared")

    def wait_for_work(self, control: _socket.socket) -> None:
        """Until the launcher sends a launch spec with the attempt's lock and status pipe; ends with it."""
        room = _socket.CMSG_SPACE(4 * (4 + MOST_DESCRIPTORS))
        data, ancillary, _, _ = control.recvmsg(64, room, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        # The state file is locked by this descriptor, which stays open for as long as this process lives.
        self.state_fd, self.status_fd, *fds = unpacked(ancillary[0][2])
        if data == WORK_WITH_RECORD:
            self.record_fd = fds.pop(0)
        memfd, *self.given = fds
        self.spec = content_of(memfd)
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

    def run(self, channel: _socket.socket) -> None:
        """All of it, and the handing over in every case. channel: to the init."""
        why = ""
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
            self.birth.let_go()
            self.watch_for_oom()
            self.open_cgroup_files()
        except Exception as error:  # the init puts it on record, whatever it was
            why = reason(error)
        self.hand_over(channel, why)
        self.stand_aside()

    def take_ids(self) -> None:
        """The command's process hears of its work; then what is said of the attempt's range of ids, before it can need them."""
        spec = self.spec
        self.birth.announce(spec, self.spec_fd)
        os.close(self.spec_fd)
        self.birth.map_ids(spec["id_base"], spec["id_count"])
        for fd in (self.out_write, self.err_write):
            # The pipes belong to the command's user, which may then open /dev/stdout.
            os.fchown(fd, spec["id_base"] + spec["uid"], spec["id_base"] + spec["gid"])

    def enter_cgroups(self) -> None:
        """Take from the host's tree what is needed, and leave it. The command's process, in its cgroups from here on, drops its
        rights while we set up, and waits."""
        self.birth.find_cgroups(self.spec["cgroup"])
        self.host = HostFiles(self.spec)
        syscalls.setns(self.own_mounts, syscalls.CLONE_NEWNS)
        os.close(self.own_mounts)
        os.close(self.host_mounts)
        self.forbid_imports()
        self.birth.complete(self.spec, self.given)
        if self.oom_adjusted:
            self.reset_oom_score()

    def forbid_imports(self) -> None:
        forbid_imports()

    def reset_oom_score(self) -> None:
        """A daemon may be spared by the kernel when memory runs out, or picked first; its jobs are neither for that."""
        try:
            with open(f"/proc/{self.birth.pid}/oom_score_adj", "wb", 0) as file:
                file.write(b"0")
        except (PermissionError, FileNotFoundError):
            pass  # whoever made it likelier to be picked does not let us take that back; or it has ended

    def set_up(self) -> None:
        """The job's own mounts and files."""
        spec = self.spec
        if spec["timeout_seconds"] is not None:
            self.deadline = now() + spec["timeout_seconds"]
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
        if pieces := spec.get("redacted"):
            self.redacted_fd = made("joblet-redacted", marshal.dumps(pieces))
        for fd in self.given:
            os.close(fd)
        if root:
            change_root(root)

    def watch_for_oom(self) -> None:
        """While the command is being executed. The init looks once by itself, for what happened before."""
        oom = self.spec["cgroup"]["oom"] or {}
        if "event_control" in oom:
            # v1 knows no memory.oom.group: wait for the event, and kill the others ourselves.
            self.oom_fd = self.open_cgroup_file(oom["control"], os.O_RDONLY)
            self.oom_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            control = self.open_cgroup_file(oom["event_control"], os.O_WRONLY)
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
            outputs.prepare(work, uid, gid)

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

    def release_command(self) -> None:
        """Put on record that it may run, drop our rights, let it go."""
        self.write_state()
        self.drop_rights()
        self.birth.release()

    def drop_rights(self) -> None:
        syscalls.capset(0, 0)

    def write_state(self) -> None:
        """From here on the command may have been executed: say who the init is, so that it can be adopted."""
        self.released = True
        os.write(self.state_fd, f"exec {self.init_pid} {self.start_time} {self.boot_id}\n".encode())
        reached("init.exec-announced")

    def hand_over(self, channel: _socket.socket, why: str) -> None:
        """What the init needs to see the job through, as marshalled data with descriptors.

        why: what went wrong; then it needs no more than where to record it.
        """
        fds = {"state": self.state_fd, "status": self.status_fd, "attempt": self.attempt_fd}
        if self.record_fd >= 0:
            fds["record"] = self.record_fd
        content: dict[str, Any] = {"why": why, "released": self.released, "boot_id": self.boot_id, "not_counted": []}
        if self.failed is None:
            content["not_counted"] = self.birth.not_the_jobs
        content["spec"] = {name: self.spec[name] for name in FOR_THE_INIT if name in self.spec}
        if not why:
            fds |= {"stdout": self.out_read, "stderr": self.err_read, "errors": self.birth.errors, "log": self.host.log}
            fds |= {"oom": self.oom_fd, "oom_event": self.oom_event} if self.oom_event >= 0 else {}
            fds |= {"redacted": self.redacted_fd} if self.redacted_fd >= 0 else {}
            fds |= {f"{USAGE}{key}": fd for key, fd in self.usage_fds.items()}
            content |= {
                "main_pid": self.birth.pid,
                "deadline": self.deadline,
                "log_name": os.path.basename(self.spec["log_path"]),
                "log_bytes": self.spec["log_bytes"],
            }
        content["names"] = list(fds)
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds.values())
        channel.sendmsg([marshal.dumps(content)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])

    def stand_aside(self) -> None:
        """Not to end while the command starts. Without a job the end comes at once."""
        give_way(0)
        time.sleep(STAND_ASIDE_SECONDS)


def change_root(root: str) -> None:
    """pivot_root into ``root``, and let go of the tree that it was in."""
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def identity_of_parent() -> tuple[int, int]:
    """Its pid on the host and its start time, from the host's /proc: field 4 of our stat and 22 of its, proc_pid_stat(5)."""
    pid = int(stat_of("self")[1])
    return pid, int(stat_of(str(pid))[19])


def stat_of(process: str) -> list[bytes]:
    """What follows the name."""
    fd = os.open(f"/proc/{process}/stat", os.O_RDONLY | os.O_CLOEXEC)
    text = os.read(fd, 4096)
    os.close(fd)
    return text.rpartition(b")")[2].split()


def output_pipe() -> tuple[int, int]:
    """A pipe for output, with a larger buffer: fewer wake-ups for a chatty job."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    try:
        fcntl.fcntl(read, F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        pass  # over the user's soft limit of pipe pages: the default size does
    return read, write

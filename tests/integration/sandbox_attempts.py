"""A launcher without a daemon, for the sandbox's tests: launch specs in, exit records and logs out; nothing is pretended."""

from __future__ import annotations

import json
import marshal
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblet
from joblet.cgroup import CgroupLimits, Hierarchy, open_hierarchy
from joblet.sandbox.memory_file import made
from joblet.sandbox.seccomp import compile_default
from tests.timing import PATIENCE

ID_BASE = 0x7100_0000
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOTHING = CgroupLimits()


@dataclass
class Attempt:
    """One launched attempt. pid: its init's."""

    directory: Path
    pid: int
    pidfd: int
    status_fd: int

    def wait_started(self) -> None:
        """Until the command was executed."""
        told = os.read(self.status_fd, 256)
        assert told.startswith(b"started "), (told, self.record())

    def signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, within: float = 30) -> dict[str, Any]:
        """Until the init is gone; returns the exit record."""
        ready, _, _ = select.select([self.pidfd], [], [], within * PATIENCE)
        assert ready, f"still there after {within * PATIENCE:g} s: {self.directory}"
        return self.record()

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.directory / "exit.json").read_text())
        return record

    @property
    def lines(self) -> list[bytes]:
        """All segments of the log, oldest first."""
        rotated = sorted(self.directory.glob("out.log.*"))
        current = self.directory / "out.log"
        paths = (*rotated, current) if current.exists() else ()  # not yet
        return b"".join(path.read_bytes() for path in paths).split(b"\n")[:-1]

    def output(self, stream: str = "stdout") -> bytes:
        """What the command wrote, put together again from the CRI lines."""
        parts: list[bytes] = []
        for line in self.lines:
            _, name, tag, text = line.split(b" ", 3)
            if name == stream.encode():
                parts.append(text + b"\n" if tag == b"F" else text)
        return b"".join(parts)

    def close(self) -> None:
        os.close(self.pidfd)
        os.close(self.status_fd)


@dataclass
class Sandboxes:
    """A launcher of its own, in a root directory and a cgroup base of its own."""

    root: Path
    hierarchy: Hierarchy
    process: subprocess.Popen[bytes] | None = None
    socket: socket.socket | None = None
    attempts: list[Attempt] = field(default_factory=list)
    count: int = 0
    environment: dict[str, str] = field(default_factory=dict)  # the launcher's
    within: tuple[str, ...] = ()  # what the launcher is started by

    def start_launcher(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = Path(joblet.__file__).parent.parent
        code = f"import sys; sys.path.insert(0, {str(package)!r}); from joblet.sandbox.start import main; main()"
        with theirs:
            arguments = [*self.within, sys.executable, "-I", "-S", "-c", code, str(theirs.fileno())]
            self.process = subprocess.Popen(
                arguments,
                pass_fds=[theirs.fileno()],
                env={"JOBLET_TEST_SECRET": "s3cret", **self.environment},
                # As a daemon's: the scheduler gives each session its share, whatever runs in that of the tests.
                start_new_session=True,
            )
        self.socket = ours
        self.send(
            {
                "version": 1,
                "template": f"{self.root}/template",
                "seccomp": {"default": compile_default()},
                "init_into": self.hierarchy.inits_directory,
                "early": self.hierarchy.entered_by_thread,
                "spare_cgroups": list(self.hierarchy.spare_directories),
                "attempts": str(self.root),
            }
        )
        assert marshal.loads(ours.recv(4096))["ready"]

    def stop_launcher(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        if self.process is not None:
            self.process.wait(timeout=30 * PATIENCE)

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.socket is not None
        memfd = made("request", marshal.dumps(dict(message)))
        socket.send_fds(self.socket, [b"request"], [memfd])
        os.close(memfd)

    def spec(self, argv: list[str], limits: CgroupLimits = NOTHING, **changes: Any) -> dict[str, Any]:
        """A launch spec with an attempt directory of its own."""
        self.count += 1
        attempt = f"t-{os.getpid()}-{self.count}"
        directory = self.root / attempt
        directory.mkdir()
        return {
            "version": 1,
            "attempt": attempt,
            "attempt_dir": str(directory),
            "log_path": f"{directory}/out.log",
            "log_bytes": 8 << 20,
            "argv": argv,
            "script": None,
            "secrets": [],
            "env": {"PATH": PATH, "HOME": "/work"},
            "workdir": "/work",
            "hostname": "box",
            "uid": 0,
            "gid": 0,
            "id_base": ID_BASE,
            "id_count": 65536,
            "network": "none",
            "rootfs": "host",
            "root_bytes": 64 << 20,
            "etc": {
                "passwd": "root:x:0:0:root:/work:/bin/sh\n",
                "group": "root:x:0:\n",
                "hosts": "127.0.0.1 localhost\n",
            },
            "workspace": {"type": "tmpfs", "bytes": 16 << 20},
            "files": [],
            "tmp_bytes": 16 << 20,
            "capabilities": [],
            "seccomp": {"name": "default"},
            "rlimits": {"NOFILE": [512, 1 << 40], "CORE": [0, 0]},
            "stop_signal": signal.SIGTERM.value,
            "grace_seconds": 10.0,
            "timeout_seconds": None,
            "cgroup": self.hierarchy.plan(attempt, limits),
            **changes,
        }

    def ask(self, spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """The launcher's answer as it is."""
        self.send(spec)
        assert self.socket is not None
        data, fds, _, _ = socket.recv_fds(self.socket, 8192, 2)
        return marshal.loads(data), fds

    def launch(self, spec: Mapping[str, Any]) -> Attempt:
        answer, fds = self.ask(spec)
        assert "pid" in answer, answer
        attempt = Attempt(Path(spec["attempt_dir"]), answer["pid"], *fds)
        self.attempts.append(attempt)
        return attempt

    def start(self, argv: list[str], limits: CgroupLimits = NOTHING, **changes: Any) -> Attempt:
        """Launch, and wait until the command was executed."""
        attempt = self.launch(self.spec(argv, limits, **changes))
        attempt.wait_started()
        return attempt

    def run(self, argv: list[str], limits: CgroupLimits = NOTHING, **changes: Any) -> Attempt:
        """Launch, and wait until the init is gone."""
        attempt = self.launch(self.spec(argv, limits, **changes))
        attempt.wait()
        return attempt

    def shell(self, script: str, limits: CgroupLimits = NOTHING, **changes: Any) -> str:
        """What a shell script that succeeds writes to stdout."""
        attempt = self.run(["/bin/sh", "-c", script], limits, **changes)
        record = attempt.record()
        assert record["outcome"] == {"type": "exited", "code": 0}, (record, attempt.output(), attempt.output("stderr"))
        return attempt.output().decode()

    def dispose(self) -> None:
        """Whatever a test did: nothing is left."""
        self.stop_launcher()
        for attempt in self.attempts:
            with suppress(ProcessLookupError):  # as it should be
                attempt.signal(signal.SIGKILL)
            select.select([attempt.pidfd], [], [], 30 * PATIENCE)
            attempt.close()
        for attempt_id in self.hierarchy.list_attempts():
            self.hierarchy.kill(attempt_id)
            self.hierarchy.remove(attempt_id)
        self.hierarchy.remove_base()
        shutil.rmtree(self.root)


@contextmanager
def sandboxes(*, environment: Mapping[str, str] | None = None, within: tuple[str, ...] = ()) -> Iterator[Sandboxes]:
    root = Path(tempfile.mkdtemp(prefix=f"joblet-test-{os.getpid()}-"))
    root.chmod(0o711)
    hierarchy = open_hierarchy(f"/sys/fs/cgroup/{root.name}.slice/joblet.service")
    hierarchy.prepare()
    made = Sandboxes(root, hierarchy, environment=dict(environment or {}), within=within)
    try:
        made.start_launcher()
        yield made
    finally:
        made.dispose()

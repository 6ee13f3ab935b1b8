"""Our launcher driven directly, as the daemon drives it, without an event loop; for the benchmarks."""

from __future__ import annotations

import marshal
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import joblet
from joblet.cgroup import CgroupLimits, open_hierarchy
from joblet.clock import SystemClock
from joblet.manifest import JobManifest
from joblet.sandbox.memory_file import made
from joblet.sandbox.seccomp import compile_default
from jobletd.executor import AttemptRequest
from jobletd.executor.local.launch_spec import launch_spec
from jobletd.executor.local.spare_directory import SpareDirectory
from jobletd.model import AttemptId

LIMITS = CgroupLimits(cpu_percent=100, memory_bytes=64 << 20, pids=64)


@cache
def manifest_of(command: tuple[str, ...]) -> JobManifest:
    """As the daemon has it before any launch: read and checked when it was applied."""
    return JobManifest.model_validate(
        {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "bench"}, "spec": {"command": command}}
    )


class Sandbox:
    """A launcher with everything on: all namespaces, user ids, seccomp, cgroup limits, logs, exit records."""

    def __init__(self, limits: CgroupLimits = LIMITS) -> None:
        self.limits = limits
        self.root = Path(tempfile.mkdtemp(prefix="joblet-bench-"))
        self.hierarchy = open_hierarchy(f"/sys/fs/cgroup/{self.root.name}.slice/joblet.service")
        self.hierarchy.prepare()
        self.clock = SystemClock()
        self.spare = SpareDirectory(str(self.root))
        self.spare.make()
        self.count = 0
        self.finished: list[tuple[str, int]] = []
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = Path(joblet.__file__).parent.parent
        code = f"import sys; sys.path.insert(0, {str(package)!r}); from joblet.sandbox.start import main; main()"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()], env={}
            )
        self._send(
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
        self.socket.recv(4096)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.socket.close()
        self.process.wait()
        for attempt_id in self.hierarchy.list_attempts():
            self.hierarchy.kill(attempt_id)
        self.clean_up()
        self.hierarchy.remove_base()
        shutil.rmtree(self.root)

    def start(self, command: list[str], **changes: Any) -> tuple[str, int, int]:
        """Launch, with changes to the launch spec; returns the attempt's id, the init's pid and its status pipe."""
        self.count += 1
        attempt_id = AttemptId(f"bench-{os.getpid()}-{self.count}")
        directory = self.root / attempt_id
        self.spare.become(str(directory))
        manifest = manifest_of(tuple(command))
        spec = launch_spec(
            AttemptRequest(attempt_id, "bench", self.count, manifest, None),
            attempt_dir=str(directory),
            log_path=f"{directory}/log",
            id_base=0x7000_0000,
            id_count=65536,
            workspace={"type": "tmpfs", "bytes": 32 << 20},
            rootfs="host",
            root_bytes=32 << 20,
            stop_signal=15,
            cgroup=self.hierarchy.plan(attempt_id, self.limits),
            content_path=lambda sha256: f"{directory}/{sha256}",
        )
        self._send({**spec, **changes})
        data, fds, _, _ = socket.recv_fds(self.socket, 8192, 2)
        answer = marshal.loads(data)
        if "pid" not in answer:
            raise RuntimeError(f"not launched: {answer}")
        self.finished.append((attempt_id, fds[0]))
        return attempt_id, answer["pid"], fds[1]

    def run(self, command: list[str], **changes: Any) -> None:
        """Launch and wait until its exit is recorded."""
        attempt_id, _, status = self.start(command, **changes)
        while b"ended" not in (told := os.read(status, 256)):
            if not told:
                raise RuntimeError(f"{attempt_id} ended without a word")
        os.close(status)
        record = (self.root / attempt_id / "exit.json").read_text()
        if (
            '"outcome":{"type":"exited","code":0}' not in record
        ):  # a launch that fails is quicker than one that does not
            raise RuntimeError(f"{attempt_id} did not end well: {record}")

    def clean_up(self) -> None:
        """Remove what ended attempts hold: outside of what is timed, as it is in the daemon."""
        while self.finished:
            attempt_id, pidfd = self.finished.pop()
            select.select([pidfd], [], [], 10)  # its init may still make the record durable
            os.close(pidfd)
            self.hierarchy.remove(attempt_id)
            shutil.rmtree(self.root / attempt_id)
        self.spare.make()

    def _send(self, message: Any) -> None:
        memfd = made("bench", marshal.dumps(message))
        socket.send_fds(self.socket, [b"request"], [memfd])
        os.close(memfd)

"""conmon with a runtime: what podman and CRI-O leave beside each container that runs, for its output and its exit status."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.peers import Runc, checked


class Conmon:
    """Containers of one runtime, each with a conmon of its own. Raises FileNotFoundError, CalledProcessError."""

    def __init__(self, runtime: str) -> None:
        self.runtime = Runc(runtime)
        self.directory = Path(tempfile.mkdtemp(prefix="joblet-bench-conmon-"))
        self.shims: list[int] = []
        self.started: list[str] = []

    def __enter__(self) -> Self:
        self.runtime.__enter__()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for name in self.started:
            subprocess.run([self.runtime.program, "kill", name, "KILL"], check=False, capture_output=True)
        for pid in self.shims:
            wait_until_gone(pid)
        for name in self.started:
            subprocess.run([self.runtime.program, "delete", "--force", name], check=False, capture_output=True)
        shutil.rmtree(self.directory)
        self.runtime.__exit__(None)

    def start(self, command: list[str]) -> int:
        """A container whose command was started. Returns its conmon's pid."""
        path = shutil.which(self.runtime.program)
        if path is None:
            raise FileNotFoundError(2, "not installed", self.runtime.program)
        self.runtime.prepare(command)
        name = self.runtime.name
        where = self.directory / name
        where.mkdir()
        command = [
            *("conmon", "--cid", name, "--cuuid", name, "--name", name, "--runtime", path),
            *("--bundle", str(self.runtime.bundle), "--container-pidfile", f"{where}/pid"),
            *("--conmon-pidfile", f"{where}/conmon", "--exit-dir", str(where), "--persist-dir", str(where)),
            *("--socket-dir-path", str(where), "--log-path", f"k8s-file:{where}/log", "--log-level", "error"),
        ]
        told = self._told(command)
        self.started.append(name)
        self.shims.append(int((where / "conmon").read_text()))
        if told["pid"] < 0:
            said = str(told.get("message", "")).encode()
            raise subprocess.CalledProcessError(1, command, stderr=said)
        checked([self.runtime.program, "start", name])
        return self.shims[-1]

    @staticmethod
    def _told(command: list[str]) -> dict[str, Any]:
        """What conmon, which goes on in the background, says of the container: its pid, or below zero and why there is none."""
        ours, theirs = os.pipe()
        try:
            null = subprocess.DEVNULL
            environment = {**os.environ, "_OCI_SYNCPIPE": str(theirs)}
            subprocess.run(
                command,
                check=True,
                pass_fds=[theirs],
                env=environment,
                stdin=null,
                stdout=null,
                stderr=null,
                timeout=60,
            )
            told: dict[str, Any] = json.loads(os.read(ours, 65536))
        finally:
            os.close(ours)
            os.close(theirs)
        return told


def wait_until_gone(pid: int) -> None:
    """For the end of a process that is not our child, some seconds at most."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([fd], [], [], 10)
    finally:
        os.close(fd)

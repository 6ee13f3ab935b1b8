"""From the death of a service's command to its next start: ``restart: Always`` beside supervisord, each set to be quick.

The command itself says when it started; we say when we killed it. Both by the wall clock of this machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from joblet.api.v1 import job_pb2
from tests.bench.queues import scratch
from tests.bench.rounds import Timing, timing_of
from tests.integration.host import Host, cgroup_directories, eventually

ROUNDS = 10
SETTLED_SECONDS = 0.3  # a service that is up for a while, as services mostly are
COMMAND = "date +%s%N; exec sleep 654"
SERVICE = f"""
apiVersion: joblet/v1
kind: Job
metadata: {{name: restarted}}
spec:
  command: [/bin/sh, -c, "{COMMAND}"]
  restart: Always
  retry: {{initial: 1ms, max: 1ms}}
  stop: {{grace: 0s}}
"""
# startsecs=0: whatever started counts as started; else it would count quick deaths as failures, and pause.
SUPERVISORD = """
[supervisord]
nodaemon=true
logfile={directory}/supervisord.log
pidfile={directory}/supervisord.pid
childlogdir={directory}

[program:restarted]
command=/bin/sh -c "{command}"
autorestart=true
startsecs=0
stdout_logfile={directory}/out
stderr_logfile={directory}/err
"""


class Ours:
    """The service in Joblet."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.apply(SERVICE)
        host.running("restarted")

    def starts_ns(self) -> list[int]:
        """When each attempt's command started, as far as it has said."""
        attempts = len(self.host.run("restarted").attempts)
        said = [self.host.log("restarted", follow=False, attempt=number + 1) for number in range(attempts)]
        return [int(text) for text in said if text.endswith(b"\n")]

    def pid(self) -> int:
        """The only ``sleep`` among this host's jobs."""
        for directory in cgroup_directories(self.host.cgroup_base):
            for path in directory.rglob("cgroup.procs"):
                for pid in path.read_text().split():
                    if _is_sleep(int(pid)):
                        return int(pid)
        return 0

    def stop(self) -> None:
        self.host.jobs.Delete(job_pb2.DeleteRequest(name="restarted"))


class Theirs:
    """The service in supervisord."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process

    def starts_ns(self) -> list[int]:
        path = self.directory / "out"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next((int(pid) for pid in children if _is_sleep(int(pid))), 0)


def _is_sleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def supervisord() -> Iterator[Theirs]:
    with scratch("supervisord") as directory:
        config = directory / "supervisord.conf"
        config.write_text(SUPERVISORD.format(directory=directory, command=COMMAND.replace("%", "%%")))
        process = subprocess.Popen(
            [Path(sys.executable).parent / "supervisord", "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield Theirs(directory, process)
        finally:
            process.terminate()
            process.wait()


def measure(host: Host) -> dict[str, Timing]:
    """From death to restarted, in turns."""
    times: dict[str, list[float]] = {"joblet": [], "supervisord": []}
    ours = Ours(host)
    with supervisord() as theirs:
        for _ in range(ROUNDS):
            for name, service in (("joblet", ours), ("supervisord", theirs)):
                times[name].append(_restart_ms(service))
    ours.stop()
    return {name: timing_of(values) for name, values in times.items()}


def _restart_ms(service: Ours | Theirs) -> float:
    pid = eventually(service.pid, what="the service's command")
    before = len(eventually(service.starts_ns, what="what it says first"))
    time.sleep(SETTLED_SECONDS)
    killed_ns = time.time_ns()
    os.kill(pid, signal.SIGKILL)
    starts = eventually(lambda: found if len(found := service.starts_ns()) > before else [], what="the next start")
    return (starts[before] - killed_ns) / 1e6

"""Ways of handing jobs to a daemon until all are over, by each of its doors, and what that took of time and CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import grpc
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2, job_pb2_grpc
from tests.integration.host import FINAL, Host, cgroup_directories
from tests.timing import PATIENCE

JOB = "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{command: ['/bin/true']}}\n"
CLIENTS = 16
HUNG_SECONDS = 120.0


class Door:
    """One host's ways in. Each call takes that many jobs with new names from their being handed over to their recorded end."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.numbers = count()

    def one_request(self, jobs: int) -> None:
        names = self._names(jobs)
        with self._until_over(names):
            text = "---\n".join(JOB.format(name=name) for name in names)
            self.host.jobs.Apply(job_pb2.ApplyRequest(manifest=text.encode()))

    def one_client(self, jobs: int) -> None:
        """A request a job, one after the other."""
        names = self._names(jobs)
        with self._until_over(names):
            self._apply_each(self.host.jobs, names)

    def many_clients(self, jobs: int) -> None:
        """A request a job, from clients that have connections of their own."""
        names = self._names(jobs)
        with self._until_over(names), ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._connect_and_apply, (names[first::CLIENTS] for first in range(CLIENTS))))

    def spool(self, jobs: int) -> None:
        """A file a job, each renamed into place."""
        names = self._names(jobs)
        with self._until_over(names):
            for name in names:
                self.drop(name)

    def drop(self, name: str) -> int:
        """Returns the wall clock, in nanoseconds, just before the file was there."""
        hidden = self.host.spool / f".{name}.tmp"
        hidden.write_text(JOB.format(name=name))
        dropped_ns = time.time_ns()
        os.rename(hidden, self.host.spool / f"{name}.yml")
        return dropped_ns

    def _names(self, jobs: int) -> list[str]:
        return [f"job-{next(self.numbers)}" for _ in range(jobs)]

    @contextmanager
    def _until_over(self, names: list[str]) -> Iterator[None]:
        """Watch from before the block on, until all of those have completed. Raises RuntimeError if one did not."""
        waiting = set(names)
        stream = self.host.jobs.Watch(job_pb2.WatchRequest(), timeout=HUNG_SECONDS * PATIENCE)
        for event in stream:
            if event.type == job_pb2.WatchEvent.SYNCED:
                break
        yield
        for event in stream:
            if event.job.name not in waiting or not event.job.runs:
                continue
            if (phase := event.job.runs[0].phase) in FINAL:
                if phase != "COMPLETED":
                    raise RuntimeError(f"{event.job.name}: {phase}: {event.job.runs[0].message}")
                waiting.remove(event.job.name)
                if not waiting:
                    break
        stream.cancel()

    def _connect_and_apply(self, names: list[str]) -> None:
        node = YAML(typ="safe").load(self.host.client_config().read_text())["nodes"]["default"]
        credentials = grpc.ssl_channel_credentials(*(node[key].encode() for key in ("ca", "key", "cert")))
        options = [("grpc.use_local_subchannel_pool", 1)]  # else all channels of this process share a connection
        with grpc.secure_channel(node["address"], credentials, options) as channel:
            self._apply_each(job_pb2_grpc.JobServiceStub(channel), names)

    @staticmethod
    def _apply_each(jobs: job_pb2_grpc.JobServiceStub, names: list[str]) -> None:
        for name in names:
            jobs.Apply(job_pb2.ApplyRequest(manifest=JOB.format(name=name).encode()))


def cpu_seconds(host: Host) -> float:
    """What the daemon, its launcher, and all inits and commands so far have used of processors.

    The latter by the host's v2 tree, where each init and its command are; a host with v1 alone does not count them.
    """
    assert host.daemon is not None
    parents = [host.daemon.pid]
    for task in Path(f"/proc/{host.daemon.pid}/task").iterdir():
        parents += map(int, (task / "children").read_text().split())
    return sum(map(_own_seconds, parents)) + _attempts_seconds(host)


def _own_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # a program that the daemon ran for a moment
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _attempts_seconds(host: Host) -> float:
    for directory in cgroup_directories(host.cgroup_base):
        for line in (directory / "cpu.stat").read_text().splitlines() if (directory / "cpu.stat").exists() else ():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
    return 0.0

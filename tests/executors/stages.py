"""Places on which an executor of each kind runs attempts: daemons come and go on them."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from joblet.clock import SystemClock
from joblet.manifest import JobManifest, jobs_of, read_manifests
from jobletd.executor import AttemptRequest, Ended, Executor, GivenSecrets, LogQuery, Observation, Running
from jobletd.executor.local import LocalExecutor, LocalSettings
from jobletd.executor.slurm import SlurmExecutor, SlurmSettings
from jobletd.executor.slurm.commands import CommandClient
from jobletd.model import AttemptId
from tests.integration.host import cgroup_directories, remove_cgroups
from tests.slurm.cluster import Cluster
from tests.slurm.node_daemons import doors, issue_client, name_addresses, node_daemons
from tests.timing import PATIENCE

NO_SECRETS = GivenSecrets()


def manifest(spec: str) -> JobManifest:
    text = f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: job}}\nspec:\n  {spec}\n"
    return jobs_of(read_manifests(text.encode(), filename="test.yml"))[0]


class Stage(Protocol):
    """name: of the executor. contents: where the daemon has what was uploaded."""

    name: str
    contents: Path

    def make(self) -> Executor:
        """One daemon's executor, not yet started."""

    def next_id(self) -> tuple[AttemptId, str]:
        """An attempt that never was, and its run."""

    def left_overs(self) -> list[str]:
        """What attempts hold that were forgotten."""


class LocalStage:
    """This host, with the real launcher."""

    name = "local"

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=f"joblet-test-{os.getpid()}-"))
        self.base = f"/sys/fs/cgroup/{self.root.name}.slice/joblet.service"
        self.contents = self.root / "state/blobs/sha256"
        for path in (self.contents, self.root / "run"):
            path.mkdir(parents=True)
        self._numbers = itertools.count(1)

    def make(self) -> Executor:
        settings = LocalSettings(f"{self.root}/state", f"{self.root}/log", f"{self.root}/run")
        return LocalExecutor.on_this_host(settings, cgroup_base=self.base, clock=SystemClock())

    def next_id(self) -> tuple[AttemptId, str]:
        run_id = f"run{next(self._numbers):05d}"
        return AttemptId(f"job-{run_id}-1"), run_id

    def left_overs(self) -> list[str]:
        files = [path for name in ("attempts", "work") for path in (self.root / "state" / name).iterdir()]
        return [str(path) for path in (*files, *self._cgroups())]

    def _cgroups(self) -> list[Path]:
        return [child for base in cgroup_directories(self.base) for child in base.glob("job-*")]

    def close(self) -> None:
        remove_cgroups(self.base)
        shutil.rmtree(self.root)


class SlurmStage:
    """A cluster of three nodes; the daemon's host is its controller."""

    name = "slurm"
    shares_a_directory = True

    def __init__(self, cluster: Cluster) -> None:
        """The cluster's nodes have been initialized."""
        self.cluster = cluster
        self.directory = tempfile.mkdtemp(prefix=f"joblet-test-{os.getpid()}-")
        self.contents = Path(self.directory, "blobs")
        self.contents.mkdir()
        self._numbers = itertools.count(
            1 if self.shares_a_directory else 50_001
        )  # Slurm remembers those of another stage
        self.settings = SlurmSettings(
            directory=f"{self.directory}/slurm",
            shared_directory=cluster.shared_directory if self.shares_a_directory else None,
            contents_directory=str(self.contents),
            node_clients=f"{self.directory}/clients",
            launcher=tuple(cluster.joblet_command),
            prefix=cluster.within(cluster.controller),
            environment=cluster.environment,
            command_seconds=5 * PATIENCE,
            shortest_poll_seconds=0.1,
            longest_poll_seconds=1.0,
            grace_seconds=2 * PATIENCE,
            stop_seconds=2.0,
        )

    def make(self) -> SlurmExecutor:
        return SlurmExecutor(self.settings, CommandClient(self.settings), SystemClock())

    def next_id(self) -> tuple[AttemptId, str]:
        run_id = f"run{next(self._numbers):05d}"
        return AttemptId(f"job-{run_id}-1"), run_id

    def left_overs(self) -> list[str]:
        """Beside claims and logs: nothing of it on a node, nothing in Slurm's queue, nothing of ours."""
        handed = [str(path) for path in Path(self.settings.directory, "handed").iterdir()]
        live = [
            str(path)
            for node in self.cluster.names
            for path in self.cluster.path_on(node, "/opt/joblet/state/slurm/live").glob("*")
        ]
        return [*handed, *live, *self.cluster.slurm("squeue", "-h").splitlines()]

    def close(self) -> None:
        shutil.rmtree(self.directory)


class RemoteSlurmStage(SlurmStage):
    """The same cluster, as if its nodes shared no directory with the daemon's host: their daemons are asked."""

    name = "slurm without a shared directory"
    shares_a_directory = False

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        default = issue_client(cluster, Path(self.settings.node_clients))
        self._opened = ExitStack()
        try:
            self._opened.enter_context(node_daemons(cluster))
            name_addresses(default, self._opened.enter_context(doors(cluster)))  # the executor lives in this process
        except BaseException:
            self.close()
            raise

    def left_overs(self) -> list[str]:
        """Nor anything that a node has told, but for claims."""
        debts = Path(self.settings.attempts_directory).glob("*/debt.json")
        kept = [
            path
            for node in self.cluster.names
            for path in self.cluster.path_on(node, "/opt/joblet/state/slurm/attempts").glob("*/*")
        ]
        return [*super().left_overs(), *map(str, debts), *(str(path) for path in kept if path.name != "claim")]

    def close(self) -> None:
        self._opened.close()
        super().close()


class Daemon:
    """An executor whose nudges can be waited for."""

    def __init__(self, stage: Stage, executor: Executor) -> None:
        self.stage = stage
        self.executor = executor
        self._nudged = asyncio.Event()
        executor.subscribe(lambda _: self._nudged.set())

    async def submit(self, spec: str, *, seconds: float | None = None, secrets: GivenSecrets = NO_SECRETS) -> AttemptId:
        request = self.request(spec, seconds=seconds, secrets=secrets)
        await self.executor.submit(request)
        return request.attempt_id

    def request(self, spec: str, *, seconds: float | None = None, secrets: GivenSecrets = NO_SECRETS) -> AttemptRequest:
        """Of an attempt that never was."""
        attempt_id, run_id = self.stage.next_id()
        return AttemptRequest(attempt_id, run_id, 1, manifest(spec), seconds, secrets=secrets)

    async def look(self, attempt_id: AttemptId) -> Observation:
        return (await self.executor.observe([attempt_id]))[attempt_id]

    async def until(self, attempt_id: AttemptId, kind: type[Observation], *, within: float = 30) -> Observation:
        """Wait by nudges until the attempt is seen so."""
        async with asyncio.timeout(within * PATIENCE):
            while True:
                self._nudged.clear()
                seen = await self.look(attempt_id)
                if isinstance(seen, kind):
                    return seen
                assert not isinstance(seen, Ended), seen
                await self._nudged.wait()

    async def running(self, attempt_id: AttemptId) -> Running:
        seen = await self.until(attempt_id, Running)
        assert isinstance(seen, Running)
        return seen

    async def ended(self, attempt_id: AttemptId, *, within: float = 30) -> Ended:
        seen = await self.until(attempt_id, Ended, within=within)
        assert isinstance(seen, Ended)
        return seen

    async def output(self, attempt_id: AttemptId, query: LogQuery | None = None) -> bytes:
        async with asyncio.timeout(30 * PATIENCE):
            batches = [batch async for batch in self.executor.logs(attempt_id, query or LogQuery())]
        return b"".join(entry.data for batch in batches for entry in batch)


@asynccontextmanager
async def daemon(stage: Stage) -> AsyncIterator[Daemon]:
    """One daemon's time."""
    executor = stage.make()
    found = Daemon(stage, executor)
    await executor.start()
    try:
        yield found
    finally:
        await executor.close()

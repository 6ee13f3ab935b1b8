"""What is asked of Slurm, and what it answers, whichever way it is asked: by its commands or by slurmrestd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from joblet.errors import JobletError
from jobletd.executor import EngineNode, ExecutorUnavailable

ENGINE = "slurm"
NAME_PREFIX = "joblet-"


class SlurmUnavailable(ExecutorUnavailable):
    """Slurm does not answer, or not now. maybe_done: what was asked may have been done all the same."""

    def __init__(self, what: str, *, maybe_done: bool = False, todo: str = "") -> None:
        super().__init__(what, where="slurm", todo=todo or "joblet doctor --executor slurm tells what is wrong")
        self.maybe_done = maybe_done


class SlurmRefused(JobletError):
    """Slurm will not take the job, now or later: a partition that is not there, more memory than any node has."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch job. name: by which it is found again. minutes: None for no limit. nice: added to Slurm's own order."""

    name: str
    comment: str
    script: str
    output: str
    cpus: int = 1
    memory_mb: int | None = None
    minutes: int | None = None
    nice: int = 0
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    node: str = ""
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A job as Slurm sees it. state: the base state, as PENDING. node: on which it runs or ran. exit_code: of its script.

    started: seconds since the epoch, 0: not yet. restarts: how often Slurm has put it back into its queue.
    """

    id: str
    name: str
    state: str
    reason: str = ""
    node: str = ""
    exit_code: int | None = None
    exit_signal: int = 0
    started: int = 0
    restarts: int = 0


class Client(Protocol):
    """One way to ask. Every method blocks, for a bounded time, and raises SlurmUnavailable."""

    def submit(self, submission: Submission) -> str:
        """The new job's id. Raises SlurmRefused."""

    def jobs(self) -> Sequence[SlurmJob]:
        """All jobs of ours, one query; those that have ended too, as long as Slurm remembers them."""

    def find(self, name: str) -> Sequence[SlurmJob]:
        """The jobs of that name."""

    def terminate(self, ids: Sequence[str]) -> None:
        """Ask the launcher of running jobs to stop them, with their grace. Ids that are gone do no harm."""

    def kill(self, ids: Sequence[str]) -> None:
        """Ask it to kill them, and to tell how they ended."""

    def cancel(self, ids: Sequence[str]) -> None:
        """Take jobs out of the queue, or kill all of them that runs, the launcher too. Ids that are gone do no harm."""

    def nodes(self) -> Sequence[EngineNode]:
        """All nodes of the cluster."""

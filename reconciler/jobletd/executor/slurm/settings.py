"""What the executor is told about its cluster and its own place on this host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobletd.policy import NOTHING_SPECIAL, Policy


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """directory: on this host, for what was handed over. shared_directory: also on each node; None: their daemons are asked,
    with the certificates in node_clients, at node_port. contents_directory: on this host, where uploaded contents lie by their
    SHA-256. launcher: ``joblet`` on a node.

    prefix: what Slurm's commands are started by; environment: what they get. partition, account, qos, constraint: of jobs that
    name none, empty for Slurm's own. rest_*: slurmrestd; without a url Slurm's commands are used.
    """

    directory: str
    shared_directory: str | None
    contents_directory: str = ""
    node_clients: str = ""
    node_port: int = 50051
    launcher: tuple[str, ...] = ("/opt/joblet/bin/joblet",)
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    memory_headroom_bytes: int = 64 << 20
    command_seconds: float = 10.0
    shortest_poll_seconds: float = 1.0
    longest_poll_seconds: float = 30.0
    grace_seconds: float = 30.0
    stop_seconds: float = 5.0
    rest_url: str = ""
    rest_user: str = "root"
    rest_token_path: str = ""
    policy: Policy = NOTHING_SPECIAL

    @property
    def attempts_directory(self) -> str:
        """Beside ``attempts`` of ``directory``, in which this host may be a node itself."""
        return f"{self.shared_directory or f'{self.directory}/home'}/attempts"

    def attempt_directory(self, attempt_id: str) -> str:
        """What both sides know of an attempt, or what has come from its node."""
        return f"{self.attempts_directory}/{attempt_id}"

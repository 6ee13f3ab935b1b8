"""The section about what runs attempts beside this host."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import WithJsonSchema, model_validator

from joblet.config.section import Section, key
from joblet.config.values import TYPE, AbsolutePath, Seconds, Size
from joblet.manifest.fields import OptionalSlurmConstraint, OptionalSlurmWord

Words = Annotated[
    tuple[str, ...], WithJsonSchema({"type": "array", "items": {"type": "string"}, TYPE: "list of words"})
]
_Word = Annotated[OptionalSlurmWord, WithJsonSchema({"type": "string", TYPE: "name"})]
_Constraint = Annotated[OptionalSlurmConstraint, WithJsonSchema({"type": "string", TYPE: "constraint of sbatch"})]


class SlurmSection(Section):
    """The Slurm cluster that jobs may run on: all of them with `executor: slurm`, or those that say so themselves."""

    enabled: bool = key(False, "enabled", "Whether jobs may run there.", strict=True)
    shared_directory: AbsolutePath | None = key(
        None,
        "sharedDirectory",
        "A directory that this host and all nodes share, root's alone: claims, exit records and output go through it. Without "
        "it the nodes' daemons are asked, with `nodeClients`.",
    )
    node_clients: AbsolutePath | None = key(
        None,
        "nodeClients",
        "Directory with clients' configurations for the nodes' daemons, as `joblet certs issue --role slurm` writes them: "
        "`NODE.yml`, and `default.yml` for all nodes without one. Read again when they change.",
    )
    node_port: int = key(
        50051, "nodePort", "Port of the daemons of nodes without a file of their own.", ge=1, le=65535, strict=True
    )
    launcher: Words = key(("/opt/joblet/bin/joblet",), "launcher", "How `joblet` is called on a node.", min_length=1)
    config_file: AbsolutePath | None = key(
        None, "configFile", "`slurm.conf`, if it is not where Slurm's commands look for it."
    )
    partition: _Word = key(None, "partition", "Partition of jobs that name none.")
    account: _Word = key(None, "account", "Account of jobs that name none.")
    qos: _Word = key(None, "qos", "Quality of service of jobs that name none.")
    constraint: _Constraint = key(None, "constraint", "Features that the nodes of jobs have that name none.")
    memory_headroom_bytes: Size = key(
        64 << 20,
        "memoryHeadroom",
        "What is asked for beyond a job's `limits.memory`, so that its own limit is met before Slurm's.",
    )
    command_timeout_seconds: Seconds = key(
        10.0, "commandTimeout", "How long one call of Slurm may take, after which it counts as away."
    )
    shortest_poll_seconds: Seconds = key(
        1.0, "shortestPoll", "The pause between two looks at Slurm's queue while things change."
    )
    longest_poll_seconds: Seconds = key(30.0, "longestPoll", "The pause to which it grows while nothing changes.")
    record_grace_seconds: Seconds = key(
        30.0,
        "recordGrace",
        "How long an exit record may keep coming once Slurm says that a job is over, before Slurm's word counts.",
    )
    rest_url: str = key(
        "", "restUrl", "slurmrestd, as `http://HOST:PORT` or `unix:PATH`: asked instead of Slurm's commands."
    )
    rest_user: str = key("root", "restUser", "The user that the token is for.", min_length=1)
    rest_token_path: AbsolutePath | None = key(
        None, "restTokenPath", "File of a token (JWT) for slurmrestd, `0600`; read anew for each call."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.enabled and self.shared_directory is None and self.node_clients is None:
            raise ValueError("enabled needs sharedDirectory or nodeClients: by one of them nodes tell how jobs ended")
        if self.shortest_poll_seconds > self.longest_poll_seconds:
            raise ValueError("shortestPoll is longer than longestPoll")
        if self.rest_url and not self.rest_url.startswith(("http://", "https://", "unix:/")):
            raise ValueError("restUrl is neither http://HOST:PORT, https://HOST:PORT nor unix:/PATH")
        return self

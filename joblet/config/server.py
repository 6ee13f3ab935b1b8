"""The daemon's configuration, ``joblet-config.yml`` version "3.0": a key is here only if it has its effect."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from joblet.config.daemon_sections import (
    BackupSection,
    GrpcSection,
    LoggingSection,
    LogsSection,
    RunSection,
    SecuritySection,
    ServerSection,
    SpoolSection,
    StateSection,
)
from joblet.config.document import validate
from joblet.config.engine_sections import SlurmSection
from joblet.config.environment import with_environment
from joblet.config.errors import ConfigError
from joblet.config.fleet_sections import GitopsSection, NodeSection, WebhookSection
from joblet.config.go_joblet import without_go_keys
from joblet.config.job_sections import (
    CgroupSection,
    HistorySection,
    HooksSection,
    IsolationSection,
    JobletSection,
    NetworkSection,
    UploadsSection,
)
from joblet.config.private_file import read_private
from joblet.config.section import Section
from joblet.config.security_files import with_files_read
from joblet.config.watching_sections import MetricsSection, TracingSection
from joblet.config.yaml_places import ConfigText

__all__ = [
    "DEFAULT_PATH",
    "CgroupSection",
    "IsolationSection",
    "LoadedConfig",
    "LoggingSection",
    "ServerConfig",
    "config_path",
    "load_server_config",
    "read_server_config",
]

DEFAULT_PATH = "/opt/joblet/config/joblet-config.yml"


class ServerConfig(Section):
    """The whole file."""

    version: Literal["3.0"] = Field(description="The version of this format.")
    executor: Literal["local", "slurm"] = Field(
        "local", description="What runs jobs that do not say it themselves: this host, or the cluster of `slurm`."
    )
    server: ServerSection = ServerSection()
    joblet: JobletSection = JobletSection()
    security: SecuritySection = SecuritySection()
    cgroup: CgroupSection = CgroupSection()
    grpc: GrpcSection = GrpcSection()
    logging: LoggingSection = LoggingSection()
    spool: SpoolSection = SpoolSection()
    state: StateSection = StateSection()
    backup: BackupSection = BackupSection()
    logs: LogsSection = LogsSection()
    run: RunSection = RunSection()
    isolation: IsolationSection = IsolationSection()
    uploads: UploadsSection = UploadsSection()
    network: NetworkSection = NetworkSection()
    history: HistorySection = HistorySection()
    node: NodeSection = NodeSection()
    gitops: GitopsSection = GitopsSection()
    webhook: WebhookSection = WebhookSection()
    hooks: HooksSection = HooksSection()
    metrics: MetricsSection = MetricsSection()
    tracing: TracingSection = TracingSection()
    slurm: SlurmSection = SlurmSection()

    @model_validator(mode="after")
    def _executor_is_there(self) -> Self:
        if self.executor == "slurm" and not self.slurm.enabled:
            raise ValueError("executor: slurm needs slurm.enabled: true")
        return self

    @property
    def socket_path(self) -> str:
        """Of the API, for root on the host itself."""
        return f"{self.run.directory}/joblet.sock"

    @property
    def port_path(self) -> str:
        """Where the daemon says on which port it listens."""
        return f"{self.run.directory}/port"

    @property
    def metrics_port_path(self) -> str:
        """Where it says on which port it serves metrics."""
        return f"{self.run.directory}/metrics-port"


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration with where its values came from. environment: the variable that gave a key, by the key's dotted path."""

    config: ServerConfig
    source: ConfigText
    warnings: tuple[str, ...]
    environment: Mapping[str, str]


def config_path(path: str | None, env: Mapping[str, str]) -> str:
    """The file to read: ``path``, else JOBLET_CONFIG_PATH, else the packaged place."""
    return path or env.get("JOBLET_CONFIG_PATH") or DEFAULT_PATH


def load_server_config(path: str | None, env: Mapping[str, str]) -> ServerConfig:
    """The configuration in force: see ``read_server_config``. Raises ConfigError."""
    return read_server_config(path, env).config


def read_server_config(path: str | None, env: Mapping[str, str]) -> LoadedConfig:
    """The file that ``config_path`` names, as the variables of ``environment`` change it. Raises ConfigError."""
    path = config_path(path, env)
    if not os.path.exists(path):
        raise ConfigError("there is no such file", where=path, todo="joblet init --root DIR makes one")
    source = ConfigText(read_private(path), path=path)
    data, warnings = without_go_keys(source)
    config = validate(source, data, ServerConfig)
    config = config.model_copy(update={"security": with_files_read(config.security, source)})
    config, given_by = with_environment(config, env)
    return LoadedConfig(config, source, warnings, given_by)

"""The daemon's configuration, ``joblet-config.yml`` version "3.0": a key is here only if it has its effect."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from joblet.config.document import parse
from joblet.config.errors import ConfigError
from joblet.config.private_file import read_private
from joblet.manifest.names import check_capability
from joblet.manifest.quantities import parse_duration, parse_size

DEFAULT_PATH = "/opt/joblet/config/joblet-config.yml"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp))?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: object) -> object:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration (use 500ms, 30s, 5m or 1h)")
    return float(match[1]) * _UNITS[match[2]]


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _absolute(value: str) -> str:
    if not os.path.isabs(value):
        raise ValueError(f"{value!r} is not an absolute path")
    return os.path.normpath(value)


def _size(value: object) -> object:
    size = parse_size(value)
    if size < 1 << 20:
        raise ValueError(f"{value!r} is too small (at least 1Mi)")
    return size


def _pool(value: IPv4Network) -> IPv4Network:
    if not 16 <= value.prefixlen <= 24:
        raise ValueError(f"{value} is not /16 to /24")
    return value


def _host_port(value: object) -> str:
    match = _PORT.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise ValueError(f"{value!r} is not a port (use 8080 or 53/udp)")
    return f"{match[1]}/{match[2] or 'tcp'}"


Pool = Annotated[IPv4Network, AfterValidator(_pool)]
HostPort = Annotated[str, BeforeValidator(_host_port)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
Size = Annotated[int, BeforeValidator(_size)]
Capability = Annotated[str, BeforeValidator(check_capability)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class Section(BaseModel):
    """What all sections share."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ServerSection(Section):
    """Where the daemon listens. on_shutdown: what becomes of running jobs when it is told to end."""

    address: str = "127.0.0.1"
    port: int = Field(default=50051, ge=0, le=65535)
    on_shutdown: Literal["stop", "keep"] = Field(default="stop", alias="onShutdown")
    max_connections: int = Field(default=1024, ge=1, alias="maxConnections")


class JobletSection(Section):
    """Bounds on all jobs together, and on those of one source (the spool, a repository, a client). 0 is no bound."""

    max_concurrent_jobs: int = Field(default=0, ge=0, alias="maxConcurrentJobs")
    max_concurrent_per_source: int = Field(default=0, ge=0, alias="maxConcurrentPerSource")


class SecuritySection(Section):
    """Certificates, embedded as PEM text."""

    server_cert: str = Field(alias="serverCert")
    server_key: str = Field(alias="serverKey", repr=False)
    ca_cert: str = Field(alias="caCert")


class CgroupSection(Section):
    """Where the jobs' cgroups lie: a path of the unified hierarchy; v1 has the same below each controller."""

    base_dir: AbsolutePath = Field(default="/sys/fs/cgroup/joblet.slice/joblet.service", alias="baseDir")


class LoggingSection(Section):
    """The daemon's own log, on standard error."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    format: Literal["text", "json"] = "text"


class SpoolSection(Section):
    """The drop-in directory."""

    directory: AbsolutePath
    rescan_seconds: Seconds = Field(default=30.0, alias="rescanInterval")


class DirectorySection(Section):
    """One directory."""

    directory: AbsolutePath


class UploadsSection(Section):
    """Contents that clients send for jobs: the most of one, and of all together."""

    max_file_bytes: Size = Field(default=1 << 30, alias="maxFileBytes")
    max_total_bytes: Size = Field(default=10 << 30, alias="maxTotalBytes")


class StateSection(DirectorySection):
    """The durable state. key_file: the key that secrets are sealed under; ``secret.key`` in the directory if not set.
    min_free: below that much free space, there or where the logs are, nothing new is accepted or started."""

    key_file: AbsolutePath | None = Field(default=None, alias="keyFile")
    min_free_bytes: Size = Field(default=64 << 20, alias="minFree")


class BackupSection(Section):
    """The daemon's own backups. directory: ``backups`` in the state's if not set. keep: how many, the newest."""

    directory: AbsolutePath | None = None
    interval_seconds: Seconds = Field(default=86_400.0, alias="interval")
    keep: int = Field(default=7, ge=1, le=1000)


class IsolationSection(Section):
    """What manifests may ask for, nothing unless it stands here; and what every job gets.

    id_base, id_slots: the pool of host user ids, ranges of 65,536. seccomp_profiles, rootfs_images: the directories below
    which profiles and root file systems may lie. default_disk: size of a workspace without limits.disk, in memory.
    memory_disk: up to this size limits.disk is in memory too.
    """

    id_base: int = Field(default=0x7000_0000, ge=65536, alias="idBase")
    id_slots: int = Field(default=8192, ge=1, le=16384, alias="idSlots")
    allowed_capabilities: tuple[Capability, ...] = Field(default=(), alias="allowedCapabilities")
    allow_host_network: bool = Field(default=False, strict=True, alias="allowHostNetwork")
    allow_unconfined: bool = Field(default=False, strict=True, alias="allowUnconfined")
    seccomp_profiles: AbsolutePath | None = Field(default=None, alias="seccompProfiles")
    rootfs_images: AbsolutePath | None = Field(default=None, alias="rootfsImages")
    default_disk_bytes: Size = Field(default=512 << 20, alias="defaultDisk")
    memory_disk_bytes: Size = Field(default=64 << 20, alias="memoryDisk")


class NetworkSection(Section):
    """Networks of jobs. pool: what bridge and isolated take addresses from, half each. deny: what no job on a network of its own
    reaches. allow_host_ports: ports of the host that such jobs reach, ``53/udp`` or ``8080`` (TCP)."""

    pool: Pool = IPv4Network("10.213.0.0/16")
    deny: tuple[IPv4Network, ...] = (IPv4Network("169.254.0.0/16"),)
    allow_host_ports: tuple[HostPort, ...] = Field(default=(), alias="allowHostPorts")


def _age(value: object) -> object:
    return parse_duration(value)


class HistorySection(Section):
    """What is kept of ended runs on the whole host, beyond what each job's ``spec.history`` says. 0 and no age: no bound.

    max_runs: ended runs. max_age: of an ended run. max_log_bytes: output of ended runs. max_events: events.
    """

    max_runs: int = Field(default=100_000, ge=0, alias="maxRuns")
    max_age_seconds: Annotated[float, BeforeValidator(_age)] | None = Field(default=None, alias="maxAge")
    max_log_bytes: Size = Field(default=10 << 30, alias="maxLogBytes")
    max_events: int = Field(default=500_000, ge=0, alias="maxEvents")


class ServerConfig(Section):
    """The whole file."""

    version: Literal["3.0"]
    server: ServerSection = ServerSection()
    joblet: JobletSection = JobletSection()
    security: SecuritySection
    cgroup: CgroupSection = CgroupSection()
    logging: LoggingSection = LoggingSection()
    spool: SpoolSection
    state: StateSection
    backup: BackupSection = BackupSection()
    logs: DirectorySection
    run: DirectorySection
    isolation: IsolationSection = IsolationSection()
    uploads: UploadsSection = UploadsSection()
    network: NetworkSection = NetworkSection()
    history: HistorySection = HistorySection()


def config_path(path: str | None, env: Mapping[str, str]) -> str:
    """Where the configuration is looked for."""
    return path or env.get("JOBLET_CONFIG_PATH") or DEFAULT_PATH


def load_server_config(path: str | None, env: Mapping[str, str]) -> ServerConfig:
    """The configuration from ``path``, else JOBLET_CONFIG_PATH, else the packaged place; JOBLET_SERVER_ADDRESS,
    JOBLET_LOG_LEVEL and JOBLET_LOG_FORMAT win over the file. Raises ConfigError."""
    path = config_path(path, env)
    if not os.path.exists(path):
        raise ConfigError("there is no such file", where=path, todo="joblet init --root DIR makes one")
    config = parse(read_private(path), ServerConfig, path=path)
    return config.model_copy(update=overrides(config, env))


def overrides(config: ServerConfig, env: Mapping[str, str]) -> dict[str, object]:
    """The sections that the environment changes. Raises ConfigError."""
    changes: dict[str, object] = {}
    if address := env.get("JOBLET_SERVER_ADDRESS"):
        changes["server"] = config.server.model_copy(update={"address": address})
    logging = {"level": env.get("JOBLET_LOG_LEVEL"), "format": env.get("JOBLET_LOG_FORMAT")}
    given = {key: value for key, value in logging.items() if value}
    try:
        changes["logging"] = LoggingSection.model_validate({**config.logging.model_dump(), **given})
    except ValidationError as error:
        (wrong, *_) = (str(item["loc"][0]) for item in error.errors())
        todo = "use DEBUG, INFO, WARNING or ERROR" if wrong == "level" else "use text or json"
        what = f"{given[wrong]!r} is not a {wrong} that exists"
        raise ConfigError(what, where=f"JOBLET_LOG_{wrong.upper()}", todo=todo) from error
    return changes

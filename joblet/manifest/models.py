"""The v1 manifest as pydantic models: the one place that says which fields there are, what they mean, their defaults.

Attributes are snake_case and carry their unit; the manifest's own camelCase keys are the aliases, and the only names
accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationInfo, field_validator, model_validator

from joblet.manifest import fields as f
from joblet.manifest.array import Array, with_array
from joblet.manifest.choices import Enforcement, Network, Restart, Seccomp, Upkeep
from joblet.manifest.dependency import Dependency
from joblet.manifest.engine import SlurmRequest
from joblet.manifest.fields import ListInput, MappingInput
from joblet.manifest.hook import Hook
from joblet.manifest.model_base import ManifestModel, refuse
from joblet.manifest.probe import Probe, Update
from joblet.manifest.rules import cross_field_problems
from joblet.manifest.schedule import Schedule

# The context of a validation that need not check the rules across fields.
CHECKED_BEFORE: Mapping[str, str] = {"rules": "checked before"}


class Metadata(ManifestModel):
    """What it is called. Changing labels or annotations restarts nothing."""

    name: f.Name = Field(description="The name, unique among all of its kind on the host: an RFC 1123 label.")
    labels: dict[f.LabelKey, f.LabelValue] = Field(
        default={}, description="Short words to select jobs by, as in `rnx list -l team=data`."
    )
    annotations: dict[f.LabelKey, f.Text] = Field(default={}, description="Free text for people and tools.")


class FileSpec(ManifestModel):
    """A file in the workspace, put there before each attempt starts. One of content, from, sha256 and link says what it is."""

    path: f.FilePath = Field(description="Where, relative to /work. Directories on the way are made.")
    mode: f.FileMode = Field(default=0o644, description="Permissions, in octal and in quotes.")
    content: f.OptionalText = Field(default=None, description="What stands in it.")
    source: f.LocalPath = Field(
        default=None,
        alias="from",
        description="A file beside the manifest, or below, which `rnx apply` uploads; its mode counts if none is given.",
    )
    sha256: f.Sha256 = Field(default=None, description="Its content by SHA-256, uploaded before.")
    size: f.FileSize = Field(default=None, description="The size of that content in bytes.")
    link: f.LinkTarget = Field(default=None, description="It is a symbolic link to that path within the workspace.")


class VolumeMount(ManifestModel):
    """A volume that the job uses, and where it sees it."""

    name: f.Name = Field(description="The volume's name, as in its own manifest.")
    path: f.MountPath = Field(description="Where the job sees it.")
    read_only: f.Flag = Field(default=False, alias="readOnly", description="true: the job cannot write to it.")


class SecretUse(ManifestModel):
    """A secret that the job gets: as an environment variable, or as files below /run/secrets that only its user can read."""

    name: f.Name = Field(description="The secret's name, as in its own manifest.")
    key: f.OptionalSecretKey = Field(
        default=None, description="Which of its values. Default: its only one for env and path, else all of them."
    )
    env: f.OptionalEnvName = Field(default=None, description="The environment variable that gets it. Default: files.")
    path: f.OptionalFilePath = Field(
        default=None, description="The file that gets it, relative to /run/secrets. Default: name/key."
    )


class IoLimits(ManifestModel):
    """The most that the job may read and write a second on the workspace's disk."""

    read_bytes: f.Rate = Field(default=None, alias="read", description="Bytes read a second.")
    write_bytes: f.Rate = Field(default=None, alias="write", description="Bytes written a second.")
    read_ops: f.Operations = Field(default=None, alias="readOps", description="Read operations a second.")
    write_ops: f.Operations = Field(default=None, alias="writeOps", description="Write operations a second.")


class NetworkLimits(ManifestModel):
    """The most that the job may receive and send a second, on a network of its own (bridge, isolated or a declared one)."""

    in_bytes: f.Rate = Field(default=None, alias="in", description="Bytes received a second.")
    out_bytes: f.Rate = Field(default=None, alias="out", description="Bytes sent a second.")


class Limits(ManifestModel):
    """What the job may use at most. A limit that is left out is not set, unless a default is named."""

    cpu_percent: f.CpuPercent = Field(
        default=None, alias="cpu", description="CPU time: percent of one core (150%) or a number of cores (1.5)."
    )
    cpus: f.Cpus = Field(default=None, description="The cores it may run on, as in 0-1,3.")
    memory_bytes: f.Memory = Field(
        default=None, alias="memory", description="Memory, page cache included; beyond it the job is killed."
    )
    swap_bytes: f.Swap = Field(default=0, alias="swap", description="Swap it may use besides its memory.")
    pids: f.Pids = Field(default=None, description="Processes and threads at the same time.")
    io: Annotated[IoLimits | None, MappingInput] = Field(
        default=None, description="Reads and writes a second, on the workspace's disk."
    )
    network: Annotated[NetworkLimits | None, MappingInput] = Field(
        default=None, description="Traffic a second; needs isolation.network other than none and host."
    )
    disk_bytes: f.Disk = Field(
        default=None,
        alias="disk",
        description="Size of the workspace /work. Default: 512Mi in memory, at most half of memory.",
    )
    logs_bytes: f.LogSize = Field(default=64 << 20, alias="logs", description="Kept output; older output rotates away.")
    enforcement: f.EnforcementChoice = Field(
        default=Enforcement.STRICT,
        description="strict: a limit that this host cannot enforce is an error; best-effort: the status tells.",
    )

    @field_validator("io", mode="after")
    @classmethod
    def _no_limits_is_none(cls, io: IoLimits | None) -> IoLimits | None:
        return None if io == IoLimits() else io

    @field_validator("network", mode="after")
    @classmethod
    def _no_traffic_limits_is_none(cls, network: NetworkLimits | None) -> NetworkLimits | None:
        return None if network == NetworkLimits() else network


class Stop(ManifestModel):
    """How a running command is stopped: the signal, a time to comply, then its whole cgroup is killed."""

    signal: f.Signal = Field(default="SIGTERM", description="The signal that asks the command to end.")
    grace_seconds: f.Grace = Field(default=10.0, alias="grace", description="Time it has to do so.")


class Retry(ManifestModel):
    """New attempts after a failure, with a growing pause between them."""

    limit: f.RetryLimit = Field(default=0, description="How many attempts may follow the first.")
    initial_seconds: f.Delay = Field(
        default=10.0, alias="initial", description="The first pause; each further one is twice as long."
    )
    max_seconds: f.Delay = Field(default=300.0, alias="max", description="The longest pause.")
    on_exit_codes: Annotated[tuple[f.ExitCode, ...], ListInput] = Field(
        default=(), alias="onExitCodes", description="Retry only after these exit codes; empty: after any failure."
    )
    never_on_exit_codes: Annotated[tuple[f.ExitCode, ...], ListInput] = Field(
        default=(), alias="neverOnExitCodes", description="Never retry after these exit codes."
    )

    @field_validator("on_exit_codes", "never_on_exit_codes", mode="after")
    @classmethod
    def _sorted_codes(cls, codes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(codes)))


class Isolation(ManifestModel):
    """How far the job is kept from the host and from other jobs."""

    network: f.NetworkChoice = Field(
        default=Network.NONE,
        description="none: its own loopback device alone; bridge: out, the host may connect to it; isolated: out, nobody "
        "connects to it; host: the host's network; any other name: a declared network, whose jobs see each other by name.",
    )
    user: f.UserId = Field(
        default=0,
        description="User id inside the job, whose user namespace maps it to an unprivileged range of the host's.",
    )
    group: f.GroupId = Field(default=None, description="Group id inside the job. Default: the same number as user.")
    hostname: f.Hostname = Field(default=None, description="The host name that the job sees. Default: the job's name.")
    capabilities: Annotated[tuple[f.Capability, ...], ListInput] = Field(
        default=(),
        description="Capabilities it keeps, as in capabilities(7) without CAP_, within its own namespaces; those that the "
        "daemon's configuration allows.",
    )
    seccomp: f.SeccompProfile = Field(
        default=Seccomp.DEFAULT,
        description="The system calls it may make: as in a container; less (no network, nothing exotic); all, if the "
        "configuration allows that; or those of a profile in the OCI format.",
    )
    rootfs: f.RootFs = Field(
        default="host",
        description="host: the host's system directories, read-only; or a root file system, as a directory or a tar "
        "archive, which the job may write to and which stays as it is.",
    )

    upkeep: Annotated[tuple[f.UpkeepChoice, ...], ListInput] = Field(
        default=(),
        description="What it may ask the daemon to do, by /run/joblet/upkeep/ask; what the daemon's configuration allows.",
    )

    @field_validator("upkeep", mode="after")
    @classmethod
    def _sorted_upkeep(cls, upkeep: tuple[Upkeep, ...]) -> tuple[Upkeep, ...]:
        return tuple(sorted(set(upkeep)))

    @field_validator("capabilities", mode="after")
    @classmethod
    def _sorted_capabilities(cls, capabilities: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(capabilities)))


class History(ManifestModel):
    """How long ended runs and their output are kept."""

    keep: f.Keep = Field(default=10, description="How many ended runs are kept.")
    for_seconds: f.Retention = Field(default=30 * 86400.0, alias="for", description="How long they are kept.")
    logs_bytes: f.KeptOutput = Field(
        default=None,
        alias="logs",
        description="The most output that is kept of all ended runs together; the oldest goes first, never that of the latest.",
    )


class JobSpec(ManifestModel):
    """What runs, with what limits, and what happens when it ends."""

    command: Annotated[tuple[f.Argument, ...] | None, ListInput] = Field(
        default=None,
        min_length=1,
        description="The command and its arguments, run without a shell. Either this or script.",
    )
    script: f.Script = Field(
        default=None,
        description="A script, run by the interpreter its #! line names, or by sh -eu. Either this or command.",
    )
    env: dict[f.EnvName, f.Argument] = Field(
        default={}, description="Environment variables; nothing else is passed on."
    )
    workdir: f.PathText = Field(default="/work", description="The directory in which the command starts.")
    files: Annotated[tuple[FileSpec, ...], ListInput] = Field(
        default=(), description="Files written into the workspace before each attempt.", max_length=1000
    )
    limits: Limits = Field(default=Limits(), description=str(Limits.__doc__))
    timeout_seconds: f.RunTime = Field(
        default=None,
        alias="timeout",
        description="The longest that a run may take, all its attempts and pauses together.",
    )
    attempt_timeout_seconds: f.RunTime = Field(
        default=None, alias="attemptTimeout", description="The longest that one attempt may take."
    )
    stop: Stop = Field(default=Stop(), description=str(Stop.__doc__))
    retry: Retry = Field(default=Retry(), description=str(Retry.__doc__))
    restart: f.RestartChoice = Field(
        default=Restart.NEVER,
        description="Never: the command runs once; OnFailure: it is started again when it fails; Always: a service.",
    )
    schedule: Annotated[Schedule | None, MappingInput] = Field(default=None, description=str(Schedule.__doc__))
    array: Annotated[Array | None, MappingInput] = Field(default=None, description=str(Array.__doc__))
    matrix: dict[f.AxisName, f.AxisValues] = Field(
        default={},
        description="Each combination of these values is an index of the array, with its values in $JOBLET_MATRIX_ and the axis.",
    )
    priority: f.Priority = Field(
        default=50,
        description="Who goes first when jobs wait for a free place: from 0 to 100, the highest first. What runs is left alone.",
    )
    executor: f.OptionalEngine = Field(
        default=None,
        description="What runs it: local, this host; slurm, the cluster that the daemon's configuration names. Default: the "
        "configuration's executor.",
    )
    slurm: Annotated[SlurmRequest | None, MappingInput] = Field(default=None, description=str(SlurmRequest.__doc__))
    isolation: Isolation = Field(default=Isolation(), description=str(Isolation.__doc__))
    volumes: Annotated[tuple[VolumeMount, ...], ListInput] = Field(
        default=(), description="Volumes it uses; each is declared by a manifest of kind Volume.", max_length=16
    )
    secrets: Annotated[tuple[SecretUse, ...], ListInput] = Field(
        default=(), description="Secrets it gets; each is declared by a manifest of kind Secret.", max_length=32
    )
    outputs: Annotated[tuple[f.OutputName, ...], ListInput] = Field(
        default=(),
        description="Files of at most 4 KiB that it writes to /work/outputs; their text is kept with the run's end.",
        max_length=16,
    )
    depends_on: Annotated[tuple[Dependency, ...], ListInput] = Field(
        default=(),
        alias="dependsOn",
        description="Other jobs whose latest run has to have ended in a certain way before a run starts.",
        max_length=32,
    )
    probe: Annotated[Probe | None, MappingInput] = Field(default=None, description=str(Probe.__doc__))
    update: Update = Field(default=Update(), description=str(Update.__doc__))
    notify: Annotated[tuple[Hook, ...], ListInput] = Field(
        default=(), description="Who is told how runs end.", max_length=16
    )
    history: History = Field(default=History(), description=str(History.__doc__))
    suspend: f.Flag = Field(default=False, description="true: the job is kept but does not run; what runs is stopped.")

    @field_validator("files", mode="after")
    @classmethod
    def _sorted_files(cls, files: tuple[FileSpec, ...]) -> tuple[FileSpec, ...]:
        return tuple(sorted(files, key=lambda file: file.path))

    @field_validator("volumes", mode="after")
    @classmethod
    def _sorted_volumes(cls, volumes: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
        return tuple(sorted(volumes, key=lambda volume: volume.path))

    @field_validator("secrets", mode="after")
    @classmethod
    def _sorted_secrets(cls, secrets: tuple[SecretUse, ...]) -> tuple[SecretUse, ...]:
        order = {secret: (secret.name, secret.key or "", secret.env or "", secret.path or "") for secret in secrets}
        return tuple(sorted(order, key=lambda secret: order[secret]))

    @field_validator("depends_on", mode="after")
    @classmethod
    def _sorted_dependencies(cls, dependencies: tuple[Dependency, ...]) -> tuple[Dependency, ...]:
        return tuple(sorted(dependencies, key=lambda dependency: dependency.job))

    @model_validator(mode="wrap")
    @classmethod
    def _check_rules(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        spec = handler(with_array(data))
        if isinstance(data, dict) and info.context is not CHECKED_BEFORE:
            refuse("JobSpec", ((problem.path, problem.message) for problem in cross_field_problems(data)))
        return spec


class JobManifest(ManifestModel):
    """One YAML document that declares one job."""

    api_version: f.ApiVersion = Field(alias="apiVersion", description="The version of this form: joblet/v1.")
    kind: f.Kind = Field(description="What is declared: Job.")
    metadata: Metadata = Field(description=str(Metadata.__doc__))
    spec: JobSpec = Field(description=str(JobSpec.__doc__))

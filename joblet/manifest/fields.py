"""The leaf types of a manifest: how each is parsed, written back, and described in the JSON Schema.

Every leaf is one ``Leaf`` in an ``Annotated`` type, so that the three never drift apart. ``null`` is never a value: an
absent key means the default, an empty one is a mistake worth showing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from joblet.manifest import array_values, git_names, names, quantities, schedule_values, secret_value, webhook_url
from joblet.manifest.choices import (
    DependencyOutcome,
    Drift,
    Enforcement,
    Engine,
    HookEvent,
    Missed,
    Network,
    Overlap,
    ProbeFailure,
    Restart,
    Seccomp,
    Upkeep,
    VolumeType,
)
from joblet.manifest.nearest import nearest
from joblet.manifest.quantities import shown

KINDS = ("GitSource", "Job", "Network", "Secret", "Volume", "Workflow")


@dataclass(frozen=True)
class Leaf:
    """One scalar: parse raises ValueError with words for people; write gives the manifest's spelling back."""

    parse: Callable[[object], object]
    schema: dict[str, Any] = field(hash=False)
    write: Callable[[Any], object] | None = None
    kind: str = "text"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(self.write) if self.write else None
        return core_schema.no_info_plain_validator_function(self.parse, serialization=written)


@dataclass(frozen=True)
class Shorthand:
    """A mapping may also be given as a scalar of that JSON type, which a validator beside it turns into the mapping."""

    type: str


def _whole(low: int, high: int) -> Leaf:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            hint = "; write it without quotes" if isinstance(value, str) and value.isdecimal() else ""
            raise ValueError(f"{shown(value)} is not a whole number{hint}")
        if not low <= value <= high:
            raise ValueError(f"{shown(value)} is out of range ({low} to {high})")
        return value

    return Leaf(parse, {"type": "integer", "minimum": low, "maximum": high}, kind="number")


def _size(low: int = 0) -> Leaf:
    def parse(value: object) -> int:
        number = quantities.parse_size(value)
        if number < low:
            raise ValueError(f"{shown(value)} is too small (at least {quantities.format_size(low)})")
        return number

    schema = {
        "anyOf": [
            {"type": "integer", "minimum": low, "maximum": quantities.MAX_BYTES},
            {"type": "string", "pattern": quantities.SIZE_PATTERN},
        ],
        "examples": ["512Mi", "1G", 1048576],
    }
    return Leaf(parse, schema, quantities.format_size, "size")


def _duration(low_seconds: float = 0.0) -> Leaf:
    def parse(value: object) -> float:
        seconds = quantities.parse_duration(value)
        if seconds < low_seconds:
            raise ValueError(f"{shown(value)} is too short (at least {quantities.format_duration(low_seconds)})")
        return seconds

    schema = {"type": "string", "pattern": quantities.DURATION_PATTERN, "examples": ["90s", "1h30m", "500ms"]}
    return Leaf(parse, schema, quantities.format_duration, "duration")


def _text(check: Callable[[object], str], **schema: Any) -> Leaf:
    return Leaf(check, {"type": "string", **schema})


def _choice(choices: type[StrEnum]) -> Leaf:
    allowed = [choice.value for choice in choices]

    def parse(value: object) -> StrEnum:
        if isinstance(value, str) and value in allowed:
            return choices(value)
        best = nearest(value, allowed) if isinstance(value, str) else None
        hint = f"; did you mean {best}?" if best else ""
        raise ValueError(f"{shown(value)} is not allowed here{hint} (use {', '.join(allowed)})")

    return Leaf(parse, {"type": "string", "enum": allowed}, lambda choice: choice.value, "choice")


def _exactly(word: str) -> Leaf:
    def parse(value: object) -> str:
        if value != word or not isinstance(value, str):
            raise ValueError(f"{shown(value)} is not allowed here (use {word})")
        return word

    return Leaf(parse, {"type": "string", "const": word}, kind="choice")


def _kind(word: str) -> Leaf:
    """The kind of one model; what is none of KINDS is told all of them."""

    def parse(value: object) -> str:
        if value == word and isinstance(value, str):
            return value
        best = nearest(value, KINDS) if isinstance(value, str) else None
        hint = f"; did you mean {best}?" if best else ""
        raise ValueError(f"{shown(value)} is not a kind{hint} (use {', '.join(KINDS)})")

    return Leaf(parse, {"type": "string", "const": word}, kind="choice")


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not true or false")
    return value


def _any_text(value: object) -> str:
    if not isinstance(value, str):
        hint = "; write it in quotes" if isinstance(value, (bool, int, float)) else ""
        raise ValueError(f"{shown(value)} is not text{hint}")
    return value


def _list(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a list; write [a, b] or one item a line, each after a dash")
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{shown(value)} is not a list")
    return value


def _mapping(value: object) -> object:
    if value is None:
        raise ValueError("null is not a mapping; write the keys below it, or leave it out")
    return value


def _rootfs(value: object) -> str:
    return "host" if value == "host" else names.check_absolute_path(value)


def _seccomp(value: object) -> str:
    words = [choice.value for choice in Seccomp]
    if isinstance(value, str) and not value.startswith("/"):
        if value in words:
            return Seccomp(value)
        best = nearest(value, words)
        hint = f"; did you mean {best}?" if best else ""
        raise ValueError(f"{shown(value)} is not allowed here{hint} (use {', '.join(words)}, or a profile's path)")
    return names.check_absolute_path(value)


def _network(value: object) -> str:
    """A network that every host has, as a member of Network; else the name of one that a manifest declares."""
    if isinstance(value, str) and value in _NETWORKS:
        return Network(value)
    return names.check_name(value)


def _network_name(value: object) -> str:
    name = names.check_name(value)
    if name in _NETWORKS:
        raise ValueError(f"{shown(value)} is a network that every host has; choose another name")
    return name


_NETWORKS = frozenset(Network)

PathText = Annotated[str, _text(names.check_absolute_path, pattern=names.ABSOLUTE_PATH_PATTERN)]
MountPath = Annotated[str, _text(names.check_mount_path, pattern=names.MOUNT_PATH_PATTERN)]
Name = Annotated[str, _text(names.check_name, pattern=names.NAME_PATTERN)]
LabelKey = Annotated[str, _text(names.check_label_key, pattern=names.LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, _text(names.check_label_value, pattern=names.LABEL_VALUE_PATTERN)]
EnvName = Annotated[str, _text(names.check_env_name, pattern=names.ENV_NAME_PATTERN)]
Argument = Annotated[str, _text(names.check_argument, pattern=names.NO_NUL_PATTERN, maxLength=names.MAX_ARGUMENT_BYTES)]
Script = Annotated[str | None, _text(names.check_script, pattern=r"^[^\u0000]*[^\u0000\s][^\u0000]*$")]
Text = Annotated[str, _text(_any_text)]
FilePath = Annotated[str, _text(names.check_file_path, pattern=names.FILE_PATH_PATTERN)]
OptionalText = Annotated[str | None, _text(_any_text)]
LocalPath = Annotated[str | None, _text(names.check_local_path, pattern=names.LOCAL_PATH_PATTERN)]
LinkTarget = Annotated[str | None, _text(names.check_link_target, pattern=names.LINK_TARGET_PATTERN)]
Sha256 = Annotated[str | None, _text(names.check_sha256, pattern=names.SHA256_PATTERN)]
FileSize = Annotated[int | None, _whole(0, quantities.MAX_BYTES)]
FileMode = Annotated[
    int, Leaf(names.parse_mode, {"type": "string", "pattern": names.MODE_PATTERN}, lambda mode: f"{mode:04o}", "mode")
]
Hostname = Annotated[str | None, _text(names.check_hostname, pattern=names.HOSTNAME_PATTERN)]
Signal = Annotated[str, _text(names.check_signal, enum=list(names.SIGNALS))]
Capability = Annotated[str, _text(names.check_capability, enum=list(names.CAPABILITIES))]
SeccompProfile = Annotated[
    str,
    Leaf(
        _seccomp,
        {
            "anyOf": [
                {"enum": [choice.value for choice in Seccomp]},
                {"type": "string", "pattern": names.ABSOLUTE_PATH_PATTERN},
            ]
        },
        str,
        "default | strict | unconfined | path",
    ),
]
RootFs = Annotated[
    str, _text(_rootfs, anyOf=[{"const": "host"}, {"type": "string", "pattern": names.ABSOLUTE_PATH_PATTERN}])
]

CpuPercent = Annotated[
    float | None,
    Leaf(
        quantities.parse_cpu,
        {
            "anyOf": [
                {"type": "number", "minimum": 0.01, "maximum": quantities.MAX_CPU_PERCENT / 100},
                {"type": "string", "pattern": quantities.CPU_PATTERN},
            ],
            "examples": ["150%", 1.5],
        },
        quantities.format_cpu,
        "cpu",
    ),
]
Cpus = Annotated[str | None, _text(quantities.parse_cpus, pattern=quantities.CPUS_PATTERN, examples=["0-1", "0,2"])]
Memory = Annotated[int | None, _size(1 << 20)]
Swap = Annotated[int, _size()]
Disk = Annotated[int | None, _size(1 << 20)]
Rate = Annotated[int | None, _size(4096)]
Operations = Annotated[int | None, _whole(1, 10**9)]
LogSize = Annotated[int, _size(4096)]
Pids = Annotated[int | None, _whole(1, 4_194_304)]
UserId = Annotated[int, _whole(0, 65_535)]
GroupId = Annotated[int | None, _whole(0, 65_535)]
RetryLimit = Annotated[int, _whole(0, 1_000_000)]
Priority = Annotated[int, _whole(0, 100)]
Keep = Annotated[int, _whole(1, 10_000)]
ExitCode = Annotated[int, _whole(1, 255)]
RunTime = Annotated[float | None, _duration(0.001)]
Grace = Annotated[float, _duration()]
Delay = Annotated[float, _duration(0.001)]
Retention = Annotated[float, _duration()]
KeptOutput = Annotated[int | None, _size(4096)]

EnforcementChoice = Annotated[Enforcement, _choice(Enforcement)]
OptionalEngine = Annotated[Engine | None, _choice(Engine)]
SlurmWord = Annotated[str, _text(names.check_slurm_word, pattern=names.SLURM_WORD_PATTERN)]
OptionalSlurmWord = Annotated[str | None, _text(names.check_slurm_word, pattern=names.SLURM_WORD_PATTERN)]
OptionalSlurmConstraint = Annotated[
    str | None, _text(names.check_slurm_constraint, pattern=names.SLURM_CONSTRAINT_PATTERN)
]
RestartChoice = Annotated[Restart, _choice(Restart)]
NetworkChoice = Annotated[
    str, _text(_network, pattern=names.NAME_PATTERN, examples=[*(network.value for network in Network), "backend"])
]
Flag = Annotated[bool, Leaf(_boolean, {"type": "boolean"}, kind="flag")]
ApiVersion = Annotated[str, _exactly("joblet/v1")]
Kind = Annotated[str, _kind("Job")]

SecretKind = Annotated[str, _kind("Secret")]
SecretKey = Annotated[str, _text(names.check_secret_key, pattern=names.SECRET_KEY_PATTERN)]
OptionalSecretKey = Annotated[str | None, _text(names.check_secret_key, pattern=names.SECRET_KEY_PATTERN)]
OptionalEnvName = Annotated[str | None, _text(names.check_env_name, pattern=names.ENV_NAME_PATTERN)]
OptionalFilePath = Annotated[str | None, _text(names.check_file_path, pattern=names.FILE_PATH_PATTERN)]
SecretText = Annotated[
    secret_value.SecretValue,
    Leaf(secret_value.parse_text, {"type": "string", "writeOnly": True}, lambda _: secret_value.MASK),
]
SecretBytes = Annotated[
    secret_value.SecretValue,
    Leaf(
        secret_value.parse_base64,
        {"type": "string", "contentEncoding": "base64", "writeOnly": True},
        lambda _: secret_value.MASK,
    ),
]
SealedText = Annotated[
    secret_value.SealedValue,
    Leaf(secret_value.parse_sealed, {"type": "string", "pattern": secret_value.SEALED_PATTERN}, str),
]

CronText = Annotated[
    str | None,
    _text(schedule_values.check_cron, pattern=schedule_values.CRON_PATTERN, examples=["0 2 * * *", "H 2 * * MON-FRI"]),
]
PointInTime = Annotated[
    int | None,
    Leaf(
        schedule_values.parse_moment,
        {"type": "string", "pattern": schedule_values.MOMENT_PATTERN, "examples": ["2027-01-31T02:00:00Z"]},
        schedule_values.format_moment,
        "time",
    ),
]
WholeSeconds = Annotated[
    int | None,
    Leaf(
        schedule_values.parse_interval,
        {"type": "string", "pattern": quantities.DURATION_PATTERN, "examples": ["15m", "6h"]},
        quantities.format_duration,
        "duration",
    ),
]
TimeZone = Annotated[
    str, _text(schedule_values.check_zone, pattern=schedule_values.ZONE_PATTERN, examples=["Europe/Berlin"])
]
OverlapChoice = Annotated[Overlap, _choice(Overlap)]
MissedChoice = Annotated[Missed, _choice(Missed)]
MissedLimit = Annotated[int, _whole(1, 100)]
OptionalDelay = Annotated[float | None, _duration(1.0)]

VolumeKind = Annotated[str, _kind("Volume")]
VolumeTypeChoice = Annotated[VolumeType, _choice(VolumeType)]
VolumeSize = Annotated[int, _size(1 << 20)]

NetworkKind = Annotated[str, _kind("Network")]
NetworkName = Annotated[
    str, _text(_network_name, pattern=names.NAME_PATTERN, **{"not": {"enum": [network.value for network in Network]}})
]
Cidr = Annotated[str, _text(names.check_cidr, pattern=names.CIDR_PATTERN, examples=["10.20.0.0/24"])]

WorkflowKind = Annotated[str, _kind("Workflow")]
GitSourceKind = Annotated[str, _kind("GitSource")]
GitUrl = Annotated[
    str, _text(git_names.check_url, pattern=git_names.URL_PATTERN, examples=["https://git.example.org/team/jobs.git"])
]
GitRef = Annotated[str | None, _text(git_names.check_ref, pattern=git_names.REF_PATTERN)]
GitCommit = Annotated[str | None, _text(git_names.check_commit, pattern=git_names.COMMIT_PATTERN)]
VersionRange = Annotated[
    str | None, _text(git_names.check_range, pattern=git_names.RANGE_PATTERN, examples=["^1.2", ">=1.4.0 <2.0.0"])
]
TreePath = Annotated[str, _text(git_names.check_tree_path, pattern=git_names.TREE_PATH_PATTERN)]
SourceInterval = Annotated[float, _duration(1.0)]
OptionalName = Annotated[str | None, _text(names.check_name, pattern=names.NAME_PATTERN)]
Percent = Annotated[
    int,
    Leaf(
        quantities.parse_percent,
        {"type": "string", "pattern": quantities.PERCENT_PATTERN, "examples": ["50%"]},
        lambda percent: f"{percent}%",
        "percent",
    ),
]
DependencyOutcomeChoice = Annotated[DependencyOutcome, _choice(DependencyOutcome)]
HookEventChoice = Annotated[HookEvent, _choice(HookEvent)]
OptionalWebhook = Annotated[
    str | None,
    _text(webhook_url.check_webhook, pattern=webhook_url.URL_PATTERN, examples=["https://hooks.example.org/joblet"]),
]
Port = Annotated[int, _whole(1, 65_535)]
OptionalPort = Annotated[int | None, _whole(1, 65_535)]
HttpPath = Annotated[str, _text(names.check_http_path, pattern=names.HTTP_PATH_PATTERN)]
Pace = Annotated[float, _duration(0.1)]
Streak = Annotated[int, _whole(1, 1000)]
MaxUnavailable = Annotated[int, _whole(0, 1)]
ProbeFailureChoice = Annotated[ProbeFailure, _choice(ProbeFailure)]
OutputName = Annotated[str, _text(names.check_output_name, pattern=names.OUTPUT_NAME_PATTERN)]
OptionalIndex = Annotated[int | None, _whole(0, 999_999_999)]
Parallel = Annotated[int, _whole(1, 1000)]
LeastSucceeded = Annotated[int | None, _whole(1, 10_000)]
AxisName = Annotated[str, _text(array_values.check_axis, pattern=array_values.AXIS_PATTERN)]
_MATRIX_VALUE = {
    "anyOf": [
        {"type": "string", "pattern": array_values.VALUE_PATTERN, "maxLength": array_values.LONGEST_VALUE},
        {"type": "integer"},
    ]
}
MatrixValue = Annotated[str, Leaf(array_values.matrix_text, _MATRIX_VALUE)]
AxisValues = Annotated[
    tuple[str, ...],
    Leaf(
        array_values.parse_axis_values,
        {"type": "array", "items": _MATRIX_VALUE, "minItems": 1, "maxItems": array_values.MOST_VALUES},
        list,
        "list of text",
    ),
]
DriftChoice = Annotated[Drift, _choice(Drift)]
UpkeepChoice = Annotated[Upkeep, _choice(Upkeep)]

ListInput = BeforeValidator(_list)
MappingInput = BeforeValidator(_mapping)

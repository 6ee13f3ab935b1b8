"""The words of the daemon as types: what is stored, shown, and passed between its parts. No behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NewType

from joblet.clock import BootTime
from joblet.manifest import JobManifest, Manifest, ResourceManifest, key_of
from joblet.trace_context import SpanPlace

# A job's name; where kinds mix, what ``key_of`` gives: ``volume/data`` for anything else, since no name has a slash.
JobName = NewType("JobName", str)
RunId = NewType("RunId", str)
AttemptId = NewType("AttemptId", str)


class Phase(StrEnum):
    """Where a run or an attempt stands."""

    SCHEDULED = "SCHEDULED"  # waits for its time: between two attempts, or for a tick
    PENDING = "PENDING"  # waits for a free place
    INITIALIZING = "INITIALIZING"  # handed to the executor
    RUNNING = "RUNNING"  # its command was executed
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @property
    def is_final(self) -> bool:
        return self in (Phase.COMPLETED, Phase.FAILED, Phase.STOPPED)


class Reason(StrEnum):
    """Why a run or an attempt ended, or waits."""

    COMPLETED = "Completed"
    EXIT_CODE = "ExitCode"
    SIGNAL = "Signal"
    OOM_KILLED = "OOMKilled"
    TIMED_OUT = "TimedOut"
    STOPPED = "Stopped"  # by a person
    SUPERSEDED = "Superseded"  # by a newer generation
    REPLACED = "Replaced"  # by the run of a later tick
    MISSED = "Missed"  # its startingDeadline was over before it could begin
    NOT_NEEDED = "NotNeeded"  # the outcome of its array is sure without it
    DELETED = "Deleted"  # its manifest went away
    SUSPENDED = "Suspended"
    SHUTDOWN = "Shutdown"  # of the daemon, whose policy is to stop what runs
    START_ERROR = "StartError"
    INDEXES_FAILED = "IndexesFailed"  # too many of an array
    LIMIT_NOT_ENFORCEABLE = "LimitNotEnforceable"
    NOT_ALLOWED = "NotAllowed"  # by the configuration as it is now
    NODE_REBOOT = "NodeReboot"
    NODE_LOST = "NodeLost"  # the node it ran on is gone, or was taken from it
    LOST = "Lost"
    BACK_OFF = "BackOff"  # waits before the next attempt
    QUEUED = "Queued"  # waits for a free place
    CORDONED = "Cordoned"  # waits until the host may launch again
    DEPENDENCY_FAILED = "DependencyFailed"  # a job that it waits for ended in another way
    WAITING = "Waiting"  # for something that it uses and that is not there


class Action(StrEnum):
    """What an apply did to one manifest."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job came from and who owns it. ``str()`` gives the form of DESIGN: ``spool:<file>``, ``grpc:<client>``.

    Of git the name is ``<GitSource>@<commit>:<file>``, the commit the one with which the job became what it is.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def share(self) -> str:
        """What counts as one when places are shared out: the whole spool, one repository, one client."""
        match self.kind:
            case "spool":
                return self.kind
            case "git":
                return f"{self.kind}:{self.name.partition('@')[0]}"
            case _:
                return str(self)

    @property
    def owner(self) -> str:
        """Who may change what came from here: any gRPC client, that file of the spool, any commit and file of that GitSource."""
        match self.kind:
            case "grpc":
                return "grpc"
            case "git":
                return f"git:{self.name.partition('@')[0]}"
            case _:
                return str(self)

    @property
    def file(self) -> str:
        """The file that declares it, as its source names it; empty if there is none."""
        match self.kind:
            case "grpc" | "hook" | "workflow":
                return ""
            case "git":
                return self.name.partition("@")[2].partition(":")[2]
            case _:
                return self.name

    @classmethod
    def parse(cls, text: str) -> Source:
        kind, _, name = text.partition(":")
        return cls(kind, name)


@dataclass(frozen=True, slots=True)
class Usage:
    """What an attempt used. None: the host cannot tell.

    _pressure: percent of the last ten seconds in which something of it had to wait for that; _pressure_seconds: in all.
    """

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_seconds: float | None = None
    throttled_seconds: float | None = None
    pids: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    oom_kills: int | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    io_pressure: float | None = None
    cpu_pressure_seconds: float | None = None
    memory_pressure_seconds: float | None = None
    io_pressure_seconds: float | None = None

    def after_the_end(self) -> Usage:
        """Less what is only so while it runs."""
        return replace(self, memory_bytes=None, pids=None, cpu_pressure=None, memory_pressure=None, io_pressure=None)


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """One limit as asked and as read back. name: as in ``spec.limits`` (``memory``, ``io.read``)."""

    name: str
    asked: str
    effective: str
    enforced: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Exited:
    """The command ended by itself. code: 0 to 255."""

    code: int


@dataclass(frozen=True, slots=True)
class Killed:
    """The command ended by a signal, named as in signal(7)."""

    signal: str


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The command was never executed. code: 126 or 127 as shells give. error: the errno's text and what it concerns."""

    code: int
    error: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell how it ended. why: what is known."""

    why: str


Outcome = Exited | Killed | NotStarted | Unknown


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt is, beyond this daemon. engine: what placed it (``slurm``). job: that engine's own name for it.
    node: empty as long as it waits."""

    engine: str
    job: str = ""
    node: str = ""

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        return f"{self.engine} job {self.job}{where}" if self.job else f"{self.engine}{where}"


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended, as its executor tells: the facts of the exit record. outputs: what it hands on, by name. place:
    None for this host."""

    outcome: Outcome
    reason: Reason
    ended_ns: int
    started_ns: int | None = None
    message: str = ""
    usage: Usage = field(default_factory=Usage)
    outputs: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One launch of a run's command.

    created_boot: the same moment as created_ns, on the clock that timers go by. epoch: the executor's at the intent.
    generation: the one whose limits are in force. number: from 1. usage, place: now, while it has not ended and where it was
    asked for; not stored. usage_ns: when the usage was read, if that is not now.
    """

    id: AttemptId
    run_id: RunId
    number: int
    phase: Phase
    created_ns: int
    epoch: str = ""
    generation: int = 0
    started_ns: int | None = None
    limits: tuple[LimitStatus, ...] = ()
    end: End | None = None
    usage: Usage | None = None
    created_boot: BootTime | None = None
    place: Place | None = None
    usage_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution that a job asked for.

    manifest: what it runs, as it was when the run was made or changed in place. next_attempt_boot: the same moment as
    next_attempt_ns, on the clock that timers go by. stop: why it is to end, once that was decided; force: without its grace.
    tick_seconds: of its schedule, since the epoch, without jitter. trace: its own span, if traces are recorded. marks: of an
    array, one letter an index (see ``jobletd.arrays``), else empty; such a run has no attempts. index: of the array whose run's
    id is in job_uid.
    """

    id: RunId
    job: JobName
    job_uid: str
    generation: int
    trigger: str  # generation | manual | schedule | forced | retry
    phase: Phase
    manifest: JobManifest
    created_ns: int
    reason: Reason | None = None
    message: str = ""
    started_ns: int | None = None
    ended_ns: int | None = None
    outcome: Outcome | None = None
    next_attempt_ns: int | None = None
    next_attempt_boot: BootTime | None = None
    stop: Reason | None = None
    force: bool = False
    queue_position: int = 0
    tick_seconds: int | None = None
    attempts: tuple[Attempt, ...] = ()  # oldest first
    trace: SpanPlace | None = None
    marks: str = ""
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A lasting fact about a job. type: Valid, Conflict, LimitsEnforced ... status: True, False, Unknown."""

    type: str
    status: str
    reason: str
    message: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its status: what ``get``, ``list``, ``watch`` and the status files show. runs: newest first.

    ticked_seconds: up to where, since the epoch, it was decided about the ticks of its schedule. next_tick_ns: when the next one
    is due; derived, not stored. array_run: this is no job, but an index of the array with that run.
    """

    uid: str
    manifest: JobManifest
    source: Source
    generation: int
    observed_generation: int
    created_ns: int
    updated_ns: int
    deleting: bool = False
    conditions: tuple[Condition, ...] = ()
    runs: tuple[Run, ...] = ()
    ticked_seconds: int | None = None
    next_tick_ns: int | None = None
    array_run: RunId | None = None

    @property
    def name(self) -> JobName:
        return JobName(self.manifest.metadata.name)


@dataclass(frozen=True, slots=True)
class ResourceView:
    """Anything but a job, with its status. secret: what its manifest may not show, sealed."""

    uid: str
    manifest: ResourceManifest
    source: Source
    generation: int
    created_ns: int
    updated_ns: int
    deleting: bool = False
    conditions: tuple[Condition, ...] = ()
    secret: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> JobName:
        return JobName(key_of(self.manifest))


@dataclass(frozen=True, slots=True)
class ShownResource:
    """A resource as people see it. status: its controller's words. users: jobs with a run that uses it."""

    view: ResourceView
    status: Mapping[str, str]
    users: tuple[JobName, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, when, why, how often. type: Normal or Warning. job: empty for the host itself."""

    id: int
    job: str
    run_id: str
    type: str
    reason: str
    message: str
    count: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Cordon:
    """Since when, at whose wish and why this host launches nothing."""

    since_ns: int
    by: str
    reason: str = ""

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"{self.by} cordoned this host{why}; rnx uncordon lets it launch again"


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What an apply did to one manifest. name: its key. consequence: one short sentence for people."""

    name: JobName
    action: Action
    generation: int
    consequence: str
    run_id: RunId | None
    current: Manifest | None
    desired: Manifest


@dataclass(frozen=True, slots=True)
class JobChange:
    """One message of a watch. type: ADDED, MODIFIED, DELETED; SYNCED carries no job."""

    type: str
    job: JobView | None


@dataclass(slots=True)
class LogEntry:
    """One CRI entry; not frozen, since that would triple the cost of making one.

    data: as written by the job, with its newline unless partial (tag P).
    """

    time_ns: int
    stream: str
    data: bytes
    partial: bool
    attempt: int = 0


Labels = Mapping[str, str]

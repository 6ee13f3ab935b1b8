"""The executor: what stands between the reconciler and whatever runs an attempt. Nothing above knows of pids or cgroups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

from joblet.errors import JobletError
from joblet.manifest import JobManifest, Probe, ResourceManifest
from joblet.trace_context import TraceContext
from jobletd.model import AttemptId, End, LimitStatus, LogEntry, Place, Usage

Handle = NewType("Handle", str)
"""An executor's own name for a submitted attempt: opaque text, recorded by the reconciler, valid after a restart."""


class ExecutorUnavailable(JobletError):
    """Whatever runs attempts does not answer just now: nothing was done, and it can be tried again."""


@dataclass(frozen=True, slots=True, repr=False)
class GivenSecrets:
    """What an attempt gets of its job's secrets. files: by path below /run/secrets. In memory alone, and never printed."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    env: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "GivenSecrets(***)"

    def __bool__(self) -> bool:
        return bool(self.files or self.env)


@dataclass(frozen=True, slots=True)
class AttemptRequest:
    """All that an executor needs to start an attempt.

    attempt_id: unique for ever, ``<run id>-<number>``. number: from 1. deadline_seconds: time left of the run's
    ``timeout`` at submission (None: no limit); the attempt's own ``attemptTimeout`` is in the manifest. resources: all that
    the manifest refers to. tick_seconds: of the job's schedule, if the run is for one. trace: the span that its command is.
    """

    attempt_id: AttemptId
    run_id: str
    number: int
    manifest: JobManifest
    deadline_seconds: float | None
    resources: tuple[ResourceManifest, ...] = ()
    secrets: GivenSecrets = GivenSecrets()
    tick_seconds: int | None = None
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """Handed over, its command not yet executed. why: what it has been waiting for, if that is worth telling; for people."""

    why: str = ""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """usage: of one attempt. at_ns: when it was read, on the clock of its node; None: just now."""

    usage: Usage
    at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """Its command was executed. usage: now, as far as it can be told from here. place: None for this host.

    usage_ns: when the usage was read, on the clock of its node; None: just now.
    """

    started_ns: int
    usage: Usage
    limits: tuple[LimitStatus, ...]
    place: Place | None = None
    usage_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """It ended, and how. All that the attempt held on the host may be cleaned up by ``forget``."""

    end: End
    limits: tuple[LimitStatus, ...]


@dataclass(frozen=True, slots=True)
class NeverSubmitted:
    """The executor has no trace of it: it may be submitted (again) without the risk of running twice."""


Observation = Pending | Running | Ended | NeverSubmitted


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What of a log is wanted: from a time on, the last so many lines, one stream alone (empty: both).

    follow: go on until the attempt has ended and all was read.
    """

    since_ns: int = 0
    tail_lines: int | None = None
    stream: str = ""
    follow: bool = False

    def wants(self, entry: LogEntry) -> bool:
        return entry.time_ns >= self.since_ns and self.stream in ("", entry.stream)


@dataclass(frozen=True, slots=True)
class EngineNode:
    """A node that attempts may be placed on. state: in its engine's own words. load: of its CPUs. memory in bytes.

    address: where its engine finds it.
    """

    engine: str
    name: str
    state: str
    reason: str = ""
    partitions: tuple[str, ...] = ()
    cpus: int = 0
    cpus_used: int = 0
    load: float | None = None
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    address: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one executor stands. why: it is not available. pending, running: attempts that it knows."""

    name: str
    available: bool
    why: str = ""
    pending: int = 0
    running: int = 0


class Executor(Protocol):
    """Runs attempts: the one way in which one is started, watched, adopted, read and stopped. Every method may be repeated
    without harm, and none waits for an engine that does not answer."""

    def epoch_of(self, manifest: JobManifest) -> str:
        """What a loss of all running attempts changes: the boot id for the local one, a constant where there is no such thing.

        Recorded with each intent. An attempt of another epoch of which there is no trace may have run: it is not submitted
        again but ends as NodeReboot.
        """

    def changes_limits(self, manifest: JobManifest) -> bool:
        """Whether the limits of this job's running attempts can be changed in place."""

    async def nodes(self) -> Sequence[EngineNode]:
        """The nodes beside this host that attempts are placed on. Raises ExecutorUnavailable."""

    def standing(self) -> Sequence[Standing]:
        """How this executor stands, or each one behind it: from memory."""

    def subscribe(self, nudge: Callable[[AttemptId], None]) -> None:
        """Call ``nudge`` in the event loop whenever an attempt may have changed. A nudge only says: observe again."""

    async def start(self) -> None:
        """Get ready. Raises JobletError if the host cannot run jobs at all."""

    async def close(self) -> None:
        """Let go of everything; attempts run on."""

    async def submit(self, request: AttemptRequest) -> Handle:
        """Start an attempt; idempotent by attempt id: a second call for one that was launched launches nothing.

        Returns once the attempt is launched, its failure to start is on record (then ``observe`` gives Ended), or it is
        durably on record as one that the executor itself hands on to its engine.
        Raises ExecutorUnavailable if it could not be tried; the caller tries again.
        """

    async def observe(self, attempts: Iterable[AttemptId]) -> Mapping[AttemptId, Observation]:
        """The truth about each of these attempts, one query for all; also adopts those of a previous daemon."""

    async def usage(self, attempts: Mapping[AttemptId, Usage | None]) -> Mapping[AttemptId, Used]:
        """What these use that were seen running, for a fraction of ``observe``'s price; less those that do not run any more, or
        of which nothing is known yet.

        Each comes with what it used before, or None: that very object comes back if none of it has run since.
        """

    async def cancel(self, attempt: AttemptId, *, force: bool) -> None:
        """Begin the stop of an attempt: its stop signal, its grace, then the kill; ``force`` kills at once. Returns at once."""

    async def update_limits(self, attempt: AttemptId, manifest: JobManifest) -> tuple[LimitStatus, ...]:
        """Change the limits of a running attempt in place, and read them back. Raises JobletError if the kernel refuses."""

    async def probe(self, request: AttemptRequest, probe: Probe) -> Sequence[str]:
        """Whether a running attempt is well: what it answered since the last call, oldest first. Each is why it is not, or
        nothing if it is. request: as for its start. Raises ExecutorUnavailable if nobody can tell."""

    async def forget(self, attempt: AttemptId) -> None:
        """Free all that an ended attempt still holds on the host, except its log."""

    async def prune(self, live: Iterable[AttemptId]) -> None:
        """Free what is left of attempts that are none of ``live``: once, after the start."""

    async def remove_logs(self, attempt: AttemptId) -> None:
        """Delete an ended attempt's log."""

    async def log_bytes(self, attempt: AttemptId) -> int:
        """How much room an ended attempt's log takes."""

    def logs(self, attempt: AttemptId, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        """The attempt's output in order, in batches; see ``LogQuery``. The attempt runs or has ended."""
        ...

"""The executor: what stands between the reconciler and whatever runs an attempt. Nothing above knows of pids or cgroups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NewType, Protocol

from joblet.manifest import JobManifest, Probe, ResourceManifest
from jobletd.model import AttemptId, End, LimitStatus, LogEntry, Usage

Handle = NewType("Handle", str)
"""An executor's own name for a submitted attempt: opaque text, recorded by the reconciler, valid after a restart."""


@dataclass(frozen=True, slots=True, repr=False)
class GivenSecrets:
    """What an attempt gets of its job's secrets. files: by path below /run/secrets. In memory alone, and never printed."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    env: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "GivenSecrets(***)"


@dataclass(frozen=True, slots=True)
class AttemptRequest:
    """All that an executor needs to start an attempt.

    attempt_id: unique for ever, ``<run id>-<number>``. number: from 1. deadline_seconds: time left of the run's
    ``timeout`` at submission (None: no limit); the attempt's own ``attemptTimeout`` is in the manifest. resources: all that
    the manifest refers to. tick_seconds: of the job's schedule, if the run is for one.
    """

    attempt_id: AttemptId
    run_id: str
    number: int
    manifest: JobManifest
    deadline_seconds: float | None
    resources: tuple[ResourceManifest, ...] = ()
    secrets: GivenSecrets = GivenSecrets()
    tick_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """Handed over, its command not yet executed."""


@dataclass(frozen=True, slots=True)
class Running:
    """Its command was executed. usage: now."""

    started_ns: int
    usage: Usage
    limits: tuple[LimitStatus, ...]


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


class Executor(Protocol):
    """Runs attempts. Every method may be repeated without harm."""

    @property
    def epoch(self) -> str:
        """What a loss of all running attempts changes: the boot id for the local one, empty where there is no such thing.

        Recorded with each intent. An attempt of another epoch of which there is no trace may have run: it is not submitted
        again but ends as NodeReboot.
        """

    def subscribe(self, nudge: Callable[[AttemptId], None]) -> None:
        """Call ``nudge`` in the event loop whenever an attempt may have changed. A nudge only says: observe again."""

    async def start(self) -> None:
        """Get ready. Raises JobletError if the host cannot run jobs at all."""

    async def close(self) -> None:
        """Let go of everything; attempts run on."""

    async def submit(self, request: AttemptRequest) -> Handle:
        """Start an attempt; idempotent by attempt id: a second call for one that was launched launches nothing.

        Returns once the attempt is launched or its failure to start is on record (then ``observe`` gives Ended).
        Raises ExecutorUnavailable if it could not be tried; the caller tries again.
        """

    async def observe(self, attempts: Iterable[AttemptId]) -> Mapping[AttemptId, Observation]:
        """The truth about each of these attempts, one query for all; also adopts those of a previous daemon."""

    async def cancel(self, attempt: AttemptId, *, force: bool) -> None:
        """Begin the stop of an attempt: its stop signal, its grace, then the kill; ``force`` kills at once. Returns at once."""

    async def update_limits(self, attempt: AttemptId, manifest: JobManifest) -> tuple[LimitStatus, ...]:
        """Change the limits of a running attempt in place, and read them back. Raises JobletError if the kernel refuses."""

    async def probe(self, request: AttemptRequest, probe: Probe) -> str:
        """Ask a running attempt whether it is well. Returns why not, or nothing if it is. request: as for its start."""

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

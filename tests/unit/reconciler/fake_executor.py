"""An executor whose attempts live in memory and end when the test says so; what it promises is what the real one promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from joblet.errors import JobletError
from joblet.manifest import JobManifest, Probe
from jobletd.executor import (
    AttemptRequest,
    Ended,
    EngineNode,
    ExecutorUnavailable,
    Handle,
    LogQuery,
    NeverSubmitted,
    Observation,
    Pending,
    Running,
    Standing,
    Used,
)
from jobletd.model import (
    AttemptId,
    End,
    Exited,
    Killed,
    LimitStatus,
    LogEntry,
    NotStarted,
    Outcome,
    Reason,
    Unknown,
    Usage,
)
from tests.unit.reconciler.stepped_clock import SteppedClock


@dataclass
class Launched:
    """One launch on the fake host. started_ns: None as long as its command was not executed."""

    request: AttemptRequest
    started_ns: int | None
    limits: tuple[LimitStatus, ...]
    end: End | None = None
    cancels: list[bool] = field(default_factory=list)


def limits_of(manifest: JobManifest) -> tuple[LimitStatus, ...]:
    memory = manifest.spec.limits.memory_bytes
    return () if memory is None else (LimitStatus("memory", str(memory), str(memory), True),)


class FakeHost:
    """What outlives the daemon: attempts that run, exit records, logs. Broken promises of the reconciler are noted."""

    def __init__(self, clock: SteppedClock) -> None:
        self.clock = clock
        self.epoch = "boot-1"
        self.attempts: dict[AttemptId, Launched] = {}
        self.launches: list[AttemptRequest] = []
        self.forgotten: list[AttemptId] = []
        self.removed_logs: list[AttemptId] = []
        self.pruned: list[AttemptId] = []
        self.log_bytes = 0  # of each attempt
        self.broken_promises: list[str] = []
        self.starts_at_once = True
        self.ignores_stop = False
        self.changes_limits = True
        self.pending_why = ""
        self.may_overlap = False  # runs of one job
        self.submit_error: JobletError | None = None
        self.update_error: JobletError | None = None
        self.forget_error: JobletError | None = None
        self.unwell: dict[AttemptId, str] = {}  # what a probe of that attempt says
        self.silent = ""  # why nobody can tell how any attempt is
        self.probes: list[AttemptId] = []
        self.outputs: dict[str, dict[str, str]] = {}  # by job: what it hands on
        self.on_launch: Callable[[Launched], None] | None = None
        self.nudge: Callable[[AttemptId], None] = lambda _: None

    def live(self) -> list[Launched]:
        return [launched for launched in self.attempts.values() if launched.end is None]

    def launch(self, request: AttemptRequest) -> None:
        job = request.manifest.metadata.name
        for other in self.live():
            beside = self.may_overlap or request.manifest.spec.update.max_unavailable == 0
            if other.request.manifest.metadata.name == job and not beside:
                self.broken_promises.append(f"{request.attempt_id} launched while {other.request.attempt_id} lives")
        if request.attempt_id in [launch.attempt_id for launch in self.launches]:
            self.broken_promises.append(f"{request.attempt_id} launched twice")
        started_ns = self.clock.wall_ns() if self.starts_at_once else None
        launched = Launched(request, started_ns, limits_of(request.manifest))
        self.launches.append(request)
        self.attempts[request.attempt_id] = launched
        if self.on_launch is not None:
            self.on_launch(launched)

    def start(self, attempt: AttemptId) -> None:
        self.attempts[attempt].started_ns = self.clock.wall_ns()
        self.nudge(attempt)

    def exit(self, attempt: AttemptId, code: int = 0) -> None:
        self.end(attempt, Exited(code), Reason.EXIT_CODE if code else Reason.COMPLETED)

    def end(self, attempt: AttemptId, outcome: Outcome, reason: Reason) -> None:
        launched = self.attempts[attempt]
        if launched.end is None:
            message = f"{outcome}"
            launched.end = End(
                outcome,
                reason,
                self.clock.wall_ns(),
                launched.started_ns,
                message,
                Usage(memory_peak_bytes=1),
                self.outputs.get(launched.request.manifest.metadata.name, {}),
            )
            self.nudge(attempt)

    def fail_to_start(self, attempt: AttemptId, code: int = 127, reason: Reason = Reason.START_ERROR) -> None:
        self.attempts[attempt].started_ns = None
        self.end(attempt, NotStarted(code, "No such file or directory"), reason)

    def reboot(self) -> None:
        """All that ran is gone; the executor knows the attempts whose directory it finds."""
        for attempt, launched in self.attempts.items():
            if launched.end is None:
                self.end(attempt, Unknown("the host was started anew"), Reason.NODE_REBOOT)
        self.clock.reboot()
        self.epoch = f"boot-{self.clock.boots}"


class FakeExecutor:
    """One daemon's executor on that host. before, after: called around each thing that the reconciler asks for."""

    def __init__(self, host: FakeHost, step: Callable[[str], Awaitable[None]]) -> None:
        self.host = host
        self._step = step

    def epoch_of(self, manifest: JobManifest) -> str:
        return self.host.epoch

    def changes_limits(self, manifest: JobManifest) -> bool:
        return self.host.changes_limits

    async def nodes(self) -> Sequence[EngineNode]:
        return ()

    def standing(self) -> Sequence[Standing]:
        return ()

    def subscribe(self, nudge: Callable[[AttemptId], None]) -> None:
        self.host.nudge = nudge

    async def start(self) -> None:
        return

    async def close(self) -> None:
        self.host.nudge = lambda _: None

    async def submit(self, request: AttemptRequest) -> Handle:
        await self._step("before submit")
        if self.host.submit_error is not None:
            raise self.host.submit_error
        if request.attempt_id not in self.host.attempts:
            self.host.launch(request)
        await self._step("after submit")
        return Handle(request.attempt_id)

    async def observe(self, attempts: Iterable[AttemptId]) -> Mapping[AttemptId, Observation]:
        return {attempt: self._look(attempt) for attempt in attempts}

    def _look(self, attempt: AttemptId) -> Observation:
        launched = self.host.attempts.get(attempt)
        if launched is None:
            return NeverSubmitted()
        if launched.end is not None:
            return Ended(launched.end, launched.limits)
        if launched.started_ns is None:
            return Pending(self.host.pending_why)
        return Running(launched.started_ns, Usage(memory_bytes=7), launched.limits)

    async def usage(self, attempts: Mapping[AttemptId, Usage | None]) -> Mapping[AttemptId, Used]:
        looks = {attempt: self._look(attempt) for attempt in attempts}
        return {
            attempt: Used(look.usage, look.usage_ns) for attempt, look in looks.items() if isinstance(look, Running)
        }

    async def cancel(self, attempt: AttemptId, *, force: bool) -> None:
        await self._step("before cancel")
        launched = self.host.attempts[attempt]
        launched.cancels.append(force)
        if force:
            self.host.end(attempt, Killed("SIGKILL"), Reason.STOPPED)
        elif not self.host.ignores_stop:
            self.host.end(attempt, Killed("SIGTERM"), Reason.STOPPED)

    async def update_limits(self, attempt: AttemptId, manifest: JobManifest) -> tuple[LimitStatus, ...]:
        await self._step("before update")
        if self.host.update_error is not None:
            raise self.host.update_error
        launched = self.host.attempts[attempt]
        launched.limits = limits_of(manifest)
        launched.request = replace(launched.request, manifest=manifest)
        return launched.limits

    async def probe(self, request: AttemptRequest, probe: Probe) -> Sequence[str]:
        self.host.probes.append(request.attempt_id)
        if self.host.silent:
            raise ExecutorUnavailable(self.host.silent, where="its node")
        return [self.host.unwell.get(request.attempt_id, "")]

    async def forget(self, attempt: AttemptId) -> None:
        await self._step("before forget")
        if self.host.forget_error is not None:
            raise self.host.forget_error
        launched = self.host.attempts.get(attempt)
        if launched is not None and launched.end is None:
            self.host.broken_promises.append(f"{attempt} forgotten while it lives")
        self.host.attempts.pop(attempt, None)
        self.host.forgotten.append(attempt)

    async def prune(self, live: Iterable[AttemptId]) -> None:
        for attempt in set(self.host.attempts) - set(live):
            del self.host.attempts[attempt]
            self.host.pruned.append(attempt)

    async def remove_logs(self, attempt: AttemptId) -> None:
        self.host.removed_logs.append(attempt)

    async def log_bytes(self, attempt: AttemptId) -> int:
        return 0 if attempt in self.host.removed_logs else self.host.log_bytes

    async def logs(self, attempt: AttemptId, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        yield [LogEntry(0, "stdout", attempt.encode(), False, int(attempt.rsplit("-", 1)[1]))]

"""Several executors as one: each attempt is asked about where it was handed over, each new one goes where its job wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from joblet.manifest import Engine, JobManifest, Probe
from jobletd.executor import (
    AttemptRequest,
    EngineNode,
    Executor,
    Handle,
    LogQuery,
    Observation,
    Standing,
    Used,
)
from jobletd.model import AttemptId, LimitStatus, LogEntry, Usage
from jobletd.policy import Policy


class RemoteExecutor(Executor, Protocol):
    """An executor that can tell its attempts from those of others."""

    def knows(self, attempt: AttemptId) -> bool:
        """Whether it was handed this attempt, ever, as long as its log is kept."""

    def take_policy(self, policy: Policy) -> None:
        """Another one, for attempts to come."""


class RoutingExecutor:
    """See ``jobletd.executor.Executor``. What no other one knows is the local one's."""

    def __init__(self, local: Executor, remote: RemoteExecutor, default: Engine) -> None:
        self._local = local
        self._remote = remote
        self._default = default

    def take_policy(self, policy: Policy) -> None:
        """For the executor beside the local one, which has settings of its own."""
        self._remote.take_policy(policy)

    def _for(self, manifest: JobManifest) -> Executor:
        return self._remote if engine_of(manifest, self._default) is Engine.SLURM else self._local

    def _of(self, attempt: AttemptId) -> Executor:
        return self._remote if self._remote.knows(attempt) else self._local

    def _shares(self, attempts: Iterable[AttemptId]) -> list[tuple[Executor, list[AttemptId]]]:
        """Whose attempts these are."""
        remote: list[AttemptId] = []
        local: list[AttemptId] = []
        for attempt in attempts:
            (remote if self._remote.knows(attempt) else local).append(attempt)
        return [(self._local, local), (self._remote, remote)]

    def epoch_of(self, manifest: JobManifest) -> str:
        return self._for(manifest).epoch_of(manifest)

    def changes_limits(self, manifest: JobManifest) -> bool:
        return self._for(manifest).changes_limits(manifest)

    async def nodes(self) -> Sequence[EngineNode]:
        return [*await self._local.nodes(), *await self._remote.nodes()]

    def standing(self) -> Sequence[Standing]:
        return [*self._local.standing(), *self._remote.standing()]

    def subscribe(self, nudge: Callable[[AttemptId], None]) -> None:
        self._local.subscribe(nudge)
        self._remote.subscribe(nudge)

    async def start(self) -> None:
        await self._local.start()
        await self._remote.start()

    async def close(self) -> None:
        await self._remote.close()
        await self._local.close()

    async def submit(self, request: AttemptRequest) -> Handle:
        """One that was handed over once stays where it is, whatever the configuration says now."""
        if self._remote.knows(request.attempt_id):
            return await self._remote.submit(request)
        return await self._for(request.manifest).submit(request)

    async def observe(self, attempts: Iterable[AttemptId]) -> Mapping[AttemptId, Observation]:
        shares = [(executor, share) for executor, share in self._shares(attempts) if share]
        found = await asyncio.gather(*(executor.observe(share) for executor, share in shares))
        return {attempt: look for looks in found for attempt, look in looks.items()}

    async def usage(self, attempts: Mapping[AttemptId, Usage | None]) -> Mapping[AttemptId, Used]:
        shares = [(executor, share) for executor, share in self._shares(attempts) if share]
        found = [await executor.usage({attempt: attempts[attempt] for attempt in share}) for executor, share in shares]
        return {attempt: usage for part in found for attempt, usage in part.items()}

    async def cancel(self, attempt: AttemptId, *, force: bool) -> None:
        await self._of(attempt).cancel(attempt, force=force)

    async def update_limits(self, attempt: AttemptId, manifest: JobManifest) -> tuple[LimitStatus, ...]:
        return await self._of(attempt).update_limits(attempt, manifest)

    async def probe(self, request: AttemptRequest, probe: Probe) -> Sequence[str]:
        return await self._of(request.attempt_id).probe(request, probe)

    async def forget(self, attempt: AttemptId) -> None:
        await self._of(attempt).forget(attempt)

    async def prune(self, live: Iterable[AttemptId]) -> None:
        for executor, share in self._shares(live):
            await executor.prune(share)

    async def remove_logs(self, attempt: AttemptId) -> None:
        await self._of(attempt).remove_logs(attempt)

    async def log_bytes(self, attempt: AttemptId) -> int:
        return await self._of(attempt).log_bytes(attempt)

    def logs(self, attempt: AttemptId, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        return self._of(attempt).logs(attempt, query)


def engine_of(manifest: JobManifest, default: Engine) -> Engine:
    """What runs a job: what it says, else what the configuration says."""
    return manifest.spec.executor or default

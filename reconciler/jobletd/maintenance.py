"""How a host comes to rest and goes back to work: cordoned it launches nothing; drained, nothing runs on it either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from joblet.manifest import Restart
from jobletd.arrays.index_runs import shown_name
from jobletd.errors import WrongState
from jobletd.model import Cordon, JobName, Run, RunId
from jobletd.reconciler import Reconciler
from jobletd.registry import Registry
from jobletd.saves import EventDraft

LOOK_SECONDS = 0.5
EXIT_SECONDS = 0.5  # so that the last word of a drain still reaches who waits for it
NAMED = 10


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """How far a drain is. jobs: the first few of those that still run. stopping_services: only those are left."""

    running: int
    queued: int
    jobs: tuple[JobName, ...] = ()
    stopping_services: bool = False
    done: bool = False


class Maintenance:
    """exit: tells the daemon to end."""

    def __init__(self, registry: Registry, reconciler: Reconciler, exit: Callable[[], None]) -> None:
        self._registry = registry
        self._reconciler = reconciler
        self._exit = exit
        self._changing = asyncio.Lock()

    async def cordon(self, by: str, reason: str) -> None:
        """Launch nothing from now on, over restarts too. Raises StoreError; then nothing is changed."""
        async with self._changing:
            present = self._registry.cordon
            if present is not None and reason in ("", present.reason):
                return
            cordon = Cordon(self._registry.clock.wall_ns(), by, reason)
            self._reconciler.places.close()
            try:
                await self._registry.set_cordon(cordon, _event("Cordoned", by, reason))
            except BaseException:
                if present is None:
                    self._reconciler.places.open()
                raise

    async def uncordon(self, by: str) -> bool:
        """Launch again. Returns whether the host was cordoned. Raises StoreError."""
        async with self._changing:
            if self._registry.cordon is None:
                return False
            await self._registry.set_cordon(None, _event("Uncordoned", by, ""))
            self._reconciler.places.open()
            return True

    async def drain(self, by: str, reason: str, *, stay: bool) -> AsyncIterator[DrainProgress]:
        """Cordon, wait until nothing runs, and end the daemon, unless it is to stay. Services have no end of their own: they are
        stopped last, and go on once the host launches again. Who stops asking ends the wait; the host stays cordoned.

        Raises WrongState if somebody lifts the cordon meanwhile.
        """
        await self.cordon(by, reason)
        last: DrainProgress | None = None
        while not self._reconciler.is_at_rest:
            if self._registry.cordon is None:
                raise WrongState("the host was uncordoned meanwhile", todo="rnx drain begins anew")
            runs = self._running()
            services = [run for run in runs if _is_service(run)]
            only_services = bool(runs) and len(services) == len(runs)
            if only_services and any(run.stop is None for run in services):
                await self._reconciler.stop_runs(_is_service)
            jobs = tuple(JobName(shown_name(run)) for run in runs[:NAMED])
            progress = DrainProgress(self._reconciler.running, len(self._registry.waiting), jobs, only_services)
            if progress != last:
                yield progress
                last = progress
            await asyncio.sleep(LOOK_SECONDS)
        yield DrainProgress(0, len(self._registry.waiting), done=True)
        if not stay:
            asyncio.get_running_loop().call_later(EXIT_SECONDS, self._exit)

    def _running(self) -> list[Run]:
        found = (self._run_of(run_id) for run_id in self._reconciler.places.holders())
        return [run for run in found if run is not None]

    def _run_of(self, run_id: RunId) -> Run | None:
        name = self._registry.by_run.get(run_id)
        view = self._registry.find(name) if name is not None else None
        return next((run for run in view.runs if run.id == run_id), None) if view is not None else None


def _is_service(run: Run) -> bool:
    return run.manifest.spec.restart is Restart.ALWAYS


def _event(what: str, by: str, reason: str) -> EventDraft:
    return EventDraft("", "", "Normal", what, f"by {by}" + (f": {reason}" if reason else ""))

"""Old runs go, by count and age, with their output and events: in the background, never what is open or the job's latest."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass

import structlog

from joblet.clock import Clock
from joblet.manifest import manifest_from_json
from jobletd.executor import Executor
from jobletd.model import AttemptId
from jobletd.store import Store

INTERVAL_SECONDS = 60.0
BATCH = 500
log = structlog.get_logger("retention")


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run that may go, with its attempts, whose logs go first."""

    id: str
    attempts: tuple[AttemptId, ...]


class Retention:
    """``spec.history`` of each run's own manifest says how long it is kept; ``keep`` counts the runs of one job."""

    def __init__(self, store: Store, executor: Executor, clock: Clock) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock

    async def run(self) -> None:
        """Clean up now and then until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def sweep(self) -> int:
        """Remove what is due; returns how many runs went."""
        now_ns = self._clock.wall_ns()
        old = await self._store.read(lambda connection: find_old(connection, now_ns))
        for run in old:
            for attempt_id in run.attempts:
                await self._executor.remove_logs(attempt_id)
        if old:
            await self._store.write(lambda connection: delete(connection, [run.id for run in old]))
            log.info("old runs removed", count=len(old))
        return len(old)


def find_old(connection: sqlite3.Connection, now_ns: int) -> list[OldRun]:
    """The runs that are due: beyond ``keep`` or older than ``for``; a living job's latest run stays."""
    query = """
        SELECT id, job, manifest, ended_ns, place, alive FROM (
            SELECT runs.id, runs.job, runs.manifest, runs.ended_ns, runs.is_final, jobs.uid IS NOT NULL AS alive,
                   row_number() OVER (PARTITION BY runs.job_uid ORDER BY runs.created_ns DESC, runs.rowid DESC) AS place
            FROM runs LEFT JOIN jobs ON jobs.uid = runs.job_uid)
        WHERE is_final = 1 AND (place > 1 OR NOT alive)
    """
    found: list[OldRun] = []
    for run_id, job, manifest, ended_ns, place, _ in connection.execute(query):
        history = manifest_from_json(manifest).spec.history
        if place <= history.keep and now_ns - ended_ns < history.for_seconds * 1e9:
            continue
        numbers = connection.execute("SELECT number FROM attempts WHERE run_id = ?", (run_id,))
        found.append(OldRun(run_id, tuple(AttemptId(f"{job}-{run_id}-{number}") for (number,) in numbers)))
        if len(found) == BATCH:
            break
    return found


def delete(connection: sqlite3.Connection, run_ids: list[str]) -> None:
    for run_id in run_ids:
        connection.execute("DELETE FROM events WHERE run_id = ?", (run_id,))
        connection.execute("DELETE FROM runs WHERE id = ?", (run_id,))

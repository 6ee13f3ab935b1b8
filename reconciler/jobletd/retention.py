"""Old runs go, by count and age, with their output and events: in the background, never what is open or a living job's latest.

A sweep looks only at what can have become old since the one before: jobs that changed or had a run end, and runs whose time
came in between. So it costs what changed, whatever is kept.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass

import structlog

from joblet.clock import Clock
from joblet.errors import JobletError
from joblet.manifest.models import History
from jobletd.executor import Executor
from jobletd.model import AttemptId
from jobletd.store import Store

INTERVAL_SECONDS = 60.0
BATCH = 500
SLACK_NS = 300 * 10**9  # between the end of a run and its being on record
EVENTS_OF_JOB = 1000
EVENTS_KEPT_NS = 30 * 86_400 * 10**9  # those that belong to no run
log = structlog.get_logger("retention")

_LATEST = """
    SELECT latest.rowid FROM runs AS latest JOIN jobs ON jobs.uid = latest.job_uid
    WHERE latest.job_uid = runs.job_uid ORDER BY latest.rowid DESC LIMIT 1
"""
# What came of age since the last sweep. The latest run of a living job stays; a newer one makes the job one that changed.
_EXPIRED = f"""
    SELECT id, job FROM runs
    WHERE expires_ns > :since_ns AND expires_ns <= :now_ns AND rowid IS NOT ({_LATEST})
    LIMIT {BATCH}
"""  # noqa: S608  constants
_OF_CHANGED_JOBS = f"""
    WITH changed AS MATERIALIZED (
        SELECT uid, coalesce(json_extract(manifest, '$.spec.history.keep'), :keep) AS keep FROM jobs
        WHERE updated_ns >= :since_ns - {SLACK_NS}
           OR uid IN (SELECT job_uid FROM runs WHERE is_final = 1 AND ended_ns >= :since_ns - {SLACK_NS})
    )
    SELECT id, job FROM (
        SELECT runs.id, runs.job, runs.expires_ns, changed.keep,
               row_number() OVER (PARTITION BY runs.job_uid ORDER BY runs.rowid DESC) AS place
        FROM changed CROSS JOIN runs ON runs.job_uid = changed.uid WHERE runs.is_final = 1)
    WHERE place > 1 AND (place > keep OR expires_ns <= :now_ns)
    LIMIT {BATCH}
"""  # noqa: S608  constants


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run that may go, with its attempts, whose logs go first."""

    id: str
    attempts: tuple[AttemptId, ...]


class Retention:
    """``spec.history`` says how many ended runs of a job are kept, and how long; of a deleted job it counts from then on."""

    def __init__(self, store: Store, executor: Executor, clock: Clock) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._swept_ns = 0
        self._last_event = 0

    async def run(self) -> None:
        """Clean up now and then until cancelled."""
        while True:
            try:
                await self.sweep()
            except (JobletError, OSError, sqlite3.Error) as error:  # what stays now goes later
                log.warning("old runs not removed", error=str(error))
            await asyncio.sleep(INTERVAL_SECONDS)

    async def sweep(self) -> int:
        """Remove what is due; returns how many runs went. Raises StoreError, OSError; then the next sweep goes on."""
        now_ns = self._clock.wall_ns()
        count = 0
        while old := await self._store.read(lambda connection: find_old(connection, self._swept_ns, now_ns)):
            for run in old:
                for attempt_id in run.attempts:
                    await self._executor.remove_logs(attempt_id)
            ids = [run.id for run in old]
            await self._store.write(lambda connection, ids=ids: delete(connection, ids))  # type: ignore[misc]
            count += len(old)
        self._last_event = await self._store.write(
            lambda connection: trim_events(connection, self._last_event, now_ns - EVENTS_KEPT_NS)
        )
        self._swept_ns = now_ns
        if count:
            log.info("old runs removed", count=count)
        return count


def find_old(connection: sqlite3.Connection, since_ns: int, now_ns: int) -> list[OldRun]:
    """Runs that are due, as far as that can have changed since ``since_ns``; a batch of them, empty: none is left."""
    arguments = {"since_ns": since_ns, "now_ns": now_ns, "keep": History().keep}
    found = dict(connection.execute(_EXPIRED, arguments).fetchall())
    found.update(connection.execute(_OF_CHANGED_JOBS, arguments).fetchall())
    return [OldRun(run_id, _attempts(connection, job, run_id)) for run_id, job in found.items()]


def _attempts(connection: sqlite3.Connection, job: str, run_id: str) -> tuple[AttemptId, ...]:
    numbers = connection.execute("SELECT number FROM attempts WHERE run_id = ?", (run_id,))
    return tuple(AttemptId(f"{job}-{run_id}-{number}") for (number,) in numbers)


def delete(connection: sqlite3.Connection, run_ids: list[str]) -> None:
    """The rows of these runs, their attempts (by the foreign key) and events."""
    for run_id in run_ids:
        connection.execute("DELETE FROM events WHERE run_id = ?", (run_id,))
        connection.execute("DELETE FROM runs WHERE id = ?", (run_id,))


def trim_events(connection: sqlite3.Connection, last_id: int, before_ns: int) -> int:
    """Keep each job's newest events, and of those that belong to no run the ones since ``before_ns``. Returns the newest id."""
    (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    for (job,) in connection.execute("SELECT DISTINCT job FROM events WHERE id > ?", (last_id,)).fetchall():
        too_old = "SELECT id FROM events WHERE job = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
        query = f"DELETE FROM events WHERE job = ? AND id <= ({too_old})"  # noqa: S608  a constant
        connection.execute(query, (job, job, EVENTS_OF_JOB))
    # The oldest have the lowest ids: a look at those is enough, and costs the same however many there are.
    oldest = "SELECT id, run_id, last_ns FROM events ORDER BY id LIMIT ?"
    old = f"SELECT id FROM ({oldest}) WHERE run_id = '' AND last_ns < ?"  # noqa: S608  a constant
    connection.execute(f"DELETE FROM events WHERE id IN ({old})", (4 * BATCH, before_ns))  # noqa: S608  a constant
    return int(newest)

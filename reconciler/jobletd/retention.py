"""Old runs go, by count and age, with their output and events: in the background, never what is open or a living job's latest.
An array is one run, and goes as a whole.
Of output there is a bound in bytes too, beyond which that of the oldest runs goes, whichever they are: see ``kept_output``.

A sweep looks only at what can have become old since the one before: jobs that changed or had a run end, and runs whose time
came in between. So it costs what changed, whatever is kept.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import structlog

from joblet.clock import Clock
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest.models import History
from jobletd.executor import Executor
from jobletd.kept_output import (
    REMOVED,
    beyond_the_hosts_bound,
    beyond_their_jobs_bounds,
    put_sizes,
    unmeasured,
)
from jobletd.model import AttemptId
from jobletd.store import Store

INTERVAL_SECONDS = 60.0
JUMP_NS = 300 * 10**9  # less is no jump: a clock that is slewed, a sweep that took its time
BELIEVED_AFTER_SECONDS = 3600.0
BATCH = 500
INDEXES_AT_ONCE = 5_000
SLACK_NS = 300 * 10**9  # between the end of a run and its being on record
EVENTS_OF_JOB = 1000
EVENTS_KEPT_NS = 30 * 86_400 * 10**9  # those that belong to no run
log = structlog.get_logger("retention")

_INDEXES_OF = "job_uid = ? AND array_index IS NOT NULL"
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
_TOO_OLD = f"""
    SELECT id, job FROM runs
    WHERE is_final = 1 AND array_index IS NULL
    AND ended_ns > :oldest_before_ns AND ended_ns <= :oldest_ns AND rowid IS NOT ({_LATEST})
    LIMIT {BATCH}
"""  # noqa: S608  constants
_TOO_MANY = f"""
    SELECT id, job FROM runs WHERE is_final = 1 AND array_index IS NULL AND rowid IS NOT ({_LATEST})
    ORDER BY ended_ns LIMIT min(:excess, {BATCH})
"""  # noqa: S608  constants
_OF_CHANGED_JOBS = f"""
    WITH changed AS MATERIALIZED (
        SELECT uid, coalesce(json_extract(manifest, '$.spec.history.keep'), :keep) AS keep FROM jobs
        WHERE updated_ns >= :since_ns - {SLACK_NS}
           OR uid IN (SELECT job_uid FROM runs WHERE is_final = 1 AND ended_ns >= :since_ns - {SLACK_NS})
    )
    SELECT id, job FROM (
        SELECT runs.id, runs.job, runs.expires_ns, runs.ended_ns, changed.keep,
               row_number() OVER (PARTITION BY runs.job_uid ORDER BY runs.rowid DESC) AS place
        FROM changed CROSS JOIN runs ON runs.job_uid = changed.uid WHERE runs.is_final = 1)
    WHERE place > 1 AND (place > keep OR expires_ns <= :now_ns OR ended_ns <= :oldest_ns)
    LIMIT {BATCH}
"""  # noqa: S608  constants


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of ended runs on the whole host, whatever their jobs say. None: no bound."""

    runs: int | None = None
    age_ns: int | None = None
    log_bytes: int | None = None
    events: int | None = None


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run that may go, with its attempts, whose logs go first."""

    id: str
    attempts: tuple[AttemptId, ...]


NO_BOUNDS = Bounds()


class Retention:
    """``spec.history`` says how many ended runs of a job are kept, and how long; of a deleted job it counts from then on."""

    def __init__(self, store: Store, executor: Executor, clock: Clock, bounds: Bounds = NO_BOUNDS) -> None:
        self._bounds = bounds
        self._store = store
        self._executor = executor
        self._clock = clock
        self._swept_ns = 0
        self._last_event = 0
        self._looked_at_events = 0  # up to which, for old ones of no run
        self._ages = Ages(clock)

    def reconfigure(self, bounds: Bounds) -> None:
        """Other bounds from the next sweep on, which looks at everything."""
        self._bounds = bounds
        self._swept_ns = 0

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
        now_ns = self._ages.now_ns()
        if now_ns < self._swept_ns:  # the clock was set back: what was looked at already comes again
            self._swept_ns = 0
        count = 0
        while old := await self._store.read(
            lambda connection: find_old(connection, self._swept_ns, now_ns, self._bounds)
        ):
            for run in old:
                await self._remove_output(run)
            reached("retention.output-removed")
            ids = [run.id for run in old]
            await self._store.write(lambda connection, ids=ids: delete(connection, ids))  # type: ignore[misc]
            reached("retention.runs-removed")
            count += len(old)
        freed = await self._bound_output()
        await self._trim_events(now_ns)
        self._swept_ns = now_ns
        if count or freed:
            log.info("old runs removed", count=count, outputs=freed)
        return count

    async def _remove_output(self, run: OldRun) -> None:
        for attempt_id in run.attempts:
            await self._executor.remove_logs(attempt_id)

    async def _bound_output(self) -> int:
        """Measure what is new, then remove what is too much. Returns of how many runs the output went."""
        while new := await self._store.read(lambda connection: with_attempts(connection, unmeasured(connection))):
            sizes = [(run.id, sum([await self._executor.log_bytes(one) for one in run.attempts])) for run in new]
            await self._store.write(lambda connection, sizes=sizes: put_sizes(connection, sizes))  # type: ignore[misc]
        count = 0
        while much := await self._store.read(self._too_much_output):
            for run in much:
                await self._remove_output(run)
            gone = [(run.id, REMOVED) for run in much]
            await self._store.write(lambda connection, gone=gone: put_sizes(connection, gone))  # type: ignore[misc]
            count += len(much)
        return count

    def _too_much_output(self, connection: sqlite3.Connection) -> list[OldRun]:
        found = dict(beyond_their_jobs_bounds(connection, self._swept_ns - SLACK_NS))
        if self._bounds.log_bytes is not None:
            found.update(beyond_the_hosts_bound(connection, self._bounds.log_bytes))
        return with_attempts(connection, found.items())

    async def _trim_events(self, now_ns: int) -> None:
        """In steps, so that nobody who wants the database waits for long."""
        newest = await self._store.read(newest_event)
        since = self._last_event
        jobs = await self._store.read(lambda connection: jobs_with_events(connection, since))
        for start in range(0, len(jobs), BATCH):
            part = jobs[start : start + BATCH]
            await self._store.write(lambda connection, part=part: trim_jobs(connection, part))  # type: ignore[misc]
        after = self._looked_at_events
        self._looked_at_events = await self._store.write(
            lambda connection: trim_old_events(connection, now_ns - EVENTS_KEPT_NS, after)
        )
        if (most := self._bounds.events) is not None:
            while await self._store.write(lambda connection: trim_to(connection, most)):
                continue
        self._last_event = newest


class Ages:
    """The wall clock, as ages go by: one that jumped ahead by much is believed only an hour later, when somebody had the time to
    set it right. What was removed because of it would not come back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = clock.wall_ns(), clock.boot_seconds()
        self._ahead_ns = 0  # by so much it jumped
        self._believed_at = 0.0  # in seconds since boot

    def now_ns(self) -> int:
        wall_ns, boot = self._clock.wall_ns(), self._clock.boot_seconds()
        jump_ns = wall_ns - self._seen[0] - int((boot - self._seen[1]) * 10**9)
        self._seen = wall_ns, boot
        if abs(jump_ns) > JUMP_NS:
            self._ahead_ns = max(self._ahead_ns + jump_ns, 0)
            self._believed_at = boot + BELIEVED_AFTER_SECONDS
            if self._ahead_ns:
                log.warning("the clock jumped ahead, ages follow it in an hour", seconds=jump_ns // 10**9)
        if boot >= self._believed_at:
            self._ahead_ns = 0
        return wall_ns - self._ahead_ns


def find_old(connection: sqlite3.Connection, since_ns: int, now_ns: int, bounds: Bounds = NO_BOUNDS) -> list[OldRun]:
    """Runs that are due, as far as that can have changed since ``since_ns``; a batch of them, empty: none is left."""
    oldest_ns = now_ns - bounds.age_ns if bounds.age_ns is not None else 0
    arguments = {"since_ns": since_ns, "now_ns": now_ns, "keep": History().keep, "oldest_ns": oldest_ns}
    found = dict(connection.execute(_EXPIRED, arguments).fetchall())
    found.update(connection.execute(_OF_CHANGED_JOBS, arguments).fetchall())
    if bounds.age_ns is not None:
        found.update(
            connection.execute(_TOO_OLD, {**arguments, "oldest_before_ns": since_ns - bounds.age_ns}).fetchall()
        )
    if bounds.runs is not None and not found:  # those that go anyway do not count
        (count,) = connection.execute("SELECT count(*) FROM runs WHERE is_final = 1 AND array_index IS NULL").fetchone()
        if count > bounds.runs:
            found.update(connection.execute(_TOO_MANY, {"excess": count - bounds.runs}).fetchall())
    return with_attempts(connection, _not_too_many_indexes(connection, found.items()))


def _not_too_many_indexes(connection: sqlite3.Connection, runs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The first of these runs, at least one, as long as arrays among them do not make the batch a long one."""
    left = INDEXES_AT_ONCE
    for run_id, job in runs:
        if left <= 0:
            return
        yield run_id, job
        left -= connection.execute(f"SELECT count(*) FROM runs WHERE {_INDEXES_OF}", (run_id,)).fetchone()[0]  # noqa: S608


def with_attempts(connection: sqlite3.Connection, runs: Iterable[tuple[str, str]]) -> list[OldRun]:
    """runs: ids and jobs. The attempts of an array are those of its indexes."""
    indexes = f"SELECT id, job FROM runs WHERE {_INDEXES_OF}"  # noqa: S608  a constant
    found = []
    for run_id, job in runs:
        below = [(run_id, job), *connection.execute(indexes, (run_id,))]
        found.append(OldRun(run_id, tuple(one for each, name in below for one in _attempts(connection, name, each))))
    return found


def _attempts(connection: sqlite3.Connection, job: str, run_id: str) -> tuple[AttemptId, ...]:
    numbers = connection.execute("SELECT number FROM attempts WHERE run_id = ?", (run_id,))
    return tuple(AttemptId(f"{job}-{run_id}-{number}") for (number,) in numbers)


def delete(connection: sqlite3.Connection, run_ids: list[str]) -> None:
    """The rows of these runs, their attempts (by the foreign key) and events; an array goes with all its indexes."""
    for run_id in run_ids:
        indexes = connection.execute(f"SELECT id FROM runs WHERE {_INDEXES_OF}", (run_id,)).fetchall()  # noqa: S608
        connection.executemany("DELETE FROM events WHERE run_id = ?", indexes)
        connection.executemany("DELETE FROM runs WHERE id = ?", indexes)
        connection.execute("DELETE FROM events WHERE run_id = ?", (run_id,))
        connection.execute("DELETE FROM runs WHERE id = ?", (run_id,))


def newest_event(connection: sqlite3.Connection) -> int:
    (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    return int(newest)


def jobs_with_events(connection: sqlite3.Connection, after_id: int) -> list[str]:
    query = "SELECT DISTINCT job FROM events WHERE id > ?"
    return [job for (job,) in connection.execute(query, (after_id,))]


def trim_jobs(connection: sqlite3.Connection, jobs: Iterable[str]) -> None:
    """Keep the newest events of each of these jobs."""
    too_old = "SELECT id FROM events WHERE job = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
    query = f"DELETE FROM events WHERE job = ? AND id <= ({too_old})"  # noqa: S608  a constant
    for job in jobs:
        connection.execute(query, (job, job, EVENTS_OF_JOB))


def trim_old_events(connection: sqlite3.Connection, before_ns: int, after_id: int) -> int:
    """Of those that belong to no run keep the ones since ``before_ns``: one look, which costs the same however many there are, at
    some with ids above ``after_id``. Returns where the next look goes on."""
    count, last = connection.execute(
        "SELECT count(*), coalesce(max(id), 0) FROM (SELECT id FROM events WHERE id > ? ORDER BY id LIMIT ?)",
        (after_id, 4 * BATCH),
    ).fetchone()
    connection.execute(
        "DELETE FROM events WHERE id > ? AND id <= ? AND run_id = '' AND last_ns < ?", (after_id, last, before_ns)
    )
    return last if count == 4 * BATCH else 0


def trim_to(connection: sqlite3.Connection, most: int) -> bool:
    """Keep so many events, and those of open runs. Returns whether there may be more to remove."""
    first, last = connection.execute("SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM events").fetchone()
    if last - first < most:  # there can't be more: looked at first, as counting takes its time
        return False
    (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    query = """
        DELETE FROM events WHERE id IN (
            SELECT id FROM events WHERE run_id NOT IN (SELECT id FROM runs WHERE is_final = 0) ORDER BY id LIMIT ?)
    """
    removed = connection.execute(query, (max(min(count - most, 4 * BATCH), 0),)).rowcount
    return removed == 4 * BATCH

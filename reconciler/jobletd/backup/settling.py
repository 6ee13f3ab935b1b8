"""A database of yesterday and the host of today: what was put back from a backup is brought in line before anything is launched.

1. ``take_up_journal``: what was launched since the backup is put on record again, what was removed is removed again.
2. ``settle``: of each attempt that has not ended as far as that record goes, the executor is asked. What it knows is adopted, or
   its end recorded, as after any restart. Of what it knows nothing, the end was recorded in the database that is lost: its
   outcome is not known, and it is not launched again. A service, which is to run always, goes on with a new attempt. Schedules
   go on from now.

The mark that this is to be done travels in the copy of the database itself (``mark``), and goes when it is done.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace

import structlog

from joblet.manifest import Restart
from jobletd.backup.journal import Entry, Launch, Removal, read_journal
from jobletd.executor import Executor, NeverSubmitted
from jobletd.model import AttemptId, End, JobView, Phase, Reason, Run, Unknown
from jobletd.planning import open_runs, with_runs
from jobletd.registry import Registry
from jobletd.saves import EventDraft, Save
from jobletd.schedules.due import decided_until_now
from jobletd.store import Store, rows

WHY = "how it ended was recorded in a database that is lost, and it is not started again"
log = structlog.get_logger("recovery")


@dataclass(frozen=True, slots=True)
class PutBack:
    """The mark: which backup the database comes from, and when that was made."""

    origin: str
    created_ns: int


def mark(connection: sqlite3.Connection, put_back: PutBack) -> None:
    """In a copy that is about to become the database."""
    connection.execute("CREATE TABLE IF NOT EXISTS put_back (origin TEXT NOT NULL, created_ns INTEGER NOT NULL) STRICT")
    connection.execute("DELETE FROM put_back")
    connection.execute("INSERT INTO put_back VALUES (?, ?)", (put_back.origin, put_back.created_ns))


def marked(connection: sqlite3.Connection) -> PutBack | None:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'put_back'").fetchone()
    row = connection.execute("SELECT origin, created_ns FROM put_back").fetchone() if found else None
    return None if row is None else PutBack(*row)


async def unmark(store: Store) -> None:
    await store.write(lambda connection: connection.execute("DROP TABLE put_back"))


async def take_up_launches(store: Store, journal_directory: str, now_ns: int) -> PutBack | None:
    """If the database comes from a backup: what was launched since goes on record again."""
    put_back = await store.read(marked)
    if put_back is not None:
        entries = list(read_journal(journal_directory, put_back.created_ns))
        count = await store.write(lambda connection: take_up_journal(connection, entries, now_ns))
        log.warning("launches since the backup are on record again", count=count)
    return put_back


def take_up_journal(connection: sqlite3.Connection, entries: Iterable[Entry], now_ns: int) -> int:
    """Put on record what is missing. Idempotent. Returns how many launches were."""
    count = 0
    for entry in entries:
        match entry:
            case Removal():
                _remove(connection, entry, now_ns)
            case Launch(_, job, run, array):
                count += _add(connection, job, run, now_ns, array)
    return count


def _add(connection: sqlite3.Connection, job: JobView, run: Run, now_ns: int, array: Run | None) -> bool:
    (attempt,) = run.attempts
    if connection.execute("SELECT 1 FROM attempts WHERE id = ?", (attempt.id,)).fetchone():
        return False
    query = f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE id = ?"  # noqa: S608  a constant
    known = rows.load_runs(connection, query, (run.id,))
    if known and known[0].phase.is_final:  # its early attempts are not kept for ever
        return False
    if array is not None and (known_array := rows.load_runs(connection, query, (array.id,))):
        if known_array[0].phase.is_final:
            return False
        array = None
    _add_job(connection, job, now_ns)
    if array is not None:
        rows.put_run(connection, array)
    if known:
        run = replace(
            known[0],
            generation=run.generation,
            manifest=run.manifest,
            phase=run.phase,
            reason=None,
            next_attempt_ns=None,
        )
    rows.put_run(connection, run)
    rows.put_attempt(connection, attempt)
    return True


def _add_job(connection: sqlite3.Connection, job: JobView, now_ns: int) -> None:
    """The job as it was then, unless the record has it as it was later."""
    row = connection.execute("SELECT uid, generation FROM jobs WHERE name = ?", (job.name,)).fetchone()
    if row is not None and row[0] != job.uid:
        _end_runs(connection, row[0], now_ns)
    elif row is not None and row[1] >= job.generation:
        return
    rows.put_job(connection, job)
    rows.put_generation(connection, job)


def _remove(connection: sqlite3.Connection, removal: Removal, now_ns: int) -> None:
    connection.execute("DELETE FROM jobs WHERE uid = ?", (removal.uid,))
    connection.execute("DELETE FROM generations WHERE job_uid = ?", (removal.uid,))
    _end_runs(connection, removal.uid, now_ns)


def _end_runs(connection: sqlite3.Connection, job_uid: str, now_ns: int) -> None:
    """Those of a job that is gone."""
    query = f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE job_uid = ? AND is_final = 0"  # noqa: S608  a constant
    for run in rows.load_runs(connection, query, (job_uid,)):
        _end_runs(connection, run.id, now_ns)  # of an array: its indexes
        rows.put_run(
            connection,
            replace(
                run, phase=Phase.STOPPED, reason=Reason.DELETED, message=WHY, ended_ns=now_ns, next_attempt_ns=None
            ),
        )


async def settle(registry: Registry, executor: Executor) -> int:
    """Decide about attempts of which there is no trace. Returns how many there were."""
    count = 0
    for view in list(registry.everything()):
        runs = open_runs(view)
        asked = [attempt.id for run in runs for attempt in run.attempts if attempt.end is None]
        looks = await executor.observe(asked)
        gone = {attempt_id for attempt_id in asked if isinstance(looks[attempt_id], NeverSubmitted)}
        # Only a run's latest attempt can live: an earlier one had ended before it was begun.
        gone |= {attempt.id for run in runs for attempt in run.attempts[:-1] if attempt.end is None}
        settled = [_settled(view, run, gone, registry.clock.wall_ns()) for run in runs]
        changed = [run for run, before in zip(settled, runs, strict=True) if run is not before]
        if not changed:
            continue
        count += len(gone)
        attempts = [attempt for run in changed for attempt in run.attempts if attempt.id in gone]
        events = [EventDraft(run.job, run.id, "Warning", "Lost", WHY) for run in changed]
        async with registry.lock(view.name):
            await registry.save(
                Save(with_runs(view, tuple(changed)), runs=changed, attempts=attempts, events=events, job=True)
            )
    await _settle_ticks(registry)
    return count


async def _settle_ticks(registry: Registry) -> None:
    """Ticks since the backup may have had their runs: none is made up for."""
    for view in list(registry.views.values()):
        settled = decided_until_now(view, registry.clock.wall_ns())
        if settled is not view:
            async with registry.lock(view.name):
                await registry.save(Save(settled, job=True))


def _settled(view: JobView, run: Run, gone: set[AttemptId], now_ns: int) -> Run:
    """The run with its lost attempts ended; the same run if it has none."""
    if not any(attempt.id in gone for attempt in run.attempts):
        return run
    end = End(Unknown(WHY), Reason.LOST, now_ns, message=WHY)
    latest_gone = run.attempts[-1].id in gone
    attempts = tuple(
        replace(attempt, phase=Phase.FAILED, end=end) if attempt.id in gone else attempt for attempt in run.attempts
    )
    run = replace(run, attempts=attempts)
    if not latest_gone:
        return run
    run = replace(run, outcome=end.outcome, message=WHY)
    spec = view.manifest.spec
    goes_on = (
        spec.restart is not Restart.NEVER
        and not (spec.suspend or view.deleting or run.stop)
        and run.id == view.runs[0].id
        and run.generation == view.generation
    )
    if goes_on:
        return replace(run, phase=Phase.SCHEDULED, reason=Reason.BACK_OFF, next_attempt_ns=now_ns)
    phase = Phase.FAILED if run.stop is None else Phase.STOPPED
    return replace(run, phase=phase, reason=run.stop or Reason.LOST, ended_ns=now_ns, next_attempt_ns=None)

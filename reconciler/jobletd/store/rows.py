"""Rows and the daemon's types: the only place that knows both."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from joblet.clock import BootTime
from joblet.manifest import JobManifest, index_manifest, manifest_from_json, manifest_to_json
from jobletd.model import (
    Attempt,
    AttemptId,
    Condition,
    End,
    Event,
    Exited,
    JobName,
    JobView,
    Killed,
    LimitStatus,
    NotStarted,
    Outcome,
    Phase,
    Place,
    Reason,
    Run,
    RunId,
    Source,
    Unknown,
    Usage,
)
from jobletd.store import trace_rows
from jobletd.store.errors import StoreError

_OUTCOMES: dict[str, type[Any]] = {"exited": Exited, "killed": Killed, "not_started": NotStarted, "unknown": Unknown}
_OUTCOME_NAMES = {kind: name for name, kind in _OUTCOMES.items()}
JOB_COLUMNS = (
    "name, uid, manifest, source, generation, observed_generation, created_ns, updated_ns, deleting, conditions, "
    "ticked_seconds"
)
RUN_COLUMNS = (
    'id, job, job_uid, generation, "trigger", phase, is_final, reason, message, manifest, created_ns, started_ns, ended_ns, '
    "outcome, next_attempt_ns, stop, force, next_attempt_boot, tick_seconds, array_marks, array_index"
)
_INDEX = 20  # the place of array_index among them
GENERATIONS_KEPT = 100
ATTEMPT_COLUMNS = 'id, run_id, number, phase, created_ns, epoch, generation, started_ns, limits, "end", created_boot'
EVENT_COLUMNS = "id, job, run_id, type, reason, message, count, first_ns, last_ns"


def outcome_to_json(outcome: Outcome | None) -> str | None:
    return None if outcome is None else json.dumps({"type": _OUTCOME_NAMES[type(outcome)], **asdict(outcome)})


def outcome_from_json(text: str | None) -> Outcome | None:
    if text is None:
        return None
    data = json.loads(text)
    outcome: Outcome = _OUTCOMES[data.pop("type")](**data)
    return outcome


def end_to_json(end: End | None) -> str | None:
    if end is None:
        return None
    usage = {key: value for key, value in asdict(end.usage).items() if value is not None}
    return json.dumps(
        {
            "outcome": outcome_to_json(end.outcome),
            "reason": end.reason,
            "ended_ns": end.ended_ns,
            "started_ns": end.started_ns,
            "message": end.message,
            "usage": usage,
            **({"outputs": dict(end.outputs)} if end.outputs else {}),
            **({"place": asdict(end.place)} if end.place is not None else {}),
        }
    )


def end_from_json(text: str | None) -> End | None:
    if text is None:
        return None
    data = json.loads(text)
    outcome = outcome_from_json(data["outcome"])
    assert outcome is not None
    return End(
        outcome,
        Reason(data["reason"]),
        data["ended_ns"],
        data["started_ns"],
        data["message"],
        Usage(**data["usage"]),
        data.get("outputs", {}),
        Place(**data["place"]) if "place" in data else None,
    )


def put_job(connection: sqlite3.Connection, view: JobView) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO jobs ({JOB_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            view.name,
            view.uid,
            manifest_to_json(view.manifest),
            str(view.source),
            view.generation,
            view.observed_generation,
            view.created_ns,
            view.updated_ns,
            view.deleting,
            json.dumps([asdict(condition) for condition in view.conditions]),
            view.ticked_seconds,
        ),
    )


def put_generation(connection: sqlite3.Connection, view: JobView) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO generations (job_uid, generation, manifest, created_ns) VALUES (?, ?, ?, ?)",
        (view.uid, view.generation, manifest_to_json(view.manifest), view.updated_ns),
    )
    connection.execute(
        "DELETE FROM generations WHERE job_uid = ? AND generation <= ?", (view.uid, view.generation - GENERATIONS_KEPT)
    )


def history_ns(manifest: JobManifest) -> int:
    return int(manifest.spec.history.for_seconds * 10**9)


def put_history(connection: sqlite3.Connection, view: JobView) -> None:
    """Let the job's ended runs be kept as long as it says now."""
    query = "UPDATE runs SET expires_ns = ended_ns + ? WHERE job_uid = ? AND is_final = 1"
    connection.execute(query, (history_ns(view.manifest), view.uid))


def delete_job(connection: sqlite3.Connection, view: JobView, now_ns: int) -> None:
    """The job goes; its runs stay for ``history.for`` from now on."""
    query = "UPDATE runs SET expires_ns = ? WHERE job_uid = ? AND is_final = 1"
    connection.execute(query, (now_ns + history_ns(view.manifest), view.uid))
    connection.execute("DELETE FROM jobs WHERE uid = ?", (view.uid,))
    connection.execute("DELETE FROM generations WHERE job_uid = ?", (view.uid,))


def put_run(connection: sqlite3.Connection, run: Run) -> None:
    """Insert or update a run, without its attempts. Raises StoreError if another run has its id: nothing is overwritten."""
    cursor = connection.execute(
        f"INSERT INTO runs ({RUN_COLUMNS}, expires_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, phase = excluded.phase, "
        "is_final = excluded.is_final, reason = excluded.reason, message = excluded.message, manifest = excluded.manifest, "
        "started_ns = excluded.started_ns, ended_ns = excluded.ended_ns, outcome = excluded.outcome, "
        "next_attempt_ns = excluded.next_attempt_ns, stop = excluded.stop, force = excluded.force, "
        "next_attempt_boot = excluded.next_attempt_boot, array_marks = excluded.array_marks, expires_ns = excluded.expires_ns "
        "WHERE runs.job_uid = excluded.job_uid AND runs.created_ns = excluded.created_ns",
        (
            run.id,
            run.job,
            run.job_uid,
            run.generation,
            run.trigger,
            run.phase,
            run.phase.is_final,
            run.reason,
            run.message,
            manifest_to_json(run.manifest) if run.index is None else "",
            run.created_ns,
            run.started_ns,
            run.ended_ns,
            outcome_to_json(run.outcome),
            run.next_attempt_ns,
            run.stop,
            run.force,
            None if run.next_attempt_boot is None else str(run.next_attempt_boot),
            run.tick_seconds,
            run.marks,
            run.index,
            None if run.ended_ns is None or run.index is not None else run.ended_ns + history_ns(run.manifest),
        ),
    )
    if cursor.rowcount != 1:
        raise StoreError(f"another run has the id {run.id!r} already", where=run.job, todo="try again")
    if run.trace is not None:
        trace_rows.put_run_place(connection, run.id, run.trace)


def put_attempt(connection: sqlite3.Connection, attempt: Attempt) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO attempts ({ATTEMPT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            attempt.id,
            attempt.run_id,
            attempt.number,
            attempt.phase,
            attempt.created_ns,
            attempt.epoch,
            attempt.generation,
            attempt.started_ns,
            json.dumps([asdict(limit) for limit in attempt.limits]),
            end_to_json(attempt.end),
            None if attempt.created_boot is None else str(attempt.created_boot),
        ),
    )


def put_event(
    connection: sqlite3.Connection, *, job: str, run_id: str, type: str, reason: str, message: str, now_ns: int
) -> Event:
    """Record an event; one like the last of its job and run only counts."""
    last = connection.execute(
        f"SELECT {EVENT_COLUMNS} FROM events WHERE job = ? ORDER BY id DESC LIMIT 1", (job,)
    ).fetchone()
    if last is not None and (last[2], last[3], last[4], last[5]) == (run_id, type, reason, message):
        connection.execute("UPDATE events SET count = count + 1, last_ns = ? WHERE id = ?", (now_ns, last[0]))
        return Event(last[0], job, run_id, type, reason, message, last[6] + 1, last[7], now_ns)
    cursor = connection.execute(
        "INSERT INTO events (job, run_id, type, reason, message, count, first_ns, last_ns) VALUES (?, ?, ?, ?, ?, 1, ?, ?)",
        (job, run_id, type, reason, message, now_ns, now_ns),
    )
    return Event(int(cursor.lastrowid or 0), job, run_id, type, reason, message, 1, now_ns, now_ns)


def load_jobs(connection: sqlite3.Connection) -> list[JobView]:
    """All jobs with their open runs and their latest one: the one that was put in last, whatever the wall clock said then."""
    runs: dict[str, list[Run]] = {}
    known: dict[str, JobManifest] = {}  # a job and its runs mostly have one manifest
    wanted = (
        f"SELECT {RUN_COLUMNS} FROM runs WHERE (is_final = 0 AND array_index IS NULL) OR rowid IN "
        "(SELECT (SELECT rowid FROM runs WHERE job = jobs.name AND job_uid = jobs.uid "
        "ORDER BY rowid DESC LIMIT 1) FROM jobs) ORDER BY rowid DESC"
    )
    for run in load_runs(connection, wanted, known=known):
        runs.setdefault(run.job_uid, []).append(run)
    query = f"SELECT {JOB_COLUMNS} FROM jobs"
    return [_job_of(row, tuple(runs.get(row[1], ())), known) for row in connection.execute(query)]


def _job_of(row: Any, runs: tuple[Run, ...], known: dict[str, JobManifest]) -> JobView:
    return JobView(
        uid=row[1],
        manifest=_manifest_of(row[2], known),
        source=Source.parse(row[3]),
        generation=row[4],
        observed_generation=row[5],
        created_ns=row[6],
        updated_ns=row[7],
        deleting=bool(row[8]),
        conditions=tuple(Condition(**condition) for condition in json.loads(row[9])),
        ticked_seconds=row[10],
        runs=runs,
    )


def load_runs(
    connection: sqlite3.Connection,
    query: str,
    arguments: Iterable[object] = (),
    *,
    known: dict[str, JobManifest] | None = None,
) -> list[Run]:
    """The runs that a query for RUN_COLUMNS gives, with their attempts. known: manifests by their text."""
    rows = connection.execute(query, tuple(arguments)).fetchall()
    manifests = {} if known is None else known
    arrays: dict[str, JobManifest] = {}  # by the run's id
    runs = []
    for row in rows:
        if row[_INDEX] is None:
            manifest = _manifest_of(row[9], manifests)
        else:
            if row[2] not in arrays:
                (text,) = connection.execute("SELECT manifest FROM runs WHERE id = ?", (row[2],)).fetchone()
                arrays[row[2]] = _manifest_of(text, manifests)
            manifest = index_manifest(arrays[row[2]], row[1], row[_INDEX])
        runs.append(_run_of(row, load_attempts(connection, row[0]), manifest))
    if not trace_rows.are_there(connection):
        return runs
    return [replace(run, trace=trace_rows.run_place(connection, run.id)) for run in runs]


def load_indexes(connection: sqlite3.Connection, array: Run) -> list[tuple[int, Phase, Reason | None, Run | None]]:
    """The indexes of an array that have begun; with their runs as far as they are open."""
    wanted = f"SELECT {RUN_COLUMNS} FROM runs WHERE job_uid = ? AND array_index IS NOT NULL AND is_final = 0"
    runs = {run.index: run for run in load_runs(connection, wanted, (array.id,))}
    query = "SELECT array_index, phase, reason FROM runs WHERE job_uid = ? AND array_index IS NOT NULL"
    return [
        (index, Phase(phase), None if reason is None else Reason(reason), runs.get(index))
        for index, phase, reason in connection.execute(query, (array.id,))
    ]


def hand_over_indexes(connection: sqlite3.Connection, old: str, new: str, but: Iterable[int]) -> None:
    """The runs of an array's indexes belong to a later run of it from now on, but for those which that one runs anew."""
    query = (
        "UPDATE runs SET job_uid = ? WHERE job_uid = ? AND array_index IS NOT NULL "
        "AND array_index NOT IN (SELECT value FROM json_each(?))"
    )
    connection.execute(query, (new, old, json.dumps(list(but))))


def _manifest_of(text: str, known: dict[str, JobManifest]) -> JobManifest:
    manifest = known.get(text)
    if manifest is None:
        manifest = known[text] = manifest_from_json(text)
    return manifest


def load_attempts(connection: sqlite3.Connection, run_id: str) -> tuple[Attempt, ...]:
    query = f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE run_id = ? ORDER BY number"
    return tuple(
        Attempt(
            id=AttemptId(row[0]),
            run_id=RunId(row[1]),
            number=row[2],
            phase=Phase(row[3]),
            created_ns=row[4],
            epoch=row[5],
            generation=row[6],
            started_ns=row[7],
            limits=tuple(LimitStatus(**limit) for limit in json.loads(row[8])),
            end=end_from_json(row[9]),
            created_boot=None if row[10] is None else BootTime.parse(row[10]),
        )
        for row in connection.execute(query, (run_id,))
    )


def _run_of(row: Any, attempts: tuple[Attempt, ...], manifest: JobManifest) -> Run:
    return Run(
        id=RunId(row[0]),
        job=JobName(row[1]),
        job_uid=row[2],
        generation=row[3],
        trigger=row[4],
        phase=Phase(row[5]),
        reason=None if row[7] is None else Reason(row[7]),
        message=row[8],
        manifest=manifest,
        created_ns=row[10],
        started_ns=row[11],
        ended_ns=row[12],
        outcome=outcome_from_json(row[13]),
        next_attempt_ns=row[14],
        stop=None if row[15] is None else Reason(row[15]),
        force=bool(row[16]),
        next_attempt_boot=None if row[17] is None else BootTime.parse(row[17]),
        tick_seconds=row[18],
        marks=row[19],
        index=row[_INDEX],
        attempts=attempts,
    )


def event_of(row: Any) -> Event:
    return Event(*row)

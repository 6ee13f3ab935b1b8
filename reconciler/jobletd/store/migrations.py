"""The database's schema as numbered steps; PRAGMA user_version says how many were taken. A step is never changed afterwards."""

from __future__ import annotations

import sqlite3

from joblet.crash_points import reached
from jobletd.store.errors import StoreError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
        name TEXT PRIMARY KEY,
        uid TEXT NOT NULL UNIQUE,
        manifest TEXT NOT NULL,
        source TEXT NOT NULL,
        generation INTEGER NOT NULL,
        observed_generation INTEGER NOT NULL,
        created_ns INTEGER NOT NULL,
        updated_ns INTEGER NOT NULL,
        deleting INTEGER NOT NULL DEFAULT 0,
        conditions TEXT NOT NULL DEFAULT '[]'
    ) STRICT;
    CREATE TABLE generations (
        job_uid TEXT NOT NULL,
        generation INTEGER NOT NULL,
        manifest TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        PRIMARY KEY (job_uid, generation)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        job TEXT NOT NULL,
        job_uid TEXT NOT NULL,
        generation INTEGER NOT NULL,
        "trigger" TEXT NOT NULL,
        phase TEXT NOT NULL,
        is_final INTEGER NOT NULL,
        reason TEXT,
        message TEXT NOT NULL,
        manifest TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        started_ns INTEGER,
        ended_ns INTEGER,
        outcome TEXT,
        next_attempt_ns INTEGER,
        stop TEXT,
        force INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX runs_of_job ON runs (job, created_ns);
    CREATE INDEX runs_open ON runs (is_final) WHERE is_final = 0;
    CREATE INDEX runs_ended ON runs (ended_ns) WHERE is_final = 1;
    CREATE TABLE attempts (
        id TEXT PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        phase TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        epoch TEXT NOT NULL,
        generation INTEGER NOT NULL,
        started_ns INTEGER,
        limits TEXT NOT NULL,
        "end" TEXT,
        UNIQUE (run_id, number)
    ) STRICT;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        job TEXT NOT NULL,
        run_id TEXT NOT NULL,
        type TEXT NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        count INTEGER NOT NULL,
        first_ns INTEGER NOT NULL,
        last_ns INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX events_of_job ON events (job, id);
    CREATE INDEX events_of_run ON events (run_id) WHERE run_id != '';
    """,
    # Until when an ended run is kept, so that cleaning up costs what is due. Rows from before get the default.
    """
    ALTER TABLE runs ADD COLUMN expires_ns INTEGER;
    UPDATE runs SET expires_ns = ended_ns + 2592000000000000 WHERE is_final = 1;
    CREATE INDEX runs_expiring ON runs (expires_ns) WHERE expires_ns IS NOT NULL;
    CREATE INDEX runs_of_uid ON runs (job_uid, created_ns);
    CREATE INDEX jobs_updated ON jobs (updated_ns);
    """,
    # Everything that is declared and no job. secret: what its manifest may not show, sealed.
    """
    CREATE TABLE resources (
        key TEXT PRIMARY KEY,
        uid TEXT NOT NULL UNIQUE,
        manifest TEXT NOT NULL,
        source TEXT NOT NULL,
        generation INTEGER NOT NULL,
        created_ns INTEGER NOT NULL,
        updated_ns INTEGER NOT NULL,
        deleting INTEGER NOT NULL DEFAULT 0,
        conditions TEXT NOT NULL DEFAULT '[]',
        secret BLOB
    ) STRICT;
    """,
    # Timers on the clock that nobody sets, beside the wall clock's. A job's latest run is the one that was put in last.
    """
    ALTER TABLE attempts ADD COLUMN created_boot TEXT;
    ALTER TABLE runs ADD COLUMN next_attempt_boot TEXT;
    DROP INDEX runs_of_uid;
    CREATE INDEX runs_of_uid ON runs (job_uid);
    """,
    # What is kept about the host itself; and how much output each ended run has left (-1: it was removed).
    """
    CREATE TABLE host (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    ALTER TABLE runs ADD COLUMN log_bytes INTEGER;
    CREATE INDEX runs_unmeasured ON runs (ended_ns) WHERE is_final = 1 AND log_bytes IS NULL;
    CREATE INDEX runs_with_output ON runs (ended_ns, log_bytes) WHERE log_bytes > 0;
    """,
    # What attempts used over time. Of a run, as rows of attempts are replaced.
    """
    CREATE TABLE profiles (
        attempt_id TEXT PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        packed BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX profiles_of_run ON profiles (run_id);
    """,
    # Schedules: up to where it was decided about a job's ticks, and the tick that a run is for.
    """
    ALTER TABLE jobs ADD COLUMN ticked_seconds INTEGER;
    ALTER TABLE runs ADD COLUMN tick_seconds INTEGER;
    """,
    # What is still to be told of runs that have ended. hook_job: the manifest of what runs for a command hook.
    """
    CREATE TABLE notifications (
        id TEXT PRIMARY KEY,
        job TEXT NOT NULL,
        run_id TEXT NOT NULL,
        hook TEXT NOT NULL,
        body TEXT NOT NULL,
        hook_job TEXT,
        tries INTEGER NOT NULL
    ) STRICT;
    """,
    # The run that each workflow is at. tries: how often each step was tried anew in it.
    """
    CREATE TABLE workflow_runs (
        workflow TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        tries TEXT NOT NULL,
        phase TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        ended_ns INTEGER
    ) STRICT;
    """,
    # Places in traces, where they are recorded: of runs by their ids, and of what else has a course of its own.
    """
    CREATE TABLE traces (
        key TEXT PRIMARY KEY,
        run_id TEXT REFERENCES runs (id) ON DELETE CASCADE,
        place TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX traces_of_run ON traces (run_id) WHERE run_id IS NOT NULL;
    """,
    # Arrays: a letter for each index, with the array's run; the index, with a run of one, whose job_uid is the array's run. No
    # index has two runs in one array.
    """
    ALTER TABLE runs ADD COLUMN array_marks TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN array_index INTEGER;
    CREATE UNIQUE INDEX runs_of_array ON runs (job_uid, array_index) WHERE array_index IS NOT NULL;
    """,
    # Workflows with a schedule: what each run is for and runs; up to where ticks were decided about, and the runs to come.
    """
    ALTER TABLE workflow_runs ADD COLUMN trigger_by TEXT NOT NULL DEFAULT 'generation';
    ALTER TABLE workflow_runs ADD COLUMN tick_seconds INTEGER;
    ALTER TABLE workflow_runs ADD COLUMN manifest TEXT;
    CREATE TABLE workflow_turns (
        workflow TEXT PRIMARY KEY,
        clockwork TEXT NOT NULL,
        ticked_seconds INTEGER,
        waiting TEXT NOT NULL
    ) STRICT;
    """,
)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Take the steps that are missing, each in a transaction. Raises StoreError for a database of a newer version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"has schema version {version}, this joblet knows up to {len(MIGRATIONS)}",
            where=path,
            todo="install the version of joblet that wrote it, or a newer one",
        )
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
        reached("daemon.migration-step-taken")

"""How much output of ended runs is kept: of one job as its ``spec.history.logs`` says, and of the whole host.

Beyond that the output of the oldest goes; the run stays on record, so that its job is as much in line with its manifest as
before. Each run's output is measured once, after its end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from joblet.manifest.quantities import parse_size

REMOVED = -1  # instead of a size
BATCH = 500


def unmeasured(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Some ended runs whose output was not measured yet: id and job."""
    query = "SELECT id, job FROM runs WHERE is_final = 1 AND log_bytes IS NULL LIMIT ?"
    return connection.execute(query, (BATCH,)).fetchall()


def put_sizes(connection: sqlite3.Connection, sizes: Iterable[tuple[str, int]]) -> None:
    """Of what is removed of an array, all indexes are."""
    known = list(sizes)
    connection.executemany("UPDATE runs SET log_bytes = ? WHERE id = ?", [(size, run_id) for run_id, size in known])
    removed = [(REMOVED, run_id) for run_id, size in known if size == REMOVED]
    indexes = "UPDATE runs SET log_bytes = ? WHERE job_uid = ? AND array_index IS NOT NULL"
    connection.executemany(indexes, removed)


def is_removed(connection: sqlite3.Connection, run_id: str) -> bool:
    row = connection.execute("SELECT log_bytes FROM runs WHERE id = ?", (run_id,)).fetchone()
    return row is not None and row[0] == REMOVED


def beyond_the_hosts_bound(connection: sqlite3.Connection, most_bytes: int) -> list[tuple[str, str]]:
    """Runs whose output is too much for the host, the oldest ones; a batch of them, empty: it is in bounds."""
    (total,) = connection.execute("SELECT coalesce(sum(log_bytes), 0) FROM runs WHERE log_bytes > 0").fetchone()
    found: list[tuple[str, str]] = []
    if total <= most_bytes:
        return found
    query = "SELECT id, job, log_bytes FROM runs WHERE log_bytes > 0 ORDER BY ended_ns LIMIT ?"
    for run_id, job, size in connection.execute(query, (BATCH,)):
        if total <= most_bytes:
            break
        found.append((run_id, job))
        total -= size
    return found


def beyond_their_jobs_bounds(connection: sqlite3.Connection, since_ns: int) -> list[tuple[str, str]]:
    """The same for each job that has a bound of its own and changed, or had a run end, since then. Its latest run keeps its."""
    jobs = """
        SELECT uid, json_extract(manifest, '$.spec.history.logs') AS most FROM jobs WHERE most IS NOT NULL
        AND (updated_ns >= ? OR uid IN (SELECT job_uid FROM runs WHERE is_final = 1 AND ended_ns >= ?))
    """
    runs = """
        WITH whole AS (  -- the output of an array is that of its indexes
            SELECT rowid AS number, id, job, max(log_bytes, 0) + coalesce((
                SELECT sum(max(log_bytes, 0)) FROM runs AS indexes
                WHERE indexes.job_uid = runs.id AND indexes.array_index IS NOT NULL), 0) AS bytes
            FROM runs WHERE job_uid = ? AND is_final = 1 AND log_bytes IS NOT NULL)
        SELECT id, job FROM (
            SELECT id, job, bytes, sum(bytes) OVER newest AS total, row_number() OVER newest AS place
            FROM whole WINDOW newest AS (ORDER BY number DESC))
        WHERE total > ? AND place > 1 AND bytes > 0
    """
    found: list[tuple[str, str]] = []
    for uid, most in connection.execute(jobs, (since_ns, since_ns)).fetchall():
        found += connection.execute(runs, (uid, parse_size(most))).fetchall()
    return found

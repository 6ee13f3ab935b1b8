"""What attempts used over time, as packed by ``jobletd.monitoring.profile``."""

from __future__ import annotations

import sqlite3

from jobletd.model import AttemptId, RunId


def put_profile(connection: sqlite3.Connection, attempt_id: AttemptId, run_id: RunId, packed: bytes) -> None:
    """Nothing is kept for a run that was cleaned away meanwhile."""
    connection.execute(
        "INSERT INTO profiles (attempt_id, run_id, packed) SELECT ?, id, ? FROM runs WHERE id = ? "
        "ON CONFLICT (attempt_id) DO UPDATE SET packed = excluded.packed",
        (attempt_id, packed, run_id),
    )


def load_profile(connection: sqlite3.Connection, attempt_id: AttemptId) -> bytes | None:
    row = connection.execute("SELECT packed FROM profiles WHERE attempt_id = ?", (attempt_id,)).fetchone()
    return None if row is None else bytes(row[0])


def delete_profile(connection: sqlite3.Connection, attempt_id: AttemptId) -> None:
    connection.execute("DELETE FROM profiles WHERE attempt_id = ?", (attempt_id,))

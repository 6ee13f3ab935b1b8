"""Rows of the places in traces: of runs, which go with them, and of what else has a course of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from joblet.trace_context import SpanPlace


def put_run_place(connection: sqlite3.Connection, run_id: str, place: SpanPlace) -> None:
    """It never changes."""
    query = "INSERT OR IGNORE INTO traces (key, run_id, place) VALUES (?, ?, ?)"
    connection.execute(query, (run_id, run_id, str(place)))


def put_place(connection: sqlite3.Connection, key: str, place: SpanPlace) -> None:
    connection.execute("INSERT OR REPLACE INTO traces (key, run_id, place) VALUES (?, NULL, ?)", (key, str(place)))


def delete_place(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("DELETE FROM traces WHERE key = ?", (key,))


def are_there(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM traces LIMIT 1").fetchone() is not None


def run_place(connection: sqlite3.Connection, run_id: str) -> SpanPlace | None:
    row = connection.execute("SELECT place FROM traces WHERE key = ?", (run_id,)).fetchone()
    return None if row is None else SpanPlace.parse(row[0])


def load_places(connection: sqlite3.Connection) -> Mapping[str, SpanPlace]:
    """All but those of runs."""
    found = connection.execute("SELECT key, place FROM traces WHERE run_id IS NULL")
    return {key: SpanPlace.parse(text) for key, text in found}

"""What is kept about the host itself."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict

from jobletd.model import Cordon

_CORDON = "cordon"


def load_cordon(connection: sqlite3.Connection) -> Cordon | None:
    row = connection.execute("SELECT value FROM host WHERE key = ?", (_CORDON,)).fetchone()
    return None if row is None else Cordon(**json.loads(row[0]))


def put_cordon(connection: sqlite3.Connection, cordon: Cordon | None) -> None:
    if cordon is None:
        connection.execute("DELETE FROM host WHERE key = ?", (_CORDON,))
    else:
        query = "INSERT OR REPLACE INTO host (key, value) VALUES (?, ?)"
        connection.execute(query, (_CORDON, json.dumps(asdict(cordon))))

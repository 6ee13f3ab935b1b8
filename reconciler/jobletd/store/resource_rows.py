"""Rows of resources: the only place that knows them and the daemon's types."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict

from joblet.manifest import manifest_to_json, resource_from_json
from jobletd.model import Condition, JobName, ResourceView, Source

COLUMNS = "key, uid, manifest, source, generation, created_ns, updated_ns, deleting, conditions, secret"
_PUT = f"""
    INSERT INTO resources ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET uid = excluded.uid, manifest = excluded.manifest, source = excluded.source,
        generation = excluded.generation, created_ns = excluded.created_ns, updated_ns = excluded.updated_ns,
        deleting = excluded.deleting, conditions = excluded.conditions, secret = excluded.secret
"""  # noqa: S608  the columns are constants


def put_resource(connection: sqlite3.Connection, view: ResourceView) -> None:
    connection.execute(
        _PUT,
        (
            view.name,
            view.uid,
            manifest_to_json(view.manifest),
            str(view.source),
            view.generation,
            view.created_ns,
            view.updated_ns,
            view.deleting,
            json.dumps([asdict(condition) for condition in view.conditions]),
            view.secret,
        ),
    )


def delete_resource(connection: sqlite3.Connection, name: JobName) -> None:
    connection.execute("DELETE FROM resources WHERE key = ?", (name,))


def load_resources(connection: sqlite3.Connection) -> list[ResourceView]:
    return [
        ResourceView(
            uid=row[1],
            manifest=resource_from_json(row[2]),
            source=Source.parse(row[3]),
            generation=row[4],
            created_ns=row[5],
            updated_ns=row[6],
            deleting=bool(row[7]),
            conditions=tuple(Condition(**condition) for condition in json.loads(row[8])),
            secret=row[9],
        )
        for row in connection.execute(f"SELECT {COLUMNS} FROM resources ORDER BY key")  # noqa: S608  constants
    ]

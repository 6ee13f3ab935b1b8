"""Rows of what is still to be told: the only place that knows them and the daemon's types."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from joblet.manifest import Hook, JobManifest, manifest_from_json, manifest_to_json
from jobletd.model import JobName
from jobletd.notifying.drafts import NotificationDraft

MOST_WAITING = 10_000
_COLUMNS = "id, job, run_id, hook, body, hook_job, tries"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notification on record. tries: that failed."""

    id: str
    job: JobName
    run_id: str
    hook: Hook
    body: str
    hook_job: JobManifest | None
    tries: int


def put_notification(connection: sqlite3.Connection, draft: NotificationDraft) -> None:
    """Put it on record; of more than MOST_WAITING the oldest goes, so that nobody who does not answer fills the disk."""
    hook_job = None if draft.hook_job is None else manifest_to_json(draft.hook_job)
    hook = json.dumps(draft.hook.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    connection.execute(
        f"INSERT OR IGNORE INTO notifications ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, 0)",  # noqa: S608  constants
        (draft.id, draft.job, draft.run_id, hook, draft.body, hook_job),
    )
    connection.execute(
        "DELETE FROM notifications WHERE rowid IN (SELECT rowid FROM notifications ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
        (MOST_WAITING,),
    )


def load_ids(connection: sqlite3.Connection) -> list[str]:
    """Oldest first."""
    return [row[0] for row in connection.execute("SELECT id FROM notifications ORDER BY rowid")]


def load_notification(connection: sqlite3.Connection, number: str) -> Waiting | None:
    query = f"SELECT {_COLUMNS} FROM notifications WHERE id = ?"  # noqa: S608  constants
    row = connection.execute(query, (number,)).fetchone()
    if row is None:
        return None
    hook_job = None if row[5] is None else manifest_from_json(row[5])
    return Waiting(row[0], JobName(row[1]), row[2], Hook.model_validate(json.loads(row[3])), row[4], hook_job, row[6])


def count_try(connection: sqlite3.Connection, number: str) -> None:
    connection.execute("UPDATE notifications SET tries = tries + 1 WHERE id = ?", (number,))


def delete_notification(connection: sqlite3.Connection, number: str) -> None:
    connection.execute("DELETE FROM notifications WHERE id = ?", (number,))

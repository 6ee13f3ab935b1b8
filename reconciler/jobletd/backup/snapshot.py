"""A consistent copy of the database while the daemon writes to it: SQLite's online backup, from any process."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from urllib.parse import quote

from jobletd.backup.errors import ArchiveDamaged, BackupError
from jobletd.store.migrations import MIGRATIONS


def copy_database(source: str, target: str) -> int:
    """Copy and check. Returns the schema version. Raises BackupError."""
    if not os.path.exists(source):
        raise BackupError("there is no database", where=source, todo="has the daemon ever run with this configuration?")
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(source)}?mode=ro", uri=True, timeout=30)) as live,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file
    except sqlite3.Error as error:
        raise BackupError(
            f"cannot be copied: {error}", where=source, todo="earlier backups were kept; check the disk"
        ) from error
    return check_database(target)


def check_database(path: str) -> int:
    """Look at all of a database. Returns its schema version. Raises ArchiveDamaged, or BackupError for one of a newer version."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            answer = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            foreign = connection.execute("PRAGMA foreign_key_check").fetchone()
    except sqlite3.Error as error:
        raise ArchiveDamaged(f"the database is damaged: {error}", where=path, todo="use an earlier backup") from error
    if answer != "ok" or foreign is not None:
        raise ArchiveDamaged(f"the database is damaged: {answer}", where=path, todo="use an earlier backup")
    if not 0 < version <= len(MIGRATIONS):
        raise BackupError(
            f"has schema version {version}, this joblet knows 1 to {len(MIGRATIONS)}",
            where=path,
            todo="install the version of joblet that wrote it, or a newer one",
        )
    return version


def sealed_under(path: str) -> list[str]:
    """The ids of the keys that secrets in a database are sealed under."""
    query = "SELECT DISTINCT json_extract(CAST(secret AS TEXT), '$.key') FROM resources WHERE secret IS NOT NULL"
    with closing(sqlite3.connect(path)) as connection:
        try:
            return sorted(str(key) for (key,) in connection.execute(query) if key)
        except sqlite3.OperationalError:
            return []  # of a schema from before there were secrets

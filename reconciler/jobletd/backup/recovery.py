"""A database that is damaged or gone: set aside, never deleted, and the newest good backup put in its place; else refused.

At each moment of it, whoever is killed, either the database is the one of before, or it is missing and its copy set aside, which
the next start takes for the same case, or it is the one of the backup.
"""

from __future__ import annotations

import datetime
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, suppress

import structlog

from joblet.atomicfile import sync_directory
from joblet.clock import Clock
from joblet.config.server import ServerConfig
from jobletd.backup.archive import Contents, read_archive
from jobletd.backup.errors import BackupError
from jobletd.backup.keeper import backup_directory, kept
from jobletd.backup.making import DATABASE, database_path
from jobletd.backup.settling import PutBack, mark
from jobletd.backup.snapshot import check_database
from jobletd.store import Store, StoreDamaged

TODO = (
    "joblet restore FILE puts a backup back; to begin with nothing, move the database with its -wal and -shm files away: "
    "jobs that still run are stopped then"
)
LEFTOVER_SECONDS = 3600.0
log = structlog.get_logger("recovery")


def open_store(config: ServerConfig, clock: Clock) -> Store:
    """The store, from the newest good backup if it is damaged. Raises StoreError."""
    path = database_path(config)
    try:
        if is_gone(config):
            raise StoreDamaged("the database is gone", where=path)
        return Store.open(path)
    except StoreDamaged as error:
        log.error("the database cannot be used", error=str(error))
        start_from_backup(config, error, clock)
        return Store.open(path)


def is_gone(config: ServerConfig) -> bool:
    """There is none, and there are signs that there was one: to begin with an empty one would stop what runs."""
    path = database_path(config)
    if os.path.lexists(path):
        return False
    attempts = f"{config.state.directory}/attempts"
    signs = (
        os.path.lexists(f"{path}-wal"),
        kept(backup_directory(config)),
        os.path.isdir(attempts) and os.listdir(attempts),
    )
    return any(signs)


def start_from_backup(config: ServerConfig, why: StoreDamaged, clock: Clock) -> None:
    """Raises StoreDamaged if there is no good one; then nothing was touched."""
    directory = backup_directory(config)
    for name in reversed(kept(directory)):
        archive = f"{directory}/{name}"
        with tempfile.TemporaryDirectory(prefix=".restored-", dir=config.state.directory) as work:
            try:
                contents = unpack_database(archive, work)
            except BackupError as error:
                log.error("a backup cannot be used", backup=archive, error=str(error))
                continue
            aside = set_aside(config.state.directory, clock)
            os.rename(f"{work}/{DATABASE}", database_path(config))
            sync_directory(config.state.directory)
        log.warning(
            "started from a backup: what was changed since then is lost; what runs is kept, and nothing is started twice",
            backup=archive,
            made=moment(contents.facts["created_ns"]),
            damaged=aside,
        )
        return
    what = why.what + (", and no backup could be used" if kept(directory) else f", and {directory} holds no backup")
    raise StoreDamaged(what, where=why.where, todo=TODO) from why


def unpack_database(archive: str, work: str) -> Contents:
    """The archive's database into that directory, checked and marked. Raises BackupError."""
    contents = read_archive(archive, work)
    path = f"{work}/{DATABASE}"
    if DATABASE not in contents.modes:
        raise BackupError("there is no database in it", where=archive, todo="use another one")
    check_database(path)
    prepare_database(path, PutBack(archive, int(contents.facts["created_ns"])))
    return contents


def prepare_database(path: str, put_back: PutBack) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        mark(connection, put_back)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(state: str, clock: Clock) -> str:
    """Keep the database's files in a directory of their own; from then on they are not in their place. Returns the directory."""
    stamp = datetime.datetime.fromtimestamp(clock.wall_ns() / 1e9, datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = f"{state}/damaged-{stamp}"
    os.mkdir(aside, 0o700)
    names = [
        f"{DATABASE}{suffix}" for suffix in ("", "-wal", "-shm")
    ]  # the database goes first: then it counts as gone
    present = [name for name in names if os.path.lexists(f"{state}/{name}")]
    for name in present:
        os.link(f"{state}/{name}", f"{aside}/{name}", follow_symlinks=False)
    sync_directory(aside)
    sync_directory(state)
    for name in present:
        os.unlink(f"{state}/{name}")
    sync_directory(state)
    return aside


def moment(ns: int) -> str:
    return datetime.datetime.fromtimestamp(ns / 1e9, datetime.UTC).isoformat(" ", "seconds")


def remove_leftovers(config: ServerConfig) -> None:
    """Of a recovery or a backup that was killed; what is young may be somebody's who is at it."""
    for directory in (config.state.directory, backup_directory(config)):
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            path = f"{directory}/{name}"
            if not name.startswith((".restored-", ".backup-", ".joblet-")):
                continue
            if time.time() - os.lstat(path).st_mtime < LEFTOVER_SECONDS:
                continue
            with suppress(OSError):
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

"""What goes into a backup: the database, configuration and certificates, the spool's manifests, uploads; secrets only sealed."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import joblet
from joblet.config.server import ServerConfig
from joblet.crash_points import reached
from jobletd.backup.archive import Member, write_archive
from jobletd.backup.errors import BackupError
from jobletd.backup.snapshot import copy_database, sealed_under
from jobletd.sources.spool_files import is_manifest_name

DATABASE = "joblet.db"
UNIT = "joblet.service"
UNIT_DIRECTORIES = {"etc": "/etc/systemd/system", "usr": "/usr/lib/systemd/system"}
SECRET_KEY = "secret.key"  # noqa: S105  a file's name
MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """uploads: contents that jobs were given. secret_key: the key of the host, with which the sealed secrets can be opened."""

    uploads: bool = True
    secret_key: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made."""

    path: str
    size_bytes: int
    created_ns: int


def make_backup(
    config: ServerConfig, config_path: str, target: str, now_ns: int, options: BackupOptions = BackupOptions()
) -> Made:
    """Make one while the daemon runs, or while it does not. Raises BackupError, and changes nothing then."""
    target = os.path.abspath(target)
    directory = os.path.dirname(target)
    try:
        database = database_path(config)
        _check_room(directory, database, config.state.min_free_bytes)
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=directory) as work:
            copy = f"{work}/{DATABASE}"
            schema = copy_database(database, copy)
            reached("backup.database-copied")
            facts = _facts(config, config_path, now_ns, schema, sealed_under(copy))
            members = [
                Member(DATABASE, copy),
                *_config_members(config_path),
                *_spool_members(config.spool.directory),
                *_unit_members(),
                *(_upload_members(config.state.directory) if options.uploads else ()),
                *([Member(SECRET_KEY, key_path(config))] if options.secret_key else ()),
            ]
            size = write_archive(target, members, facts)
            reached("backup.archive-written")
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else target
        raise BackupError(f"cannot be backed up: {error.strerror}", where=where) from error
    return Made(target, size, now_ns)


def database_path(config: ServerConfig) -> str:
    return f"{config.state.directory}/{DATABASE}"


def key_path(config: ServerConfig) -> str:
    return config.state.key_file or f"{config.state.directory}/{SECRET_KEY}"


def _facts(config: ServerConfig, config_path: str, now_ns: int, schema: int, keys: list[str]) -> dict[str, Any]:
    return {
        "joblet": joblet.__version__,
        "host": platform.node(),
        "created_ns": now_ns,
        "schema": schema,
        "config": os.path.abspath(config_path),
        "state": config.state.directory,
        "spool": config.spool.directory,
        "sealed_under": keys,
    }


def _check_room(directory: str, database: str, floor_bytes: int) -> None:
    if not os.path.isdir(directory):
        raise BackupError("there is no such directory", where=directory)
    size = os.stat(database).st_size if os.path.exists(database) else 0
    if shutil.disk_usage(directory).free < 2 * size + floor_bytes:
        raise BackupError(
            f"there is no room for a copy of {size} bytes, packed and unpacked, above the floor of {floor_bytes}",
            where=directory,
            todo="make room, give another FILE, or lower state.minFree",
        )


def _config_members(config_path: str) -> Iterator[Member]:
    """The configuration's directory if it is private, as joblet init makes it; else the file alone."""
    path = os.path.abspath(config_path)
    directory = os.path.dirname(path)
    status = os.stat(directory)
    if status.st_mode & 0o077 or status.st_uid != os.stat(path).st_uid:
        yield Member(f"config/{os.path.basename(path)}", path)
        return
    total = 0
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if not name.startswith("."))  # of an earlier restore
        for name in sorted(names):
            one = os.lstat(f"{parent}/{name}")
            if stat.S_ISREG(one.st_mode) and not name.startswith("."):
                total += one.st_size
                if total > MAX_CONFIG_BYTES:
                    raise BackupError(
                        f"has more than {MAX_CONFIG_BYTES} bytes",
                        where=directory,
                        todo="move away what is no configuration",
                    )
                yield Member(
                    f"config/{os.path.relpath(f'{parent}/{name}', directory)}", f"{parent}/{name}", one.st_mode & 0o777
                )


def _spool_members(directory: str) -> Iterator[Member]:
    """Without them the jobs that come from there would be taken for deleted."""
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        one = os.lstat(f"{directory}/{name}")
        if is_manifest_name(name) and stat.S_ISREG(one.st_mode):
            yield Member(f"spool/{name}", f"{directory}/{name}", one.st_mode & 0o777)


def _unit_members() -> Iterator[Member]:
    """How systemd runs the daemon here: the administrator's own units, and the package's, which is only put on record."""
    for name, directory in UNIT_DIRECTORIES.items():
        for path in (f"{directory}/{UNIT}", *sorted(glob.glob(f"{glob.escape(directory)}/{UNIT}.d/*.conf"))):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield Member(f"systemd/{name}/{os.path.relpath(path, directory)}", path, status.st_mode & 0o777)


def _upload_members(state: str) -> Iterator[Member]:
    directory = f"{state}/blobs/sha256"
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        if not name.startswith("."):
            yield Member(f"uploads/{name}", f"{directory}/{name}")

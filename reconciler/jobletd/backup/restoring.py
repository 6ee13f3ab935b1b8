"""``joblet restore``: verify, put back, check; whatever fails, everything is again as it was before.

What is replaced is moved aside into directories that stay afterwards. The moves are on record before the first one
(``restoring.json`` in the state directory): a restore that was killed is undone by the next one, and the daemon does not start
in between.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import astuple, dataclass

from joblet.atomicfile import sync_directory, write_atomic
from joblet.config.document import validate
from joblet.config.go_joblet import without_go_keys
from joblet.config.server import ServerConfig, load_server_config
from joblet.config.yaml_places import ConfigText
from joblet.errors import JobletError
from joblet.pki import load_certificate
from jobletd.backup.archive import Contents, read_archive, read_config
from jobletd.backup.errors import BackupError
from jobletd.backup.making import DATABASE, SECRET_KEY, UNIT_DIRECTORIES, key_path
from jobletd.backup.recovery import moment, prepare_database
from jobletd.backup.settling import PutBack
from jobletd.backup.snapshot import check_database
from jobletd.directory_lock import lock_path, take_lock
from jobletd.secrets.host_key import HostKey
from jobletd.store import Store, resource_rows, rows

RECORD = "restoring.json"
UNPACKED = ".joblet-restore-"


@dataclass(frozen=True, slots=True)
class Move:
    """One file. staged: what goes to target, in the same directory already; empty: nothing. aside: where what is there goes."""

    staged: str
    target: str
    aside: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back. aside: directories with what was there before. missing_keys: ids of keys that secrets need.
    moves: how it came about, in that state directory."""

    created: str
    host: str
    config: str
    jobs: int
    aside: tuple[str, ...]
    missing_keys: tuple[str, ...]
    key_path: str
    state: str
    moves: tuple[Move, ...]


def restore(archive: str, config_path: str | None, env: Mapping[str, str], *, keep_config: bool = False) -> Restored:
    """config_path: where the configuration goes, if not to where it was. keep_config: leave the one that is there.

    Raises JobletError or OSError, and nothing was changed then.
    """
    with ExitStack() as stack:
        work = _place_to_unpack(archive, config_path if keep_config else None, stack)
        contents = _verified(archive, work)
        archived = f"{work}/config/{os.path.basename(str(contents.facts['config']))}"
        target = os.path.abspath(config_path or str(contents.facts["config"]))
        # Without the environment, which is this shell's and not the daemon's.
        config = load_server_config(target if keep_config else archived, {})
        _lock_out_daemons(config, target, stack)
        os.makedirs(config.state.directory, 0o711, exist_ok=True)
        undo_cut_off(config.state.directory)
        created_ns = int(contents.facts["created_ns"])
        prepare_database(f"{work}/{DATABASE}", PutBack(os.path.abspath(archive), created_ns))
        wanted = dict(_targets(contents, config, "" if keep_config else target))
        moves = _stage(work, wanted, contents, config)
        with _all_or_nothing(config.state.directory, moves):
            jobs = _check(config, target)
        return Restored(
            created=moment(created_ns),
            host=str(contents.facts["host"]),
            config=target,
            jobs=jobs,
            aside=tuple(sorted({os.path.dirname(move.aside) for move in moves if os.path.lexists(move.aside)})),
            missing_keys=_missing_keys(config, env, contents),
            key_path=key_path(config),
            state=config.state.directory,
            moves=tuple(moves),
        )


def take_back(restored: Restored) -> None:
    """All as it was before that restore. What was done since is lost. Raises JobletError, OSError."""
    with ExitStack() as stack:
        _lock_out_daemons(load_server_config(restored.config, {}), restored.config, stack)
        _note(restored.state, restored.moves)
        _undo(restored.state, restored.moves)


def _place_to_unpack(archive: str, kept_config: str | None, stack: ExitStack) -> str:
    """On the disk that has to hold it anyway, where the daemon's next start removes what a killed restore left. If it cannot be
    told yet which that is, something is wrong that is told later."""
    state: str | None = None
    with suppress(JobletError, ValueError):
        facts, text = read_config(archive)
        if kept_config is not None:
            state = load_server_config(os.path.abspath(kept_config), {}).state.directory
        else:
            source = ConfigText(text.decode(), path=str(facts["config"]))
            state = validate(source, without_go_keys(source)[0], ServerConfig).state.directory
    if state is not None and not os.path.isdir(state):
        os.makedirs(state, 0o711)
        stack.callback(_remove_if_empty, state)
    return stack.enter_context(tempfile.TemporaryDirectory(prefix=UNPACKED, dir=state))


def _remove_if_empty(directory: str) -> None:
    with suppress(OSError):
        os.rmdir(directory)


def remove_unpacked(state: str) -> None:
    """What restores that were killed had unpacked. Raises OSError."""
    for name in os.listdir(state):
        if name.startswith(UNPACKED):
            shutil.rmtree(f"{state}/{name}")


def refuse_cut_off(state: str) -> None:
    """For the daemon's start. Raises BackupError."""
    if os.path.lexists(f"{state}/{RECORD}"):
        raise BackupError(
            "a restore was cut off, files of two states may lie side by side",
            where=f"{state}/{RECORD}",
            todo="run joblet restore FILE again: it undoes the one that was cut off first",
        )


def undo_cut_off(state: str) -> None:
    """What an earlier restore did before it was killed. Raises OSError."""
    with suppress(FileNotFoundError), open(f"{state}/{RECORD}") as file:
        _undo(state, [Move(*move) for move in json.load(file)])


def _verified(archive: str, work: str) -> Contents:
    contents = read_archive(archive, work)
    name = f"config/{os.path.basename(str(contents.facts['config']))}"
    if missing := {DATABASE, name} - contents.modes.keys():
        raise BackupError(f"there is no {missing.pop()} in it", where=archive, todo="use another one")
    check_database(f"{work}/{DATABASE}")
    return contents


def _lock_out_daemons(config: ServerConfig, target: str, stack: ExitStack) -> None:
    """As the daemon itself does: on the directories to come and on those of the present configuration. Raises BackupError."""
    directories = {config.run.directory}
    with suppress(JobletError):
        directories.add(load_server_config(target, {}).run.directory)
    for directory in sorted(map(os.path.realpath, directories)):
        os.makedirs(directory, 0o700, exist_ok=True)
        try:
            stack.callback(os.close, take_lock(directory))
        except BlockingIOError:
            where = lock_path(directory)
            raise BackupError("the daemon runs", where=where, todo="stop it first: systemctl stop joblet") from None


def _targets(contents: Contents, config: ServerConfig, target: str) -> Iterator[tuple[str, str]]:
    """(name in the archive, where it goes). target: of the configuration file; empty: it stays."""
    for name in sorted(contents.modes):
        folder, _, rest = name.partition("/")
        if name == DATABASE:
            yield name, f"{config.state.directory}/{DATABASE}"
        elif name == SECRET_KEY:
            yield name, key_path(config)
        elif folder == "spool":
            yield name, f"{config.spool.directory}/{rest}"
        elif folder == "uploads":
            yield name, f"{config.state.directory}/blobs/sha256/{rest}"
        elif folder == "systemd" and target and rest.startswith("etc/"):  # the others come with the package
            yield name, f"{UNIT_DIRECTORIES['etc']}/{rest.removeprefix('etc/')}"
        elif folder == "config" and target:
            is_main = rest == os.path.basename(str(contents.facts["config"]))
            yield name, target if is_main else f"{os.path.dirname(target)}/{rest}"


def _stage(work: str, wanted: Mapping[str, str], contents: Contents, config: ServerConfig) -> list[Move]:
    """Copies beside their places, durable; nothing that is there is touched. Raises OSError."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    moves: list[Move] = []
    try:
        for name, target in wanted.items():
            directory, last = os.path.split(target)
            os.makedirs(directory, 0o700, exist_ok=True)
            staged = f"{directory}/.{last}.restored-{stamp}"
            aside = f"{os.path.normpath(directory)}/.before-restore-{stamp}/{last}"
            moves.append(Move(staged, target, aside))
            shutil.copyfile(f"{work}/{name}", staged)
            os.chmod(staged, contents.modes[name])
            fd = os.open(staged, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(fd)
            os.close(fd)
    except BaseException:
        _remove_staged(moves)
        raise
    database = f"{config.state.directory}/{DATABASE}"
    aside = next(move.aside for move in moves if move.target == database)
    return [Move("", f"{database}{suffix}", f"{aside}{suffix}") for suffix in ("-wal", "-shm")] + moves


@contextmanager
def _all_or_nothing(state: str, moves: Sequence[Move]) -> Iterator[None]:
    """Everything in its place inside the block; if that fails, as it was before."""
    try:
        _note(state, moves)
        for move in moves:
            if os.path.lexists(move.target):
                os.makedirs(os.path.dirname(move.aside), 0o700, exist_ok=True)
                os.rename(move.target, move.aside)
            if move.staged:
                os.rename(move.staged, move.target)
        yield
        for directory in {os.path.dirname(move.target) for move in moves}:
            sync_directory(directory)
    except BaseException:
        _undo(state, moves)
        raise
    os.unlink(f"{state}/{RECORD}")
    sync_directory(state)


def _note(state: str, moves: Sequence[Move]) -> None:
    write_atomic(f"{state}/{RECORD}", json.dumps([astuple(move) for move in moves]).encode())


def _undo(state: str, moves: Sequence[Move]) -> None:
    """In any state between before and after, also that of an undoing that was killed. Raises OSError; the record stays then."""
    database = f"{state}/{DATABASE}"
    if any(move.target == database and move.staged and not os.path.lexists(move.staged) for move in moves):
        for suffix in ("-wal", "-shm"):  # of the database that goes: those of the one that comes back lie aside
            with suppress(FileNotFoundError):
                os.unlink(f"{database}{suffix}")
    for move in reversed(moves):
        if move.staged and not os.path.lexists(move.staged) and os.path.lexists(move.target):
            os.rename(move.target, move.staged)
        if os.path.lexists(move.aside):
            os.rename(move.aside, move.target)
    for directory in {os.path.dirname(move.target) for move in moves}:
        sync_directory(directory)
    with suppress(FileNotFoundError):
        os.unlink(f"{state}/{RECORD}")  # before the staged files: their absence means that they were put in place
    _remove_staged(moves)
    for directory in {os.path.dirname(move.aside) for move in moves}:
        with suppress(OSError):
            os.rmdir(directory)


def _remove_staged(moves: Sequence[Move]) -> None:
    for move in moves:
        if move.staged:
            with suppress(FileNotFoundError):
                os.unlink(move.staged)


def _check(config: ServerConfig, target: str) -> int:
    """That a daemon would start on it: configuration, certificate and each row are read. Returns how many jobs there are."""
    load_server_config(target, {})
    load_certificate(config.security.server_cert, where="security.serverCert")
    Store.open(f"{config.state.directory}/{DATABASE}").close()
    with closing(sqlite3.connect(f"{config.state.directory}/{DATABASE}", isolation_level=None)) as connection:
        try:
            jobs = rows.load_jobs(connection)
            resource_rows.load_resources(connection)
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(f"its database holds what cannot be read: {error}", where="restore") from error
    return len(jobs)


def _missing_keys(config: ServerConfig, env: Mapping[str, str], contents: Contents) -> tuple[str, ...]:
    """Keys that sealed secrets need and that are not here."""
    wanted = [str(key) for key in contents.facts.get("sealed_under", ())]
    if not wanted:
        return ()
    try:
        present = HostKey(key_path(config), env, anything_sealed=lambda: True).get().id
    except (JobletError, OSError):
        present = ""
    return tuple(key for key in wanted if key != present)

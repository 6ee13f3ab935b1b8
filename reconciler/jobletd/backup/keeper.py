"""The daemon's own backups: one when it is due, the newest few kept; and which is the newest that is good."""

from __future__ import annotations

import asyncio
import datetime
import os
import re

import structlog

from joblet.clock import Clock
from joblet.config.server import ServerConfig
from joblet.errors import JobletError
from jobletd.backup.journal import ROTATE_BYTES, LaunchJournal
from jobletd.backup.making import BackupOptions, Made, make_backup

SUFFIX = ".joblet-backup"
_NAME = re.compile(r"joblet-([0-9]{8}T[0-9]{6}\.[0-9]{9}Z)\.joblet-backup")
LOOK_SECONDS = 60.0
AGAIN_SECONDS = 600.0  # after one that failed
NS = 10**9
log = structlog.get_logger("backup")


def backup_directory(config: ServerConfig) -> str:
    return config.backup.directory or f"{config.state.directory}/backups"


def name_of(ns: int) -> str:
    """With the time, so that the order of names is that of time."""
    moment = datetime.datetime.fromtimestamp(ns // NS, datetime.UTC)
    return f"joblet-{moment:%Y%m%dT%H%M%S}.{ns % NS:09d}Z{SUFFIX}"


def time_of(name: str) -> int:
    """In nanoseconds; 0 for what is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return 0
    whole, _, rest = match[1].rstrip("Z").partition(".")
    moment = datetime.datetime.strptime(whole, "%Y%m%dT%H%M%S").replace(tzinfo=datetime.UTC)
    return int(moment.timestamp()) * NS + int(rest)


def kept(directory: str) -> list[str]:
    """The names of our backups there, oldest first."""
    try:
        return sorted(name for name in os.listdir(directory) if time_of(name))
    except FileNotFoundError:
        return []


def keep_newest(directory: str, number: int) -> list[str]:
    """Away with our older backups there. Returns the names of those that went. Raises OSError."""
    gone = kept(directory)[:-number]
    for name in gone:
        os.unlink(f"{directory}/{name}")
    return gone


class BackupKeeper:
    """One for the daemon. failure: why the last backup could not be made, until one could."""

    def __init__(self, config: ServerConfig, config_path: str, journal: LaunchJournal, clock: Clock) -> None:
        self._config = config
        self._config_path = config_path
        self._directory = backup_directory(config)
        self._journal = journal
        self._clock = clock
        self.failure = ""

    async def run(self) -> None:
        """Make backups when they are due until cancelled."""
        while True:
            pause = LOOK_SECONDS
            if self.is_due():
                try:
                    made = await self.back_up()
                except (JobletError, OSError) as error:
                    self.failure = str(error)
                    log.error("no backup could be made, the earlier ones stay", error=str(error))
                    pause = AGAIN_SECONDS
                else:
                    self.failure = ""
                    log.info("backup made", path=made.path, bytes=made.size_bytes)
            await asyncio.sleep(pause)

    def is_due(self) -> bool:
        names = kept(self._directory)
        age_ns = self._clock.wall_ns() - time_of(names[-1]) if names else None
        if age_ns is None or age_ns < 0:  # none, or the clock was set back: better one too many
            return True
        return age_ns >= self._config.backup.interval_seconds * NS or self._journal.bytes > ROTATE_BYTES

    async def back_up(self) -> Made:
        """One more, then away with the oldest. Raises BackupError, OSError."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        now_ns = self._clock.wall_ns()
        self._journal.rotate(now_ns)
        target = f"{self._directory}/{name_of(now_ns)}"
        options = BackupOptions(uploads=False)  # they lie beside it already
        made = await asyncio.to_thread(make_backup, self._config, self._config_path, target, now_ns, options)
        keep_newest(self._directory, self._config.backup.keep)
        self._journal.drop_before(time_of(kept(self._directory)[0]))
        return made

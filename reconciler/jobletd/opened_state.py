"""What a daemon has on record, opened: after it was taken up where a backup, or a daemon that was killed, has left it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from joblet.clock import Clock
from joblet.config.server import ServerConfig
from jobletd.backup.journal import LaunchJournal
from jobletd.backup.recovery import open_store, remove_leftovers
from jobletd.backup.restoring import refuse_cut_off
from jobletd.backup.settling import PutBack, take_up_launches
from jobletd.lifetime import Lifetime
from jobletd.own_directories import lock_directories, make_directories
from jobletd.store import Store


@dataclass(frozen=True, slots=True)
class OpenedState:
    """launches: the journal of those. put_back: the backup that the store comes from, if the host is not in line
    with it yet."""

    store: Store
    launches: LaunchJournal
    put_back: PutBack | None


def take_directories(life: Lifetime, config: ServerConfig) -> None:
    """They are ours until the end. Raises ServeError."""
    life.callback(os.close, lock_directories(config))
    make_directories(config)


async def open_state(life: Lifetime, config: ServerConfig, clock: Clock) -> OpenedState:
    """In directories that are ours. Raises JobletError."""
    refuse_cut_off(config.state.directory)
    remove_leftovers(config)
    store = open_store(config, clock)
    life.callback(store.close)
    path = f"{config.state.directory}/launches"
    put_back = await take_up_launches(store, path, clock.wall_ns())
    launches = LaunchJournal(path)
    launches.open(clock.wall_ns())
    life.callback(launches.close)
    return OpenedState(store, launches, put_back)

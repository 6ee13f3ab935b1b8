"""systemd's watchdog hears from us while the event loop turns and the database answers; else it starts a new daemon."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

from jobletd.notify import sd_notify
from jobletd.store import Store, StoreError

STOP_SECONDS = 60
log = structlog.get_logger("watchdog")


def period_seconds(env: Mapping[str, str]) -> float | None:
    """Half of what systemd waits; None where it does not wait for us."""
    microseconds = env.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 / 2


async def watch(store: Store, env: Mapping[str, str]) -> None:
    """Until cancelled. What the database answers goes through its queue and a transaction, as all changes do."""
    period = period_seconds(env)
    while period is not None:
        try:
            await store.write(_look)
        except StoreError as error:
            log.error("the database does not answer: systemd will start a new daemon", error=str(error))
        else:
            sd_notify("WATCHDOG=1")
        await asyncio.sleep(period)


def _look(connection: sqlite3.Connection) -> None:
    """Changes nothing, so that it needs no room on the disk."""
    connection.execute("SELECT 1 FROM jobs LIMIT 1").fetchone()


@asynccontextmanager
async def more_time_to_end() -> AsyncIterator[None]:
    """As long as the block takes, systemd does not run out of patience with our end."""

    async def ask() -> None:
        while True:
            sd_notify(f"EXTEND_TIMEOUT_USEC={STOP_SECONDS * 1_000_000}")
            await asyncio.sleep(STOP_SECONDS / 4)

    task = asyncio.create_task(ask(), name="more time to end")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

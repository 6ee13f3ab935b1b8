"""What systemd's watchdog hears, and when it hears nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobletd.store import Store
from jobletd.watchdog import more_time_to_end, period_seconds, watch

ENV = {"WATCHDOG_USEC": "20000"}


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The end of the notification socket that hears."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ears:
        ears.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield ears


async def heard(ears: socket.socket) -> str:
    return (await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ears, 4096), 10)).decode()


def test_a_period_is_half_of_the_patience_that_is_meant_for_us() -> None:
    assert period_seconds({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}) == 30
    assert period_seconds({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}) is None
    assert period_seconds({}) is None


def test_a_healthy_daemon_is_heard_of_again_and_again(tmp_path: Path, systemd: socket.socket) -> None:
    async def story() -> list[str]:
        store = Store.open(str(tmp_path / "db"))
        task = asyncio.create_task(watch(store, ENV))
        words = [await heard(systemd) for _ in range(3)]
        task.cancel()
        store.close()
        return words

    assert asyncio.run(story()) == ["WATCHDOG=1"] * 3


def test_nothing_is_heard_while_the_database_does_not_answer(tmp_path: Path, systemd: socket.socket) -> None:
    async def story() -> bool:
        store = Store.open(str(tmp_path / "db"))
        stuck, freed = threading.Event(), threading.Event()

        def hang(_: sqlite3.Connection) -> None:
            stuck.set()
            freed.wait()

        hanging = asyncio.create_task(store.write(hang))
        await asyncio.to_thread(stuck.wait)
        task = asyncio.create_task(watch(store, ENV))
        await asyncio.sleep(0.1)  # five times as long as systemd would wait
        silent = not task.done() and nothing_heard(systemd)
        freed.set()
        await hanging
        await heard(systemd)
        task.cancel()
        store.close()
        return silent

    assert asyncio.run(story())


def nothing_heard(ears: socket.socket) -> bool:
    try:
        ears.recv(4096)
    except BlockingIOError:
        return True
    return False


def test_a_long_end_asks_for_more_time(systemd: socket.socket) -> None:
    async def story() -> str:
        async with more_time_to_end():
            return await heard(systemd)

    assert asyncio.run(story()) == "EXTEND_TIMEOUT_USEC=60000000"

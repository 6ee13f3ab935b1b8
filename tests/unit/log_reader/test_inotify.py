"""Watching directories: hundreds at the price of one inotify instance, and none where the kernel has none left."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from jobletd.inotify import ChangeWatch
from tests.timing import PATIENCE

WITHIN = 10 * PATIENCE
NEVER = asyncio.Event()


def instances() -> int:
    links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
    return sum(link == "anon_inode:inotify" for link in links)


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), WITHIN))


def fill(descriptors: list[int]) -> None:
    """Open files until there may be no more."""
    try:
        while True:
            descriptors.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise


def test_three_hundred_watches_share_one_instance_and_each_hears_of_its_own(tmp_path: Path) -> None:
    async def scene() -> None:
        before = instances()
        places = [tmp_path / str(number) for number in range(100)]
        for place in places:
            place.mkdir()
        watches = [ChangeWatch(str(place)) for place in places * 3]
        assert instances() == before + 1
        waiting = [asyncio.ensure_future(watch.changed_or(NEVER)) for watch in watches]
        await asyncio.sleep(0)
        (places[7] / "file").write_text("x")
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 3:
            more, _ = await asyncio.wait(set(waiting) - done, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert done == {waiting[7], waiting[107], waiting[207]}
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for watch in watches:
            watch.close()
        assert instances() == before

    play(scene)


def test_a_change_between_two_waits_is_not_missed(tmp_path: Path) -> None:
    async def scene() -> None:
        watch = ChangeWatch(str(tmp_path))
        for number in range(3):
            (tmp_path / f"{number}").write_text("x")
            await watch.changed_or(NEVER)
        watch.close()

    play(scene)


def test_the_event_ends_the_wait_too(tmp_path: Path) -> None:
    async def scene() -> None:
        watch = ChangeWatch(str(tmp_path))
        event = asyncio.Event()
        event.set()
        await watch.changed_or(event)
        watch.close()

    play(scene)


def test_where_no_instance_is_left_it_looks_now_and_then(tmp_path: Path) -> None:
    async def scene() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
        full: list[int] = []
        try:
            fill(full)
            watch = ChangeWatch(str(tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in full:
                os.close(fd)
        await watch.changed_or(NEVER)
        watch.close()

    play(scene)


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    async def scene() -> None:
        before = instances()
        with pytest.raises(FileNotFoundError):
            ChangeWatch(f"{tmp_path}/none")
        assert instances() == before

    play(scene)

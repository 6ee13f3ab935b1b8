"""When the spool is looked at, and at how much of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from joblet.clock import SystemClock
from jobletd.sources import spool, spool_watch
from jobletd.sources.spool import Spool, SpoolSettings
from tests.unit.spool.place import OWNER, Place, running


def test_a_dropped_file_is_applied_within_milliseconds(place: Place) -> None:
    async def check() -> None:
        async with running(place):
            times: list[float] = []
            while (
                sum(seconds < 0.045 for seconds in times) < 2
            ):  # what waits for its turn beside other tests takes longer
                number = len(times)
                assert number < 100, times
                place.write(f"{number}.yml", f"job-{number}")
                times.append(await place.until(lambda n=number: place.desired.owner(f"job-{n}")))  # type: ignore[misc]
                await asyncio.sleep(0.05)

    asyncio.run(check())


def test_an_unchanged_directory_is_neither_read_nor_applied_again(place: Place) -> None:
    async def check() -> None:
        place.write("a.yml", "a")
        await place.spool.sync()
        (place.path / "note.txt").write_text("x")
        for _ in range(5):
            await place.spool.sync()
        assert place.desired.applies == [("a",)]

    asyncio.run(check())


def test_a_change_costs_no_look_at_the_other_files(place: Place, looks: list[frozenset[str] | None]) -> None:
    async def check() -> None:
        for number in range(20):
            place.write(f"{number}.yml", f"job-{number}")
        async with running(place):
            await place.until(lambda: place.desired.owner("job-19"))
            looks.clear()
            place.write("7.yml", "job-7", command="[y]")
            await place.until(lambda: place.desired.generation("job-7") == 2)
            assert looks and all(look == frozenset({"7.yml"}) for look in looks), looks

    asyncio.run(check())


def test_what_the_kernel_did_not_tell_is_seen_soon_after_what_it_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asyncio.Event()

    async def forgetful(directory: str, **_: object) -> AsyncIterator[set[tuple[int, str]]]:
        await told.wait()
        yield {(1, f"{directory}/told.yml")}
        await asyncio.Event().wait()

    monkeypatch.setattr(spool_watch, "awatch", forgetful)
    monkeypatch.setattr(spool, "_ALL_SECONDS", 0.05)

    async def check() -> None:
        async with running(place):
            await asyncio.sleep(0.05)
            place.write("told.yml", "told")
            place.write("untold.yml", "untold")
            told.set()
            await place.until(lambda: place.desired.owner("told") and place.desired.owner("untold"))

    asyncio.run(check())


def test_a_missing_directory_deletes_nothing_and_is_followed_again_when_it_is_back(place: Place) -> None:
    async def check() -> None:
        place.write("a.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a"))
            place.path.rename(place.path.with_name("elsewhere"))
            await place.until(lambda: "SpoolUnavailable" in place.desired.reasons())
            assert place.desired.owner("a")
            place.path.with_name("elsewhere").rename(place.path)
            place.write("b.yml", "b")
            await place.until(lambda: place.desired.owner("b"))
            assert place.desired.generation("a") == 1
            place.write("c.yml", "c")
            # By the watch: without it a change is seen every thirty seconds.
            assert await place.until(lambda: place.desired.owner("c")) < 10.0

    asyncio.run(check())


def test_what_waits_for_the_first_look_is_told_once_also_if_there_is_no_spool(tmp_path: Path) -> None:
    async def check() -> None:
        told: list[bool] = []
        for directory in (tmp_path / "spool", tmp_path / "missing"):
            place = Place(tmp_path / "spool")
            place.write("a.yml", "a")
            place.spool = Spool(
                SpoolSettings(str(directory), 0.01, OWNER),
                place.desired,
                clock=SystemClock(),
                on_followed=lambda desired=place.desired: told.append(desired.owner("a") == "spool:a.yml"),  # type: ignore[misc]
            )
            looks = len(told) + 1
            async with running(place):
                await place.until(lambda looks=looks: len(told) == looks)  # type: ignore[misc]
                await place.spool.sync() if directory.exists() else None
        assert told == [True, False]

    asyncio.run(check())

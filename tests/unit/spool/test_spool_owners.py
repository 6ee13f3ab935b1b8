"""Who owns a job of the spool: files that are renamed, that name the same, that went while the daemon was down."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from joblet.manifest import JobManifest
from jobletd.model import JobName, Source
from jobletd.sources import spool_watch
from tests.unit.manifest.samples import raw
from tests.unit.spool.place import Place, running


def test_a_renamed_file_moves_ownership_and_restarts_nothing(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a", "b")
        async with running(place):
            await place.until(lambda: place.desired.owner("b"))
            path.rename(place.path / "z.yml")
            await place.until(lambda: place.desired.owner("a") == "spool:z.yml")
            assert place.desired.owner("b") == "spool:z.yml"
            assert (place.desired.generation("a"), place.desired.generation("b")) == (1, 1)

    asyncio.run(check())


def test_a_rename_that_looks_like_delete_and_create_restarts_nothing(
    place: Place, looks: list[frozenset[str] | None]
) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a"))
            text = path.read_text()
            looks.clear()
            path.unlink()
            await place.until(lambda: looks)  # it is seen to be gone
            (place.path / "b.yml").write_text(text)
            await place.until(lambda: place.desired.owner("a") == "spool:b.yml")
            assert place.desired.generation("a") == 1

    asyncio.run(check())


def test_an_editor_s_save_by_rename_restarts_nothing(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a"))
            for _ in range(5):
                path.rename(place.path / "a.yml~")
                await asyncio.sleep(0.02)
                place.write("a.yml", "a")
                await asyncio.sleep(0.02)
            place.write("a.yml", "a", command="[y]")
            await place.until(lambda: place.desired.generation("a") == 2)

    asyncio.run(check())


def test_a_second_file_with_the_same_name_is_a_conflict_and_takes_over_when_the_first_goes(place: Place) -> None:
    async def check() -> None:
        first = place.write("b.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a"))
            place.write("a.yml", "a", "c", command="[y]")  # sorts first, but the incumbent stays
            await place.until(lambda: "spool:b.yml" in place.error("a.yml"))
            at = re.search(r"a\.yml:(\d+):\d+", place.error("a.yml"))
            assert at and "name: a" in (place.path / "a.yml").read_text().splitlines()[int(at[1]) - 1]
            assert place.desired.owner("a") == "spool:b.yml"
            assert place.desired.owner("c") == "spool:a.yml"
            assert place.desired.generation("a") == 1
            assert place.desired.conditions[JobName("a"), "Conflict"][0] == "True"
            assert "a.yml" in place.desired.conditions[JobName("a"), "Conflict"][1]
            first.unlink()
            await place.until(lambda: place.desired.owner("a") == "spool:a.yml")
            await place.until(lambda: not place.error("a.yml"))
            assert place.desired.conditions[JobName("a"), "Conflict"][0] == "False"
            assert place.desired.generation("a") == 2

    asyncio.run(check())


def test_a_job_of_another_kind_of_source_is_left_to_it(place: Place) -> None:
    async def check() -> None:
        other = JobManifest.model_validate(raw())
        place.desired.jobs[JobName("a")] = (other, Source("grpc", "ada"), 1)
        place.write("a.yml", "a", "b")
        await place.spool.sync()
        assert (place.desired.owner("a"), place.desired.owner("b")) == ("grpc:ada", "spool:a.yml")
        assert "grpc:ada" in place.error("a.yml")
        del place.desired.jobs[JobName("a")]
        await place.spool.sync()
        assert place.desired.owner("a") == "spool:a.yml"
        assert place.error("a.yml") == ""

    asyncio.run(check())


def test_files_removed_while_the_daemon_was_down_are_pruned_to_the_last_one(place: Place) -> None:
    async def check() -> None:
        paths = [place.write(f"{name}.yml", name) for name in ("a", "b")]
        await place.spool.sync()
        for path in paths:
            path.unlink()
        stale = place.path / "status" / "gone.yml.error.yml"
        stale.parent.mkdir(exist_ok=True)
        stale.write_text("old")
        successor = Place(place.path, place.desired)
        await successor.synced(lambda: not place.desired.jobs)
        assert not stale.exists()

    asyncio.run(check())


def test_a_file_renamed_while_the_daemon_was_down_restarts_nothing(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        await place.spool.sync()
        path.rename(place.path / "b.yml")
        successor = Place(place.path, place.desired)
        await successor.spool.sync()
        assert (place.desired.owner("a"), place.desired.generation("a")) == ("spool:b.yml", 1)

    asyncio.run(check())


def test_a_file_that_became_invalid_while_the_daemon_was_down_keeps_its_jobs(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        await place.spool.sync()
        path.write_text("x: [")
        successor = Place(place.path, place.desired)
        await successor.synced(lambda: successor.error("a.yml"))
        assert place.desired.owner("a") == "spool:a.yml"

    asyncio.run(check())


def test_a_rename_of_which_only_one_half_was_told_is_still_a_rename(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either half: the job is neither in conflict with itself nor removed."""
    named: asyncio.Queue[str] = asyncio.Queue()

    async def halves(directory: str, **_: object) -> AsyncIterator[set[tuple[int, str]]]:
        while True:
            yield {(1, f"{directory}/{await named.get()}")}

    monkeypatch.setattr(spool_watch, "awatch", halves)

    async def check() -> None:
        old = place.write("a.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a") == "spool:a.yml")
            old.rename(place.path / "b.yml")
            named.put_nowait("b.yml")
            await place.until(lambda: place.desired.owner("a") == "spool:b.yml")
            (place.path / "b.yml").rename(place.path / "c.yml")
            named.put_nowait("b.yml")
            await place.until(lambda: place.desired.owner("a") == "spool:c.yml")
        assert "NameConflict" not in place.desired.reasons()
        assert place.desired.generation("a") == 1

    asyncio.run(check())

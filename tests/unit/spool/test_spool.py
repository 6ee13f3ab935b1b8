"""The spool with real files and real inotify, before a desired state in memory: what files say becomes what is desired."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from joblet.clock import SystemClock
from joblet.manifest import Manifest
from jobletd.model import ApplyResult, JobName, Source
from jobletd.policy import NotAllowed, Problem
from jobletd.sources import spool
from jobletd.sources.spool import Spool, SpoolSettings
from tests.unit.manifest.samples import manifest_text
from tests.unit.spool.desired import MemoryDesired
from tests.unit.spool.place import OWNER, Place, running


def test_an_edit_is_followed_and_a_touch_changes_nothing(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a") == "spool:a.yml")
            place.write("a.yml", "a", command="[y]")
            await place.until(lambda: place.desired.generation("a") == 2)
            applies = len(place.desired.applies)
            os.utime(path)
            await place.until(lambda: len(place.desired.applies) > applies)
            assert place.desired.generation("a") == 2

    asyncio.run(check())


def test_a_half_written_file_does_no_harm_however_slowly_it_comes(place: Place) -> None:
    async def check() -> None:
        place.write("a.yml", "a", "b")
        async with running(place):
            await place.until(lambda: place.desired.owner("b"))
            text = (place.path / "a.yml").read_text().replace("[x]", "[y]")
            with (place.path / "a.yml").open("w") as file:  # truncates: to a reader all jobs seem gone
                for part in (text[:10], text[10:90], text[90:-5], text[-5:]):
                    file.write(part)
                    file.flush()
                    await asyncio.sleep(0.06)
                    assert (place.desired.owner("a"), place.desired.generation("b")) == ("spool:a.yml", 1)
            await place.until(lambda: place.desired.generation("b") == 2)
            assert place.error("a.yml") == ""
            assert place.desired.reasons() == []

    asyncio.run(check())


def test_an_invalid_file_changes_nothing_and_its_error_stands_beside_until_it_is_valid(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a"))
            path.write_text(manifest_text("comand: [x]", "a"))
            await place.until(lambda: place.error("a.yml"))
            assert "a.yml:6:3" in place.error("a.yml")
            assert "did you mean command?" in place.error("a.yml")
            assert place.desired.generation("a") == 1
            await place.until(lambda: place.desired.conditions.get((JobName("a"), "Valid"), ("",))[0] == "False")
            assert place.desired.reasons() == ["InvalidManifest"]
            place.write("a.yml", "a")
            await place.until(lambda: not place.error("a.yml"))
            await place.until(lambda: place.desired.conditions[JobName("a"), "Valid"][0] == "True")
            assert place.desired.generation("a") == 1

    asyncio.run(check())


def test_a_deleted_file_takes_its_jobs_along_and_a_dropped_document_its_own(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a", "b")
        async with running(place):
            await place.until(lambda: place.desired.owner("b"))
            place.write("a.yml", "b")
            await place.until(lambda: not place.desired.owner("a"))
            assert place.desired.owner("b")
            path.unlink()
            await place.until(lambda: not place.desired.jobs)

    asyncio.run(check())


def test_files_deleted_while_other_jobs_are_being_deleted_take_their_jobs_along(place: Place) -> None:
    async def check() -> None:
        paths = [place.write(f"{number}.yml", f"job-{number}") for number in range(20)]
        place.desired.delete_seconds = 0.05  # all of them take longer than a file is waited for
        async with running(place):
            await place.until(lambda: len(place.desired.jobs) == len(paths))
            for path in paths[:10]:
                path.unlink()
            await asyncio.sleep(0.15)
            for path in paths[10:]:
                path.unlink()
            await place.until(lambda: not place.desired.jobs)

    asyncio.run(check())


def test_a_job_that_cannot_be_deleted_is_deleted_once_it_can(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_REOPEN_SECONDS", 0.05)  # the first pause before another try

    async def check() -> None:
        gone = place.write("a.yml", "a")
        place.write("b.yml", "b", "c")
        async with running(place):
            await place.until(lambda: place.desired.owner("a") and place.desired.owner("c"))
            place.desired.refuse_delete = "in use"
            gone.unlink()
            place.write("b.yml", "b")
            await place.until(lambda: place.desired.reasons().count("NotDeleted") == 2)
            await asyncio.sleep(0.5)
            assert place.desired.owner("a") and place.desired.owner("c")
            assert capsys.readouterr().out.count("not deleted") == 2  # each once, however often it is tried
            assert sorted((job, why) for job, reason, why in place.desired.events if reason == "NotDeleted") == [
                ("a", "the spool: in use"),
                ("c", "the spool: in use"),
            ]
            place.desired.refuse_delete = ""
            await place.until(lambda: not place.desired.owner("a") and not place.desired.owner("c"))

    asyncio.run(check())


def test_what_the_host_refuses_is_told_with_the_line_of_its_name(tmp_path: Path) -> None:
    class Strict(MemoryDesired):
        async def apply(
            self,
            manifests: Sequence[Manifest],
            source: Source | Mapping[JobName, Source],
            *,
            dry_run: bool = False,
            take_over: bool = False,
        ) -> list[ApplyResult]:
            raise NotAllowed("b", (Problem("spec.isolation.network", "not allowed", "ask"),))

    place = Place(tmp_path / "spool", Strict())

    async def check() -> None:
        place.write("x.yml", "a", "b")
        await place.spool.sync()
        lines = (place.path / "x.yml").read_text().splitlines()
        (line,) = [number for number, text in enumerate(lines, 1) if "name: b" in text]
        assert line > 1 and f"x.yml:{line}:" in (place.path / "status/x.yml.error.yml").read_text()

    asyncio.run(check())


def test_an_invalid_file_that_is_deleted_takes_its_jobs_along_too(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a"))
            path.write_text("x: [")
            await place.until(lambda: place.error("a.yml"))
            path.unlink()
            await place.until(lambda: not place.desired.jobs)
            await place.until(lambda: not place.error("a.yml"))

    asyncio.run(check())


def test_an_apply_that_is_refused_is_shown_and_tried_again(place: Place) -> None:
    async def check() -> None:
        place.write("a.yml", "a")
        place.desired.refuse = "the store is full"
        await place.spool.sync()
        assert "the store is full" in place.error("a.yml")
        place.desired.refuse = ""
        await place.spool.sync()
        assert place.desired.owner("a")
        assert place.error("a.yml") == ""

    asyncio.run(check())


def test_a_storm_of_changes_ends_in_what_the_directory_says(place: Place) -> None:
    async def check() -> None:
        async with running(place):
            for number in range(300):
                place.write(f"{number % 50}.yml", f"job-{number % 50}", command=f"[x, '{number}']")
                if number % 3 == 0:
                    (place.path / f"{number % 50}.yml").unlink()
                await asyncio.sleep(0)
            expected = {path.stem for path in place.path.glob("*.yml")}
            await place.until(lambda: {name.removeprefix("job-") for name in place.desired.jobs} == expected)
            for name in expected:
                text = (place.path / f"{name}.yml").read_text()
                await place.until(lambda n=f"job-{name}", t=text: f"'{place.last_argument(n)}'" in t)  # type: ignore[misc]

    asyncio.run(check())


def test_a_file_that_goes_while_many_others_are_applied_takes_its_jobs_along(tmp_path: Path) -> None:
    class Clock(SystemClock):
        """Stands but for what applies take: between a look and what follows from it a busy machine may take a while too."""

        passed = 0.0

        def boot_seconds(self) -> float:
            return self.passed

    class Slow(MemoryDesired):
        async def apply(
            self,
            manifests: Sequence[Manifest],
            source: Source | Mapping[JobName, Source],
            *,
            dry_run: bool = False,
            take_over: bool = False,
        ) -> list[ApplyResult]:
            clock.passed += 10
            return await super().apply(manifests, source, dry_run=dry_run, take_over=take_over)

    async def check() -> None:
        place.write("a.yml", "a")
        await place.spool.sync()
        (place.path / "a.yml").unlink()
        place.write("b.yml", "b")
        await place.spool.sync()
        assert place.desired.owner("a"), "it may come back under another name"
        await place.synced(lambda: not place.desired.owner("a"))
        assert place.desired.owner("b")

    clock = Clock()
    place = Place(tmp_path / "spool", Slow())
    place.spool = Spool(SpoolSettings(str(place.path), 30.0, OWNER), place.desired, clock=clock)
    asyncio.run(check())

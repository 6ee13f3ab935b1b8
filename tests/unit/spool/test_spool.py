"""The spool with real files and real inotify, before a desired state in memory."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from joblet.clock import SystemClock
from joblet.manifest import JobManifest, Manifest
from jobletd.model import ApplyResult, JobName, Source
from jobletd.sources.spool import Spool, SpoolSettings
from jobletd.sources.spool_files import SpoolUnavailable, is_manifest_name
from tests.unit.manifest.samples import manifest_text, raw
from tests.unit.spool.desired import MemoryDesired

OWNER = os.getuid()


class Place:
    """A spool directory with its desired state."""

    def __init__(self, path: Path, desired: MemoryDesired | None = None) -> None:
        self.path = path
        path.mkdir(mode=0o755, exist_ok=True)
        self.desired = desired or MemoryDesired()
        self.spool = Spool(SpoolSettings(str(path), 30.0, OWNER), self.desired, clock=SystemClock())

    def write(self, file: str, *names: str, command: str = "[x]") -> Path:
        path = self.path / file
        path.write_text("---\n".join(manifest_text(f"command: {command}", name) for name in names))
        path.chmod(0o644)
        return path

    def last_argument(self, name: str) -> str:
        manifest, _, _ = self.desired.jobs[JobName(name)]
        return (manifest.spec.command or ("",))[-1]

    def error(self, file: str) -> str:
        path = self.path / "status" / f"{file}.error.yml"
        return path.read_text() if path.exists() else ""

    async def until(self, condition: Callable[[], object], *, within: float = 5.0) -> float:
        """Wait until a condition holds; the seconds it took."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < within, (self.desired, list(self.path.rglob("*")))
            await asyncio.sleep(0.001)
        return time.monotonic() - started

    async def synced(self, condition: Callable[[], object]) -> None:
        """Synchronise without a watch until a condition holds."""
        started = time.monotonic()
        while True:
            await self.spool.sync()
            if condition():
                return
            assert time.monotonic() - started < 5.0, self.desired
            await asyncio.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "spool")


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[None]:
    task = asyncio.create_task(place.spool.run())
    await asyncio.sleep(0.05)  # not needed for correctness: lets the latencies below be those of a daemon at rest
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_a_dropped_file_is_applied_within_milliseconds(place: Place) -> None:
    async def check() -> None:
        async with running(place):
            times = []
            for number in range(10):
                place.write(f"{number}.yml", f"job-{number}")
                times.append(await place.until(lambda n=number: place.desired.owner(f"job-{n}")))  # type: ignore[misc]
                await asyncio.sleep(0.05)
            assert sorted(times)[5] < 0.045, times

    asyncio.run(check())


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


def test_an_unchanged_directory_is_neither_read_nor_applied_again(place: Place) -> None:
    async def check() -> None:
        place.write("a.yml", "a")
        await place.spool.sync()
        (place.path / "note.txt").write_text("x")
        for _ in range(5):
            await place.spool.sync()
        assert place.desired.applies == [("a",)]

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


def test_a_job_that_cannot_be_deleted_is_deleted_once_it_can(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    async def check() -> None:
        gone = place.write("a.yml", "a")
        place.write("b.yml", "b", "c")
        async with running(place):
            await place.until(lambda: place.desired.owner("a") and place.desired.owner("c"))
            place.desired.refuse_delete = "in use"
            gone.unlink()
            place.write("b.yml", "b")
            await asyncio.sleep(0.5)
            assert place.desired.owner("a") and place.desired.owner("c")
            assert capsys.readouterr().out.count("not deleted") == 2  # each once, however often it is tried
            place.desired.refuse_delete = ""
            await place.until(lambda: not place.desired.owner("a") and not place.desired.owner("c"))

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


def test_a_rename_that_looks_like_delete_and_create_restarts_nothing(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        async with running(place):
            await place.until(lambda: place.desired.owner("a"))
            text = path.read_text()
            path.unlink()
            await asyncio.sleep(0.08)
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
            assert await place.until(lambda: place.desired.owner("c")) < 1.0

    asyncio.run(check())


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_directory_that_others_may_write_is_refused_and_nothing_changes(place: Place, mode: int) -> None:
    async def check() -> None:
        place.write("a.yml", "a")
        await place.spool.sync()
        (place.path / "a.yml").unlink()
        place.path.chmod(mode)
        with pytest.raises(SpoolUnavailable, match="can be written by others"):
            await place.spool.sync()
        assert place.desired.owner("a")

    asyncio.run(check())


def test_a_directory_of_another_user_is_refused(place: Place) -> None:
    spool = Spool(SpoolSettings(str(place.path), 30.0, OWNER + 1), place.desired, clock=SystemClock())
    with pytest.raises(SpoolUnavailable, match=f"belongs to user {OWNER}"):
        asyncio.run(spool.sync())


def test_a_file_that_cannot_be_trusted_is_refused_with_the_reason(place: Place) -> None:
    async def check() -> None:
        place.write("w.yml", "a").chmod(0o664)
        outside = place.path.parent / "outside.yml"
        outside.write_text(manifest_text("command: [x]", "b"))
        (place.path / "l.yml").symlink_to(outside)
        os.mkfifo(place.path / "f.yml")
        (place.path / "d.yml").mkdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place.path / "s.yml"))
        (place.path / "big.yml").write_bytes(b"#" * ((16 << 20) + 1))
        await place.synced(lambda: all(place.error(f"{name}.yml") for name in ("w", "l", "f", "d", "s", "big")))
        assert "can be written by others than its owner (mode 0664)" in place.error("w.yml")
        assert "is a symbolic link" in place.error("l.yml")
        assert "is not a regular file" in place.error("f.yml")
        assert "is not a regular file" in place.error("d.yml")
        assert "cannot be opened" in place.error("s.yml")
        assert "is larger than 16 MiB" in place.error("big.yml")
        assert place.desired.jobs == {}
        assert set(place.desired.reasons()) == {"FileRefused"}
        (place.path / "w.yml").chmod(0o644)
        await place.synced(lambda: place.desired.owner("a"))
        assert place.error("w.yml") == ""

    asyncio.run(check())


@pytest.mark.parametrize("name", [b"\xff\xfe.yml", b"n" * 251 + b".yml"], ids=["not UTF-8", "as long as can be"])
def test_a_file_with_a_strange_name_is_refused_and_stops_nothing(place: Place, name: bytes) -> None:
    async def check() -> None:
        async with running(place):
            strange = place.path / os.fsdecode(name)
            strange.write_text("neither: this\n")
            await place.until(lambda: list((place.path / "status").glob("*.error.yml")))
            place.write("honest.yml", "honest")
            await place.until(lambda: place.desired.owner("honest"))
            strange.unlink()
            await place.until(lambda: not list((place.path / "status").glob("*.error.yml")))

    asyncio.run(check())


def test_a_file_of_another_user_is_refused(place: Place) -> None:
    async def check() -> None:
        path = place.write("a.yml", "a")
        os.chown(path, OWNER + 1, -1)
        await place.synced(lambda: place.error("a.yml"))
        assert f"belongs to user {OWNER + 1}" in place.error("a.yml")
        assert place.desired.jobs == {}

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
        passed = 0.0

        def boot_seconds(self) -> float:
            return super().boot_seconds() + self.passed

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


def test_a_writer_that_comes_while_the_lease_is_held_does_not_kill_the_daemon(tmp_path: Path) -> None:
    program = """
import fcntl, os, subprocess, sys, time
from jobletd.sources import spool_files
path = sys.argv[1]
open(path, "w").close()
fd = os.open(path, os.O_RDONLY)
real = fcntl.fcntl
writers = []
def slow(fd, command, argument=0):
    if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_UNLCK):
        writers.append(subprocess.Popen(["sh", "-c", 'echo x >> "$0"', path]))
        for _ in range(200):
            if b"x" in os.pread(fd, 10, 0) or open(f"/proc/{writers[0].pid}/wchan").read() not in ("", "0"):
                break
            time.sleep(0.005)
        time.sleep(0.2)
    return real(fd, command, argument)
fcntl.fcntl = slow
assert spool_files._is_open_for_writing(fd) is False
assert writers[0].wait(10) == 0
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "f")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.parametrize("name", ["a.yml", "b.yaml", "c.json", "last.json.yml", "x-1.yml"])
def test_manifest_names(name: str) -> None:
    assert is_manifest_name(name)


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.yml", "x.yml~", "#x.yml#", ".#x.yml", "x.yml.swp", ".x.yml.swp", "x.yaml.backup", "x.txt", "4913",
        "x.yml.bak", "~x.yml", "x.YML", "yml", ".yml", "x.swp.yml", "x.tmp.yml", "4913.yml",
    ],
)  # fmt: skip
def test_names_that_are_no_manifests(name: str) -> None:
    assert not is_manifest_name(name)

"""What of a spool directory is not trusted, and which names in it are no manifests."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from joblet.clock import SystemClock
from jobletd.sources.spool import Spool, SpoolSettings
from jobletd.sources.spool_files import SpoolUnavailable, is_manifest_name
from tests.unit.manifest.samples import manifest_text
from tests.unit.spool.place import OWNER, Place, running


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

"""An image that many use is attached to one loop device, whoever asks and whoever dies."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from joblet.sandbox import loop_device


@pytest.fixture
def image() -> Iterator[Path]:
    with TemporaryDirectory(prefix=f"joblet-test-{os.getpid()}-") as directory:
        path = Path(directory) / "image"
        with path.open("wb") as file:
            file.truncate(1 << 20)
        yield path


def test_it_is_attached_once_as_long_as_anybody_has_it_open(image: Path) -> None:
    first, device = loop_device.attach_once(str(image))
    second, same = loop_device.attach_once(str(image))
    try:
        assert device == same and device.startswith("/dev/loop")
    finally:
        os.close(first)
        os.close(second)
    with image.open("rb") as file:
        assert loop_device.find(file.fileno()) is None
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_renamed_image_is_found_and_one_of_the_same_name_is_another(image: Path) -> None:
    first, device = loop_device.attach_once(str(image))
    moved = image.with_name("moved")
    image.rename(moved)
    image.write_bytes(bytes(1 << 20))
    second, same = loop_device.attach_once(str(moved))
    third, other = loop_device.attach_once(str(image))
    try:
        assert same == device and other != device
    finally:
        for fd in (first, second, third):
            os.close(fd)


def test_the_lock_is_the_devices_and_outlives_the_process_that_attached_it(image: Path) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(loop_device.__file__).parents[2])!r})
from joblet.sandbox import loop_device
fd, device = loop_device.attach_once({str(image)!r})
print(device, flush=True)
sys.stdin.read()
os._exit(0)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        device = child.stdout.readline().decode().strip()
        fd, same = loop_device.attach_once(str(image))
        try:
            child.kill()
            child.wait()
            assert same == device
            with image.open("rb") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)


def test_an_image_that_a_stranger_locked_is_an_error(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_device, "ENDING_WITHIN_SECONDS", 0.0)
    with image.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="somebody else holds it locked"):
            loop_device.attach_once(str(image))

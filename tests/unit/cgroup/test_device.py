"""Which disk a path lies on, asked of the real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from joblet.cgroup import CgroupError, device_of


def test_a_path_in_memory_lies_on_no_disk() -> None:
    with pytest.raises(CgroupError, match=r"lies on no disk of this host but on (tmpfs|devtmpfs|proc|sysfs)"):
        device_of("/proc")


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match="No such file"):
        device_of(str(tmp_path / "none"))


def test_a_file_and_its_directory_lie_on_the_same_whole_disk(tmp_path: Path) -> None:
    try:
        device = device_of(str(tmp_path))
    except CgroupError as error:
        assert "no disk" in error.what  # noqa: PT017
        return
    (tmp_path / "file").touch()
    assert device_of(str(tmp_path / "file")) == device
    assert not Path(f"/sys/dev/block/{device}/partition").exists()

"""joblet backup into a directory of its own: read back before anything older goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobletd.backup import command
from jobletd.backup.archive import write_archive
from jobletd.backup.keeper import name_of
from jobletd.backup.making import Made, make_backup
from tests.integration.host import Ended
from tests.integration.joblet_command import joblet
from tests.unit.backup.root import Root

DAY_NS = 86_400 * 10**9


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def back_up(root: Root, *arguments: str | Path) -> Ended:
    return joblet("backup", "--config", root.config_path, *arguments)


def test_the_newest_stay_and_nothing_else_is_touched(root: Root, tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    directory.mkdir(0o700)
    names = [name_of(day * DAY_NS) for day in range(1, 6)]
    for name in (*names, "notes.txt"):
        (directory / name).write_text("x")
    assert back_up(root, "--directory", directory, "--keep", "3").status == 0
    left = sorted(path.name for path in directory.iterdir())
    assert left[:2] == names[3:] and left[3] == "notes.txt" and len(left) == 4


def test_one_that_cannot_be_read_back_goes_and_the_older_ones_stay(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "kept"
    directory.mkdir(0o700)
    old = directory / name_of(DAY_NS)
    write_archive(str(old), [], {})

    def on_a_bad_disk(*arguments: object) -> Made:
        made = make_backup(*arguments)  # type: ignore[arg-type]
        data = bytearray(Path(made.path).read_bytes())
        data[len(data) // 2] ^= 0xFF
        Path(made.path).write_bytes(data)
        return made

    monkeypatch.setattr(command, "make_backup", on_a_bad_disk)
    ended = back_up(root, "--directory", directory, "--keep", "1")
    assert ended.status == 1 and "is no whole backup" in ended.err
    assert list(directory.iterdir()) == [old]


@pytest.mark.parametrize("arguments", [["x", "--directory", "y"], ["--keep", "3"], ["x", "--keep", "3"]])
def test_retention_needs_a_directory_of_its_own(root: Root, arguments: list[str]) -> None:
    ended = back_up(root, *arguments)
    assert ended.status == 1 and "--directory" in ended.err

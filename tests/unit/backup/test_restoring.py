"""Backup and restore: all of it comes back, or nothing has changed."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from jobletd.backup import making, restoring
from jobletd.backup.errors import ArchiveDamaged, BackupError
from jobletd.backup.making import BackupOptions, make_backup
from jobletd.backup.restoring import refuse_cut_off, restore
from jobletd.backup.settling import marked
from jobletd.store import rows
from tests.unit.backup.root import Root

NOW_NS = 1_700_000_000 * 10**9


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def back_up(root: Root, *, secret_key: bool = False) -> str:
    target = str(root.path.parent / "archive")
    return make_backup(root.config, root.config_path, target, NOW_NS, BackupOptions(secret_key=secret_key)).path


def jobs(root: Root) -> list[str]:
    with closing(sqlite3.connect(root.database)) as connection:
        return [view.name for view in rows.load_jobs(connection)]


def test_everything_comes_back_on_a_machine_that_has_nothing(root: Root) -> None:
    archive = back_up(root)
    before = root.files()
    shutil.rmtree(root.path)
    done = restore(archive, None, {})
    after = root.files()
    assert done.jobs == 1 and done.aside == ()
    before.pop("state/joblet.db"), after.pop("state/joblet.db")
    assert after == before
    assert jobs(root) == ["report"]
    assert stat.S_IMODE(os.stat(root.config_path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(root.path / "config").st_mode) == 0o700
    with closing(sqlite3.connect(root.database)) as connection:
        put_back = marked(connection)
    assert put_back is not None and put_back.created_ns == NOW_NS


def test_what_was_there_before_is_kept_aside(root: Root) -> None:
    archive = back_up(root)
    (root.path / "spool/report.yml").write_text("two")
    (root.path / "spool/newer.yml").write_text("newer")
    config = Path(root.config_path)
    config.write_text(config.read_text() + "# changed\n")
    done = restore(archive, None, {})
    assert (root.path / "spool/report.yml").read_text() == "one"
    assert (root.path / "spool/newer.yml").read_text() == "newer"
    assert "# changed" not in config.read_text()
    kept = {file.name: file.read_bytes() for directory in done.aside for file in Path(directory).iterdir()}
    assert kept["report.yml"] == b"two"
    assert kept["joblet-config.yml"].endswith(b"# changed\n")
    assert "joblet.db" in kept


def test_the_configuration_can_be_left_as_it_is(root: Root) -> None:
    archive = back_up(root)
    config = Path(root.config_path)
    config.write_text(config.read_text() + "# changed\n")
    restore(archive, root.config_path, {}, keep_config=True)
    assert config.read_text().endswith("# changed\n")


def test_it_is_refused_while_the_daemon_runs(root: Root) -> None:
    archive = back_up(root)
    before = root.files()
    with (root.path / "run/joblet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BackupError, match="stop it first"):
            restore(archive, None, {})
    assert root.files() == before


def test_a_damaged_archive_changes_nothing(root: Root) -> None:
    archive = Path(back_up(root))
    before = root.files()
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ArchiveDamaged):
        restore(str(archive), None, {})
    assert root.files() == before


@pytest.mark.parametrize("step", range(12))
def test_whatever_step_fails_all_is_as_before(root: Root, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = back_up(root)
    (root.path / "spool/report.yml").write_text("two")
    before = root.files()
    count = 0
    rename = os.rename

    def failing(source: str, target: str, **places: int) -> None:
        nonlocal count
        count += 1
        if count == step + 1:
            raise OSError(5, "Input/output error", target)
        rename(source, target, **places)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        with pytest.raises(OSError, match="Input/output"):
            restore(archive, None, {})
    assert root.files() == before


def test_a_check_that_fails_rolls_back(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = back_up(root)
    before = root.files()

    def broken(*_: object) -> int:
        raise BackupError("no daemon would start on this")

    monkeypatch.setattr(restoring, "_check", broken)
    with pytest.raises(BackupError, match="no daemon"):
        restore(archive, None, {})
    assert root.files() == before


CUT_OFF = """
import os, sys, tempfile
from jobletd.backup import restoring
tempfile.tempdir = "/nonexistent"
restoring._check = lambda *_: os._exit(9)  # the process is gone with everything in its new place
restoring.restore(sys.argv[1], None, {})
"""


def test_a_restore_that_was_killed_is_undone_by_the_next_one_and_keeps_the_daemon_from_starting(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")  # nothing is unpacked there
    archive = back_up(root)
    (root.path / "spool/report.yml").write_text("two")
    before = root.files()
    cut_off = subprocess.run([sys.executable, "-c", CUT_OFF, archive], capture_output=True, text=True, check=False)
    assert cut_off.returncode == 9, cut_off.stderr
    assert (root.path / "spool/report.yml").read_text() == "one"
    with pytest.raises(BackupError, match="was cut off"):
        refuse_cut_off(root.config.state.directory)
    restoring.undo_cut_off(root.config.state.directory)
    refuse_cut_off(root.config.state.directory)
    assert any("/.joblet-restore-" in name for name in root.files())
    restoring.remove_unpacked(root.config.state.directory)  # as the daemon's next start does
    assert root.files() == before
    restoring.undo_cut_off(root.config.state.directory)  # once more changes nothing
    assert root.files() == before


def test_secrets_stay_sealed_unless_the_key_is_asked_for(root: Root) -> None:
    with closing(sqlite3.connect(root.database, isolation_level=None)) as connection:
        connection.execute("UPDATE resources SET secret = ?", (b'{"key": "abcd", "version": 1, "values": {}}',))
    key = root.path / "state/secret.key"
    key.write_text("0" * 64)
    key.chmod(0o600)
    archive = back_up(root)
    assert b"0" * 64 not in Path(archive).read_bytes()
    key.unlink()
    done = restore(archive, None, {})
    assert done.missing_keys == ("abcd",) and done.key_path == str(key)
    assert not key.exists()
    key.write_text("0" * 64)
    archive = back_up(root, secret_key=True)
    key.unlink()
    restore(archive, None, {})
    assert key.read_text() == "0" * 64


def test_a_backup_of_a_damaged_database_is_refused_and_the_earlier_one_stays(root: Root) -> None:
    archive = back_up(root)
    before = Path(archive).read_bytes()
    root.damage()
    with pytest.raises(BackupError):
        back_up(root)
    assert Path(archive).read_bytes() == before
    assert sorted(file.name for file in root.path.parent.iterdir()) == ["archive", "root"]


def test_a_backup_is_consistent_while_somebody_writes(root: Root) -> None:
    with closing(sqlite3.connect(root.database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM jobs")
        archive = back_up(root)
        writer.execute("COMMIT")
    assert jobs(root) == []
    restore(archive, None, {})
    assert jobs(root) == ["report"]


def test_the_administrators_units_come_back_and_the_packages_stays(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = {"etc": str(tmp_path / "etc"), "usr": str(tmp_path / "usr")}
    for module in (making, restoring):
        monkeypatch.setattr(module, "UNIT_DIRECTORIES", directories)
    drop_in, packaged = tmp_path / "etc/joblet.service.d/50-own.conf", tmp_path / "usr/joblet.service"
    for path in (drop_in, packaged):
        path.parent.mkdir(parents=True)
        path.write_text("[Service]\n")
        path.chmod(0o644)
    (tmp_path / "etc/joblet.service").symlink_to("/dev/null")  # masked
    archive = back_up(root)
    with tarfile.open(archive) as tar:
        names = [name for name in tar.getnames() if name.startswith("systemd/")]
    assert names == ["systemd/etc/joblet.service.d/50-own.conf", "systemd/usr/joblet.service"]
    drop_in.write_text("changed\n")
    packaged.write_text("newer\n")
    restore(archive, None, {})
    assert drop_in.read_text() == "[Service]\n" and stat.S_IMODE(drop_in.stat().st_mode) == 0o644
    assert packaged.read_text() == "newer\n"

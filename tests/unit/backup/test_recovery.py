"""A damaged database is set aside and the newest good backup takes its place, or the start is refused."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from joblet.clock import SystemClock
from jobletd.backup.journal import LaunchJournal
from jobletd.backup.keeper import BackupKeeper, backup_directory, kept, name_of, time_of
from jobletd.backup.making import make_backup
from jobletd.backup.recovery import open_store
from jobletd.store import StoreDamaged, StoreError
from tests.unit.backup.root import Root
from tests.unit.reconciler.stepped_clock import SteppedClock

HOUR = 3600 * 10**9
BEGIN_NS = 1_700_000_000 * 10**9


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def back_up(root: Root, ns: int) -> Path:
    directory = backup_directory(root.config)
    os.makedirs(directory, exist_ok=True)
    return Path(make_backup(root.config, root.config_path, f"{directory}/{name_of(ns)}", ns).path)


def jobs_after_start(root: Root) -> int:
    store = open_store(root.config, SystemClock())
    try:
        return int(store._connection.execute("SELECT count(*) FROM jobs").fetchone()[0])
    finally:
        store.close()


def aside(root: Root) -> list[Path]:
    return sorted((root.path / "state").glob("damaged-*"))


def test_the_newest_backup_takes_the_place_of_a_damaged_database_which_is_kept(root: Root) -> None:
    back_up(root, BEGIN_NS)
    root.damage()
    damaged = root.database.read_bytes()
    assert jobs_after_start(root) == 1
    (directory,) = aside(root)
    assert (directory / "joblet.db").read_bytes() == damaged


def test_a_backup_that_is_damaged_itself_is_passed_over(root: Root) -> None:
    back_up(root, BEGIN_NS)
    newer = back_up(root, BEGIN_NS + HOUR)
    newer.write_bytes(newer.read_bytes()[:2000])
    root.damage()
    assert jobs_after_start(root) == 1
    assert len(aside(root)) == 1


def test_without_a_backup_the_start_is_refused_with_what_to_do_and_nothing_is_touched(root: Root) -> None:
    root.damage()
    before = root.files()
    with pytest.raises(StoreDamaged, match=r"holds no backup.*joblet restore FILE.*move the database"):
        open_store(root.config, SystemClock())
    after = root.files()
    assert after["state/joblet.db"] == before["state/joblet.db"]
    assert not aside(root)


def test_a_database_that_is_gone_is_not_begun_anew_where_there_are_signs_of_it(root: Root) -> None:
    back_up(root, BEGIN_NS)
    root.database.unlink()
    assert jobs_after_start(root) == 1
    (root.path / "state/attempts/a-b-1").mkdir(parents=True)
    for backup in kept(backup_directory(root.config)):
        os.unlink(f"{backup_directory(root.config)}/{backup}")
    root.database.unlink()
    with pytest.raises(StoreError, match="is gone"):
        open_store(root.config, SystemClock())
    os.rmdir(root.path / "state/attempts/a-b-1")
    assert jobs_after_start(root) == 0  # of a root that never ran


@pytest.mark.parametrize("step", range(7))
def test_a_recovery_that_is_killed_at_any_moment_is_done_by_the_next_start(
    root: Root, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(root, BEGIN_NS)
    root.damage()
    (root.path / "state/joblet.db-wal").write_bytes(b"the log of the damaged one")
    damaged = root.database.read_bytes()
    count = 0

    class Killed(BaseException):
        """What no code of ours catches."""

    def dying(name: str) -> object:
        real = getattr(os, name)

        def call(*arguments: object, **keywords: object) -> object:
            nonlocal count
            count += 1
            if count == step + 1:
                raise Killed
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("mkdir", "link", "unlink", "rename"):
            patch.setattr(os, name, dying(name))
        with pytest.raises(Killed):
            open_store(root.config, SystemClock()).close()
    assert jobs_after_start(root) == 1
    assert any(file.read_bytes() == damaged for file in (root.path / "state").glob("damaged-*/joblet.db"))


def test_backups_are_made_when_due_and_the_newest_few_are_kept(root: Root) -> None:
    clock = SteppedClock()
    config = root.config.model_copy(
        update={"backup": root.config.backup.model_copy(update={"interval_seconds": 3600.0, "keep": 3})}
    )
    journal = LaunchJournal(f"{config.state.directory}/launches")
    journal.open(clock.now_ns)
    keeper = BackupKeeper(config, root.config_path, journal, clock)
    made = []
    for hour in range(6):
        assert keeper.is_due(), hour
        made.append(asyncio.run(keeper.back_up()).path)
        assert not keeper.is_due()
        clock.now_ns += HOUR
    directory = backup_directory(config)
    assert [f"{directory}/{name}" for name in kept(directory)] == made[-3:]
    oldest = time_of(kept(directory)[0])
    files = sorted(os.listdir(f"{config.state.directory}/launches"))
    assert int(files[0].removesuffix(".jsonl")) <= oldest  # nothing that a kept backup needs is gone
    assert len(files) == 3
    clock.now_ns -= 100 * HOUR
    assert keeper.is_due()  # the clock was set back: better one too many
    journal.close()


def test_names_tell_their_time() -> None:
    for ns in (0, 1, BEGIN_NS + 123_456_789):
        assert time_of(name_of(ns)) == ns or ns == 0
    assert time_of("other.joblet-backup") == 0

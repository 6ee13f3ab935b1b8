"""Daemon, launcher and init die at each of their crash points: after a restart all invariants hold, seen from outside."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from joblet.crash_points import VARIABLE
from jobletd.backup.archive import read_archive
from jobletd.store.migrations import MIGRATIONS
from tests.faults.asking import Caller
from tests.faults.crash_walk import WALKS, Ground, Keeper, check
from tests.faults.workload import JOURNAL_VOLUME
from tests.integration.host import BIN, Host, eventually, job_host
from tests.timing import PATIENCE
from tests.unit.notifying.receiver import listening

SOURCE = Path(__file__).parents[2]
BACKUP = ("backup.database-copied", "backup.archive-written")
CERTIFICATES = ("certificates.file-written", "certificates.in-force")
ELSEWHERE = {"daemon.migration-step-taken", *BACKUP, *CERTIFICATES}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    points = tmp_path_factory.mktemp("points")
    with (
        listening() as receiver,
        job_host(
            environment={VARIABLE: str(points)},
            configure=lambda config: config.update(hooks={"allowedWebhooks": [receiver.url]}),
        ) as host,
    ):
        keeper = Keeper(host)
        caller = Caller(host)
        caller.apply(JOURNAL_VOLUME)
        journal = host.root / "run/volumes/journal"
        eventually(journal.is_dir, what="the journal's volume")
        keeper.start()
        try:
            yield Ground(host, points, keeper, caller, receiver)
        finally:
            keeper.end()
            if host.daemon is None or host.daemon.poll() is not None:
                host.start()
            for name in ("journal", "shelf"):
                caller.delete(f"volume/{name}")
            eventually(lambda: not list(journal.parent.iterdir()), what="the volume to be gone")
            caller.channel.close()


@pytest.mark.parametrize("point", WALKS)
def test_everything_holds_after_a_death_at(ground: Ground, point: str) -> None:
    walk = WALKS[point]
    asked = walk.act(ground, point)
    check(ground, asked, loses=walk.loses)


def joblet(host: Host, *arguments: str | Path) -> int:
    """Run a command that can die at a crash point. Returns its exit status."""
    command = [BIN / "joblet", *arguments, "--config", host.config]
    environment = {**os.environ, **host.environment}
    return subprocess.run(command, env=environment, timeout=60 * PATIENCE, check=False).returncode


@pytest.mark.parametrize("point", BACKUP)
def test_a_backup_that_dies_is_whole_or_not_there(ground: Ground, tmp_path: Path, point: str) -> None:
    target, out = tmp_path / "archive", tmp_path / "out"
    out.mkdir()
    ground.arm(point)
    assert joblet(ground.host, "backup", target) == -9
    assert target.exists() == (point == "backup.archive-written")
    assert joblet(ground.host, "backup", target) == 0
    read_archive(str(target), str(out))


@pytest.mark.parametrize("point", CERTIFICATES)
def test_a_rotation_of_certificates_that_dies_needs_no_mending(ground: Ground, point: str) -> None:
    ground.arm(point)
    assert joblet(ground.host, "certs", "rotate") == -9
    assert ground.host.rnx("list").status == 0
    assert joblet(ground.host, "reload") == 0
    assert joblet(ground.host, "certs", "verify") == 0
    assert joblet(ground.host, "certs", "rotate") == 0
    assert ground.host.rnx("list").status == 0


def test_a_migration_goes_on_where_it_died(tmp_path: Path) -> None:
    database, points = tmp_path / "joblet.db", tmp_path / "points"
    points.mkdir()
    code = f"from jobletd.store import Store; Store.open({str(database)!r}).close()"

    def opened() -> int:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env={VARIABLE: str(points)}, timeout=60 * PATIENCE, check=False).returncode

    for step in range(len(MIGRATIONS)):
        (points / "daemon.migration-step-taken").touch()
        assert opened() == -9
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (step + 1,)
    assert opened() == 0
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_every_crash_point_in_the_source_is_walked() -> None:
    found: list[str] = []
    for directory in ("joblet", "reconciler", "cli"):
        for path in (SOURCE / directory).rglob("*.py"):
            if path.name != "crash_points.py":
                found += re.findall(r'\breached\("([^"]+)"\)', path.read_text())
    assert len(found) == len(set(found)), "each point has a name of its own"
    assert set(found) == WALKS.keys() | ELSEWHERE


def test_nothing_dies_without_the_variable(tmp_path: Path) -> None:
    (tmp_path / "daemon.committed").touch()
    code = "from joblet.crash_points import reached; reached('daemon.committed')"
    for environment, status in (({}, 0), ({VARIABLE: str(tmp_path)}, -9), ({VARIABLE: str(tmp_path)}, 0)):
        ended = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=SOURCE, timeout=60 * PATIENCE, check=False
        )
        assert ended.returncode == status

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
from tests.faults.crash_ground import Ground, check, made_ground, take
from tests.faults.crash_walk import CORE
from tests.faults.ledger import Asked
from tests.faults.surroundings_walk import NETWORKS, SURROUNDINGS
from tests.faults.workload import Kind, SoakJob
from tests.integration.host import BIN, Host, eventually
from tests.timing import PATIENCE

SOURCE = Path(__file__).parents[2]
BACKUP = ("backup.database-copied", "backup.archive-written")
CERTIFICATES = ("certificates.file-written", "certificates.in-force")
ON_A_CLUSTER = ("slurm.exit-fetched", "slurm.exit-at-home", "slurm.output-at-home")  # tests/slurm/test_remote.py
ELSEWHERE = {"daemon.migration-step-taken", *BACKUP, *CERTIFICATES, *ON_A_CLUSTER}
# What depends on the hierarchy of cgroups. A daemon's death costs eight seconds in the guest, and its files are the same there.
ON_V2 = {
    *("daemon.launched", "daemon.outcome-stored", "daemon.cgroup-removed", "daemon.leftovers-freed"),
    *(name for name in CORE if name.startswith(("launcher.", "init."))),
}
natively = pytest.mark.native_only(
    reason="it has nothing to do with cgroups, and a daemon takes long to start in the guest"
)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with made_ground(tmp_path_factory.mktemp("points")) as ground:
        yield ground


@pytest.mark.parametrize("point", [pytest.param(name, marks=() if name in ON_V2 else natively) for name in CORE])
def test_everything_holds_after_a_death_at(ground: Ground, point: str) -> None:
    take(ground, point, CORE[point])


@natively
def test_a_damaged_note_gives_no_range_of_ids_away(ground: Ground) -> None:
    """The name beside it still says whose the range is."""

    def first_id(job: SoakJob) -> str:
        (state,) = (ground.host.root / "state/attempts").glob(f"{job.name}-*/state")
        init = state.read_text().split()[1]
        children = Path(f"/proc/{init}/task/{init}/children")
        eventually(lambda: len(children.read_text().split()) == 1, what="the end of those who helped to start it")
        (command,) = children.read_text().split()
        return Path(f"/proc/{command}/uid_map").read_text().split()[1]

    jobs = [ground.job(kind=Kind.STOPPED) for _ in range(2)]
    ground.caller.apply(jobs[0].manifest())
    ground.reaches(jobs[0].name, "RUNNING")
    (notes,) = (ground.host.root / "state/attempts").glob(f"{jobs[0].name}-*/attempt.json")
    notes.write_bytes(bytes(notes.stat().st_size))
    assert ground.host.daemon is not None
    deaths = ground.keeper.deaths
    ground.host.daemon.kill()
    eventually(lambda: ground.keeper.deaths > deaths, what="the daemon's death to be seen")
    ground.caller.apply(jobs[1].manifest())
    ground.reaches(jobs[1].name, "RUNNING")
    assert first_id(jobs[0]) != first_id(jobs[1])
    stopped = [ground.caller.stop(job.name) for job in jobs]
    for job in jobs:
        ground.reaches(job.name, "STOPPED")
    check(ground, [Asked(job, 1, stopped=told) for job, told in zip(jobs, stopped, strict=True)], loses=False)


def joblet(host: Host, *arguments: str | Path) -> int:
    """Run a command that can die at a crash point. Returns its exit status."""
    command = [*host.within, BIN / "joblet", *arguments, "--config", host.config]
    environment = {**os.environ, **host.environment}
    return subprocess.run(command, env=environment, timeout=60 * PATIENCE, check=False).returncode


@natively
@pytest.mark.parametrize("point", BACKUP)
def test_a_backup_that_dies_is_whole_or_not_there(ground: Ground, tmp_path: Path, point: str) -> None:
    target, out = tmp_path / "archive", tmp_path / "out"
    out.mkdir()
    ground.arm(point)
    assert joblet(ground.host, "backup", target) == -9
    assert target.exists() == (point == "backup.archive-written")
    assert joblet(ground.host, "backup", target) == 0
    read_archive(str(target), str(out))


@natively
@pytest.mark.parametrize("point", CERTIFICATES)
def test_a_rotation_of_certificates_that_dies_needs_no_mending(ground: Ground, point: str) -> None:
    ground.arm(point)
    assert joblet(ground.host, "certs", "rotate") == -9
    assert ground.host.rnx("list").status == 0
    assert joblet(ground.host, "reload") == 0
    assert joblet(ground.host, "certs", "verify") == 0
    assert joblet(ground.host, "certs", "rotate") == 0
    assert ground.host.rnx("list").status == 0


@natively
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


@natively
def test_every_crash_point_in_the_source_is_walked() -> None:
    found: list[str] = []
    for directory in ("joblet", "reconciler", "cli"):
        for path in (SOURCE / directory).rglob("*.py"):
            if path.name != "crash_points.py":
                found += re.findall(r'\breached\("([^"]+)"\)', path.read_text())
    assert len(found) == len(set(found)), "each point has a name of its own"
    assert set(found) == {name.partition(" ")[0] for name in (*CORE, *SURROUNDINGS, *NETWORKS)} | ELSEWHERE


@natively
def test_nothing_dies_without_the_variable(tmp_path: Path) -> None:
    (tmp_path / "daemon.committed").touch()
    code = "from joblet.crash_points import reached; reached('daemon.committed')"
    for environment, status in (({}, 0), ({VARIABLE: str(tmp_path)}, -9), ({VARIABLE: str(tmp_path)}, 0)):
        ended = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=SOURCE, timeout=60 * PATIENCE, check=False
        )
        assert ended.returncode == status

"""Each earlier schema, with data in it, becomes the present one with the same data; a newer one is left alone."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from jobletd.model import Exited, JobView, Phase, Reason
from jobletd.store import Store, resource_rows, rows
from jobletd.store.migrations import MIGRATIONS
from tests.unit.store.earlier import ENDED_NS, make_database

LATEST = len(MIGRATIONS)


def load(path: Path) -> tuple[list[JobView], list[str]]:
    with closing(sqlite3.connect(path)) as connection:
        return rows.load_jobs(connection), [view.name for view in resource_rows.load_resources(connection)]


@pytest.mark.parametrize("version", range(1, LATEST + 1))
def test_what_a_daemon_of_an_earlier_schema_had_recorded_is_there(tmp_path: Path, version: int) -> None:
    path = tmp_path / "joblet.db"
    make_database(path, version)
    Store.open(str(path)).close()
    (job,), resources = load(path)
    assert (job.name, job.generation, str(job.source), job.conditions[0].reason) == (
        "report",
        2,
        "spool:report.yml",
        "Read",
    )
    (running,) = job.runs
    assert (running.phase, running.attempts[0].id, running.attempts[0].end) == (
        Phase.RUNNING,
        "report-run00002-1",
        None,
    )
    with closing(sqlite3.connect(path)) as connection:
        (ended,) = rows.load_runs(connection, f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE id = 'run00001'")
        assert connection.execute("SELECT expires_ns > ended_ns FROM runs WHERE id = 'run00001'").fetchone() == (1,)
        assert connection.execute("SELECT reason FROM events").fetchall() == [("Started",)]
    assert (ended.reason, ended.outcome, ended.ended_ns) == (Reason.EXIT_CODE, Exited(7), ENDED_NS)
    assert ended.attempts[0].limits[0].effective == "64Mi"
    assert resources == (["volume/data"] if version >= 3 else [])


def test_what_was_migrated_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "joblet.db"
    make_database(path, 1)
    Store.open(str(path)).close()
    (job,), _ = load(path)
    with closing(sqlite3.connect(path)) as connection:
        rows.put_job(connection, job)
        rows.put_run(connection, job.runs[0])
        rows.put_attempt(connection, job.runs[0].attempts[0])
        connection.commit()
    assert load(path)[0] == [job]


def test_an_older_joblet_refuses_a_newer_database_says_what_to_do_and_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "joblet.db"
    make_database(path, LATEST)
    before = path.read_bytes()
    program = (
        "import sys\n"
        "from jobletd.store import migrations, Store, StoreError\n"
        "migrations.MIGRATIONS = migrations.MIGRATIONS[:-1]\n"  # as the joblet of before had it
        f"try: Store.open({str(path)!r})\n"
        "except StoreError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert f"schema version {LATEST}, this joblet knows up to {LATEST - 1}" in said.stdout
    assert "install the version of joblet that wrote it" in said.stdout
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", range(1, LATEST))
def test_a_migration_that_is_killed_before_its_commit_begins_anew(tmp_path: Path, version: int) -> None:
    path = tmp_path / "joblet.db"
    make_database(path, version)
    # The process dies between the steps of the migration and its commit, by the last statement of its script.
    program = (
        "import os, signal\n"
        "from jobletd.store import migrations, store\n"
        f"last = migrations.MIGRATIONS[{version}]\n"
        f"migrations.MIGRATIONS = migrations.MIGRATIONS[:{version}] + (last + ' SELECT die();',)\n"
        f"connection = store.connect({str(path)!r})\n"
        "connection.create_function('die', 0, lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
        f"migrations.migrate(connection, {str(path)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    Store.open(str(path)).close()
    assert load(path)[0][0].name == "report"

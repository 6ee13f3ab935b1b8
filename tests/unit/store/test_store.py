"""The database: grouped commits that harm no neighbour, migrations, what is refused."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobletd.store import Store, StoreError, StoreFull
from jobletd.store.migrations import MIGRATIONS
from jobletd.store.store import check, connect
from tests.timing import PATIENCE

SETTING = (
    "INSERT INTO events (job, run_id, type, reason, message, count, first_ns, last_ns) VALUES (?,'','','','',1,0,0)"
)


def insert(job: str) -> Callable[[sqlite3.Connection], str]:
    def write(connection: sqlite3.Connection) -> str:
        connection.execute(SETTING, (job,))
        return job

    return write


def names(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [name for (name,) in connection.execute("SELECT job FROM events ORDER BY id")]
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "joblet.db"


def failure_now(store: Store) -> StoreError | None:
    return store.failure


def with_store(path: Path, work: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    store = Store.open(str(path))
    try:
        asyncio.run(work(store))
    finally:
        store.close()


def held(store: Store) -> tuple[Coroutine[Any, Any, bool], threading.Event]:
    """An operation that keeps the writer busy until the event is set, so that others gather behind it."""
    gate = threading.Event()
    return store.write(lambda _: gate.wait(10)), gate


def test_operations_that_come_during_a_commit_share_the_next_one(path: Path) -> None:
    async def work(store: Store) -> None:
        before = store.commits
        blocker, gate = held(store)
        first = asyncio.create_task(blocker)
        await asyncio.sleep(0)
        others = [asyncio.create_task(store.write(insert(f"job-{n}"))) for n in range(100)]
        await asyncio.sleep(0)
        gate.set()
        await first
        assert await asyncio.gather(*others) == [f"job-{n}" for n in range(100)]
        assert store.commits - before == 1
        assert names(path) == [f"job-{n}" for n in range(100)]

    with_store(path, work)


def test_an_operation_that_fails_undoes_itself_alone(path: Path) -> None:
    async def work(store: Store) -> None:
        def half(connection: sqlite3.Connection) -> None:
            connection.execute(SETTING, ("half",))
            connection.execute("INSERT INTO no_such_table VALUES (1)")

        def broken(connection: sqlite3.Connection) -> None:
            connection.execute(SETTING, ("broken",))
            raise ZeroDivisionError

        blocker, gate = held(store)
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(blocker)]
        await asyncio.sleep(0)
        operations: list[Callable[[sqlite3.Connection], Any]] = [insert("a"), half, insert("b"), broken, insert("c")]
        tasks += [asyncio.create_task(store.write(each)) for each in operations]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results[1:]] == [str, sqlite3.OperationalError, str, ZeroDivisionError, str]
        assert names(path) == ["a", "b", "c"]

    with_store(path, work)


def test_who_waits_for_a_write_is_told_after_it_is_on_disk(path: Path) -> None:
    async def work(store: Store) -> None:
        for number in range(20):
            await store.write(insert(str(number)))
            assert names(path)[-1] == str(number)

    with_store(path, work)


def test_a_commit_that_fails_fails_all_of_its_batch_and_the_next_one_works(path: Path) -> None:
    async def work(store: Store) -> None:
        def deferred(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            connection.execute(
                'INSERT INTO attempts (id, run_id, number, phase, created_ns, epoch, generation, limits, "end") '
                "VALUES ('a', 'nobody', 1, '', 0, '', 1, '[]', NULL)"
            )

        blocker, gate = held(store)
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(blocker)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(store.write(insert("a"))), asyncio.create_task(store.write(deferred))]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert [type(result) for result in results] == [StoreError, StoreError]
        await store.write(insert("b"))
        assert names(path) == ["b"]

    with_store(path, work)


def test_a_caller_that_is_cancelled_harms_nobody(path: Path) -> None:
    async def work(store: Store) -> None:
        blocker, gate = held(store)
        first = asyncio.create_task(blocker)
        await asyncio.sleep(0)
        gone = asyncio.create_task(store.write(insert("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        stays = asyncio.create_task(store.write(insert("stays")))
        await asyncio.sleep(0)
        gate.set()
        await first
        assert await stays == "stays"

    with_store(path, work)


def test_an_event_loop_that_ended_harms_nobody(path: Path) -> None:
    store = Store.open(str(path))
    gate = threading.Event()

    async def leave() -> None:
        waiting = asyncio.create_task(store.write(lambda _: gate.wait(10)))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())
    gate.set()
    assert asyncio.run(store.write(insert("a"))) == "a"
    store.close()
    assert names(path) == ["a"]


def test_what_was_asked_for_before_the_close_is_written_and_nothing_after(path: Path) -> None:
    async def work() -> None:
        store = Store.open(str(path))
        task = asyncio.create_task(store.write(insert("a")))
        await asyncio.sleep(0)
        store.close()
        assert await task == "a"
        with pytest.raises(StoreError, match="closed"):
            await store.write(insert("b"))

    asyncio.run(work())
    assert names(path) == ["a"]


def test_every_step_of_the_schema_leads_to_the_same_database(path: Path) -> None:
    Store.open(str(path)).close()
    for version in range(1, len(MIGRATIONS)):
        older = path.with_name(f"from-{version}.db")
        connection = sqlite3.connect(older)
        for number, step in enumerate(MIGRATIONS[:version], 1):
            connection.executescript(f"{step} PRAGMA user_version = {number};")
        connection.close()
        Store.open(str(older)).close()
        assert schema(older) == schema(path)
    assert schema(path)


def schema(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    try:
        query = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
        return [(name, " ".join(sql.split())) for name, sql in connection.execute(query)]
    finally:
        connection.close()


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    Store.open(str(path)).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="install the version of joblet") as caught:
        Store.open(str(path))
    assert caught.value.where == str(path)
    assert path.read_bytes() == content


def test_a_migration_that_fails_leaves_the_version_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(str(path)).close()
    before = schema(path), version_of(path)
    broken = (*MIGRATIONS, "CREATE TABLE fine (a INTEGER); INSERT INTO no_such_table VALUES (1);")
    monkeypatch.setattr("jobletd.store.migrations.MIGRATIONS", broken)
    with pytest.raises(StoreError):
        Store.open(str(path))
    assert (schema(path), version_of(path)) == before == (before[0], len(MIGRATIONS))


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_refused_with_what_to_do(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match="move") as caught:
        Store.open(str(path))
    assert caught.value.where == str(path)


def test_damage_is_found_at_the_start(path: Path) -> None:
    async def fill(store: Store) -> None:
        for number in range(500):
            await store.write(insert(f"a job with a rather long name, so that pages fill up {number}"))

    with_store(path, fill)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 3 * 4096)
        file.write(b"\xff" * 3 * 4096)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(str(path))


def test_the_look_for_damage_is_bounded_in_time_and_says_whether_it_saw_all(path: Path) -> None:
    Store.open(str(path)).close()
    connection = connect(str(path))
    try:
        connection.execute("BEGIN")
        connection.executemany(SETTING, ((f"a job with a rather long name {number}",) for number in range(200_000)))
        connection.execute("COMMIT")
        assert check(connection, str(path), seconds=60 * PATIENCE)
        assert not all(check(connection, str(path), seconds=milliseconds / 1000) for milliseconds in range(1, 100))
    finally:
        connection.close()


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    store = Store.open(str(path))
    try:
        full, mode = (
            store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
        )
        assert (full, mode) == (2, "wal")  # synchronous = FULL: the WAL is synced at each commit
    finally:
        store.close()


def test_a_thousand_operations_at_once_take_few_commits_and_all_are_there(path: Path) -> None:
    async def work(store: Store) -> None:
        before = store.commits
        blocker, gate = held(store)
        first = asyncio.create_task(blocker)
        await asyncio.sleep(0)
        others = [asyncio.create_task(store.write(insert(f"job-{n}"))) for n in range(1000)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *others)
        assert store.commits - before == 4
        assert len(names(path)) == 1000

    with_store(path, work)


def test_a_full_disk_refuses_changes_and_still_answers(path: Path) -> None:
    async def work(store: Store) -> None:
        await store.write(insert("before"))
        (pages,) = await store.read(lambda connection: connection.execute("PRAGMA page_count").fetchone())
        await store.read(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        filling = [asyncio.create_task(store.write(insert("x" * 3000))) for _ in range(20)]
        reading = asyncio.create_task(store.read(lambda connection: connection.execute("SELECT count(*) FROM events")))
        results = await asyncio.gather(*filling, return_exceptions=True)
        assert StoreFull in {type(result) for result in results}
        assert (await reading).fetchone()
        assert type(store.failure) is StoreFull
        assert "before" in await store.read(
            lambda connection: [row[0] for row in connection.execute("SELECT job FROM events")]
        )
        await store.read(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
        await store.write(insert("after"))
        assert failure_now(store) is None
        assert names(path)[-1] == "after"

    with_store(path, work)


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        Store.open(str(tmp_path / "missing" / "joblet.db"))


def test_nobody_else_can_read_the_database(path: Path) -> None:
    old_mask = os.umask(0)
    try:
        path.touch(0o644)

        async def work(store: Store) -> None:
            await store.write(insert("secret"))
            assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
                "joblet.db": 0o600,
                "joblet.db-wal": 0o600,
                "joblet.db-shm": 0o600,
            }

        with_store(path, work)
    finally:
        os.umask(old_mask)


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from jobletd.store import Store\n"
        f"store = Store.open({str(path)!r})\n"
        "async def main():\n"
        "    for number in range(10_000):\n"
        f"        await store.write(lambda c, n=number: c.execute({SETTING!r}, (str(n),)))\n"
        "        os.write(1, b'%d\\n' % number)\n"
        "        if number == 50: os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    acknowledged = result.stdout.split()
    assert len(acknowledged) == 51
    Store.open(str(path)).close()
    assert names(path)[: len(acknowledged)] == acknowledged

"""The database: one thread owns it; operations that come while a commit is under way share the next one.

An fsync costs as much for one operation as for a hundred, so under load the rate follows the load, not the disk. Each operation
has a savepoint of its own: one that fails undoes itself alone.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from joblet.crash_points import reached
from jobletd.store.migrations import StoreError, migrate

T = TypeVar("T")
BATCH = 256


@dataclass(frozen=True, slots=True)
class _Operation:
    function: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Store:
    """SQLite in WAL mode with synchronous=FULL: what ``write`` has returned survives a power cut."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = connect(path)
        self._operations: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._closed = False
        self.commits = 0

    @classmethod
    def open(cls, path: str) -> Self:
        """Open or make the database, check it, bring its schema up to date. Raises StoreError."""
        store = cls(path)
        try:
            check(store._connection, path)
            migrate(store._connection, path)
        except sqlite3.DatabaseError as error:
            store._connection.close()
            raise StoreError(
                f"the database is damaged: {error}", where=path, todo="move it away with its -wal and -shm files"
            ) from error
        except StoreError:
            store._connection.close()
            raise
        store._thread.start()
        return store

    async def write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``function`` inside a transaction; its result comes once that is durable. Its own errors are raised here.

        Who is cancelled while waiting does not undo it. Raises StoreError if it cannot be made durable.
        """
        if self._closed:
            raise StoreError("the database is closed", where=self._path)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._operations.put(_Operation(function, future, loop))
        return await future

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``function``, which changes nothing."""
        return await self.write(function)

    def close(self) -> None:
        """Finish what was asked for and close."""
        self._closed = True
        self._operations.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        while True:
            first = self._operations.get()
            if first is None:
                return
            batch = [first]
            ending = False
            while len(batch) < BATCH and not self._operations.empty():
                operation = self._operations.get()
                if operation is None:
                    ending = True
                    break
                batch.append(operation)
            self._run(batch)
            if ending:
                return

    def _run(self, batch: list[_Operation]) -> None:
        """One transaction for all; the answers go out after its commit."""
        answers: list[tuple[_Operation, Any, BaseException | None]] = []
        changes = self._connection.total_changes
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            answers.extend((operation, *self._run_one(operation)) for operation in batch)
            reached("daemon.committing")
            self._connection.execute("COMMIT")
            reached("daemon.committed")
            self.commits += self._connection.total_changes != changes
        except sqlite3.Error as error:  # the commit itself: nothing of the batch is durable
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            failure = StoreError(
                f"cannot be written: {error}", where=self._path, todo="check the disk's space and health"
            )
            answers = [(operation, None, failure) for operation in batch]
        for operation, result, problem in answers:
            _deliver(operation, result, problem)

    def _run_one(self, operation: _Operation) -> tuple[Any, BaseException | None]:
        self._connection.execute("SAVEPOINT operation")
        try:
            result = operation.function(self._connection)
        except Exception as error:  # handed to the caller
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            return None, error
        self._connection.execute("RELEASE operation")
        return result, None


def _deliver(operation: _Operation, result: Any, problem: BaseException | None) -> None:
    try:
        operation.loop.call_soon_threadsafe(_answer, operation.future, result, problem)
    except RuntimeError:
        return  # its event loop was closed: nobody waits any more, and this thread serves the others


def _answer(future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(result)
    else:
        future.set_exception(problem)


def connect(path: str) -> sqlite3.Connection:
    """A connection with our settings, to a file that only we can read: environments may hold secrets. Raises StoreError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)  # the -wal and -shm files get the same mode
        os.close(fd)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except (sqlite3.DatabaseError, OSError) as error:
        raise StoreError(
            f"cannot be opened as a database: {error}", where=path, todo="check its directory, or move the file away"
        ) from error
    return connection


def check(connection: sqlite3.Connection, path: str) -> None:
    """A quick look for damage. Raises StoreError."""
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise StoreError(
            f"the database is damaged: {answer}", where=path, todo="move it away with its -wal and -shm files"
        )

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
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import structlog

from joblet.crash_points import reached
from jobletd.metrics import instruments
from jobletd.store.errors import StoreDamaged, StoreError, StoreFull
from jobletd.store.migrations import migrate

T = TypeVar("T")
BATCH = 256
CHECK_SECONDS = 10.0  # of the look for damage at the start, however large the database is
log = structlog.get_logger("store")


@dataclass(frozen=True, slots=True)
class _Operation:
    function: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    reads: bool = False


class Store:
    """SQLite in WAL mode with synchronous=FULL: what ``write`` has returned survives a power cut."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = connect(path)
        self._operations: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._closed = False
        self.commits = 0
        self.failure: StoreError | None = None  # why the last commit failed, until one comes off

    @classmethod
    def open(cls, path: str) -> Self:
        """Open or make the database, check it, bring its schema up to date. Raises StoreError, StoreDamaged."""
        store = cls(path)
        try:
            check(store._connection, path)
            migrate(store._connection, path)
        except sqlite3.Error as error:
            store._connection.close()
            raise failure_of(error, path) from error
        except StoreError:
            store._connection.close()
            raise
        store._thread.start()
        return store

    async def write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``function`` inside a transaction; its result comes once that is durable. Its own errors are raised here.

        Who is cancelled while waiting does not undo it. Raises StoreError if it cannot be made durable.
        """
        return await self._ask(function, reads=False)

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``function``, which changes nothing: it gets its answer also where nothing can be written."""
        return await self._ask(function, reads=True)

    async def _ask(self, function: Callable[[sqlite3.Connection], T], *, reads: bool) -> T:
        if self._closed:
            raise StoreError("the database is closed", where=self._path)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._operations.put(_Operation(function, future, loop, reads))
        return await future

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
        started = time.perf_counter()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            answers.extend((operation, *self._run_one(operation)) for operation in batch)
            reached("daemon.committing")
            began = time.perf_counter()
            self._connection.execute("COMMIT")
            took = time.perf_counter() - began
            instruments.store_operations.inc(len(batch))
            reached("daemon.committed")
            if self._connection.total_changes != changes:
                self.commits += 1
                instruments.store_commit_duration.observe(took)
                instruments.store_transaction_duration.observe(began + took - started)
                self.failure = None
        except sqlite3.Error as error:  # the commit itself: nothing of the batch is durable
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self.failure = failure = failure_of(error, self._path)
            instruments.store_errors.inc()
            answers = [
                (operation, *self._read_alone(operation)) if operation.reads else (operation, None, failure)
                for operation in batch
            ]
        for operation, result, problem in answers:
            _deliver(operation, result, problem)

    def _read_alone(self, operation: _Operation) -> tuple[Any, BaseException | None]:
        """Outside of the transaction that failed: what only reads needs no room."""
        try:
            return operation.function(self._connection), None
        except Exception as error:  # handed to the caller
            return None, error

    def _run_one(self, operation: _Operation) -> tuple[Any, BaseException | None]:
        self._connection.execute("SAVEPOINT operation")
        try:
            result = operation.function(self._connection)
        except Exception as error:  # handed to the caller
            if not self._connection.in_transaction:  # SQLite gave all of it up, as on a full disk: all have failed
                raise
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            if isinstance(error, sqlite3.Error) and type(known := failure_of(error, self._path)) is not StoreError:
                self.failure = known
                return None, known
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
    except OSError as error:
        todo = "check its directory, or move the file away"
        raise StoreError(f"cannot be opened as a database: {error}", where=path, todo=todo) from error
    except sqlite3.Error as error:
        raise failure_of(error, path) from error
    return connection


def check(connection: sqlite3.Connection, path: str, *, seconds: float = CHECK_SECONDS) -> bool:
    """Look for damage, at most so long. Returns whether all was looked at. Raises StoreDamaged."""
    late = threading.Event()

    def end() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if not late.is_set() or error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        answer = ""
    finally:
        timer.cancel()
        timer.join()
    if late.is_set():
        log.warning("the database is too large to be checked whole at the start", path=path, seconds=seconds)
        return False
    if answer != "ok":
        raise damaged(answer, path)
    return True


def failure_of(error: sqlite3.Error, path: str) -> StoreError:
    """SQLite's error in our words."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the primary code
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(str(error), path)
        case sqlite3.SQLITE_FULL:
            return StoreFull(
                "the disk is full, nothing was changed", where=path, todo="make room on it, then try again"
            )
    return StoreError(f"cannot be used: {error}", where=path, todo="check the disk's space and health")


def damaged(what: str, path: str) -> StoreDamaged:
    return StoreDamaged(
        f"the database is damaged: {what}", where=path, todo="move it away with its -wal and -shm files"
    )

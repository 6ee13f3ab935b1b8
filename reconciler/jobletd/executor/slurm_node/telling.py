"""What a node's daemon tells about attempts that Slurm has run there: from the files that sandbox-exec has left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from jobletd.errors import NoSuchJob, WrongState
from jobletd.executor import LogQuery
from jobletd.executor.slurm_node.directories import NodeDirectories
from jobletd.executor.slurm_node.place import CLAIM, EXIT, STATE, USAGE, Place
from jobletd.executor.slurm_node.request import is_attempt_id
from jobletd.executor.slurm_node.sweeping import sweep
from jobletd.inotify import ChangeWatch
from jobletd.log_reader import BlockReader, read_log
from jobletd.model import LogEntry


class NoSuchAttempt(NoSuchJob):
    """Slurm has run no such attempt here, or it was forgotten."""


@dataclass(frozen=True, slots=True)
class Told:
    """One attempt. claim, state, usage, exit: the files, empty where there is none."""

    attempt_id: str
    claim: bytes
    state: bytes
    usage: bytes
    exit: bytes
    log_bytes: int


@dataclass(frozen=True, slots=True)
class LogBlock:
    """Bytes of a log. part, offset: where they stand in it; see ``BlockReader``. oldest: the first part that is still there."""

    part: int
    offset: int
    data: bytes
    oldest: int


class KeptAttempts:
    """Those of one node. Nothing is made before Slurm has run something there."""

    def __init__(self, directories: NodeDirectories) -> None:
        self._directories = directories

    async def told(self, attempt_ids: Iterable[str]) -> list[Told]:
        """Of those that are known; also of those that Slurm has killed meanwhile."""
        return await asyncio.to_thread(self._told, [name for name in attempt_ids if is_attempt_id(name)])

    def _told(self, attempt_ids: list[str]) -> list[Told]:
        if os.path.isdir(f"{self._directories.state}/live"):
            sweep(self._directories)
        places = {attempt_id: self._directories.kept(attempt_id) for attempt_id in attempt_ids}
        return [
            Told(
                attempt_id,
                claim=place.bytes_of(CLAIM),
                state=place.bytes_of(STATE),
                usage=b"" if place.has_ended else place.bytes_of(USAGE),
                exit=place.bytes_of(EXIT),
                log_bytes=place.log.size_bytes(),
            )
            for attempt_id, place in places.items()
            if os.path.isdir(place.directory)
        ]

    async def log(self, attempt_id: str, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        """Raises NoSuchAttempt."""
        place = self._known(attempt_id)
        number = int(attempt_id.rsplit("-", 1)[1])
        # Its exit.json lies beside the log: whoever waits for changes there sees it come.
        batches = read_log(place.log.path, query, has_ended=lambda: place.has_ended, ended=asyncio.Event())
        async for batch in batches:
            for entry in batch:
                entry.attempt = number
            yield batch

    async def log_blocks(self, attempt_id: str, part: int, offset: int, *, follow: bool) -> AsyncIterator[LogBlock]:
        """From a place on; with ``follow`` until it has ended. Raises NoSuchAttempt."""
        place = self._known(attempt_id)
        reader = BlockReader(place.log.path, part, offset)
        watch = ChangeWatch(place.directory)  # its exit.json comes there too
        try:
            while True:
                final = place.has_ended or not follow
                while data := reader.read():
                    yield LogBlock(reader.part, reader.offset - len(data), data, reader.oldest())
                    await asyncio.sleep(0)  # others want their turn
                if final:
                    return
                await watch.changed_or(asyncio.Event())
        finally:
            reader.close()
            watch.close()

    async def fence(self, attempt_id: str, by: str) -> tuple[bool, bytes]:
        """Claim it for nobody: whether that came off, and the claim there is. by: who wants it. Raises NoSuchAttempt, OSError."""
        if not is_attempt_id(attempt_id):
            raise NoSuchAttempt(attempt_id)
        place = self._directories.kept(attempt_id)

        def claim() -> tuple[bool, bytes]:
            self._directories.make()
            done = place.claim({"attempt_id": attempt_id, "node": None, "slurm_job_id": None, "by": by})
            return done, place.bytes_of(CLAIM)

        return await asyncio.to_thread(claim)

    async def forget(self, attempt_id: str) -> None:
        """Raises WrongState while it may run."""
        if is_attempt_id(attempt_id):
            await asyncio.to_thread(self._forget, attempt_id)

    def _forget(self, attempt_id: str) -> None:
        if os.path.isdir(self._directories.live(attempt_id)):
            raise WrongState("has not ended here", where=attempt_id, todo="end it by scancel first")
        self._directories.kept(attempt_id).forget()

    def _known(self, attempt_id: str) -> Place:
        place = self._directories.kept(attempt_id)
        if not is_attempt_id(attempt_id) or not os.path.isdir(place.directory):
            raise NoSuchAttempt(attempt_id)
        return place

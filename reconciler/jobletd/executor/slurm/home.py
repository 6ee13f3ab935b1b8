"""What this host has of attempts whose nodes share no directory with it: copies, in the files that a shared directory would have.

So whoever reads them need not know. Beside them ``debt.json`` is there from the first word of a node about an attempt until the
output is here and the node has removed its own: by it an interrupted fetch goes on, also in another daemon.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from joblet.api.v1 import slurm_node_pb2
from joblet.atomicfile import write_atomic
from joblet.crash_points import reached
from jobletd.executor.slurm.records import DEBT, read_json
from jobletd.executor.slurm_node.place import CLAIM, EXIT, LOG, STATE, USAGE, Place
from jobletd.log_reader import LogFiles


@dataclass(slots=True)
class Debt:
    """What a node still has for us. has_output: it is here, only the node does not know yet. since: seconds since the epoch.

    silent_since, fails_since: of a clock that only goes on, while the node does not answer, or its log does not come.
    """

    node: str
    since: float
    has_output: bool = False
    silent_since: float | None = None
    fails_since: float | None = None

    def write(self, directory: str) -> None:
        """Raises OSError. It outlives a power cut, or the output of an end that is here would never be asked for."""
        document = {"node": self.node, "since": self.since, "has_output": self.has_output}
        write_atomic(f"{directory}/{DEBT}", json.dumps(document).encode(), durable=True)

    @classmethod
    def read(cls, directory: str) -> Debt | None:
        """None if there is none, or only a part of it. Raises OSError."""
        data = read_json(f"{directory}/{DEBT}")
        try:
            return None if data is None else cls(str(data["node"]), float(data["since"]), bool(data["has_output"]))
        except (KeyError, TypeError, ValueError):
            return None


def settled(directory: str) -> None:
    """The node has nothing for us any more."""
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/{DEBT}")


def has_end(directory: str) -> bool:
    return os.path.exists(f"{directory}/{EXIT}")


def store(directory: str, node: str, told: slurm_node_pb2.NodeAttempt, *, with_end: bool) -> int:
    """What is not here yet of what a node tells. with_end: it is not known how it ended. Returns how much of its log is here.

    In a thread. Raises OSError.
    """
    if not os.path.exists(f"{directory}/{CLAIM}"):
        # That the node knows it says that somebody has claimed it, be the claim itself torn by a power cut.
        claim = told.claim or json.dumps({"attempt_id": told.attempt_id, "node": node, "slurm_job_id": ""}).encode()
        write_atomic(f"{directory}/{CLAIM}", claim, durable=False)  # the node tells it again
    if with_end and told.state and not os.path.exists(f"{directory}/{STATE}"):
        write_atomic(f"{directory}/{STATE}", told.state, durable=False)
    if with_end and told.usage and Place(directory).bytes_of(USAGE) != told.usage:
        write_atomic(f"{directory}/{USAGE}", told.usage, durable=False)  # most looks find the note that is here
    if with_end and told.exit and not has_end(directory):
        reached("slurm.exit-fetched")
        write_atomic(f"{directory}/{EXIT}", told.exit, durable=True)
        reached("slurm.exit-at-home")
    return LogFiles(f"{directory}/{LOG}").size_bytes()


def is_begun(claim: bytes) -> bool:
    """Whether a job of Slurm's has claimed it, and nobody in its place. claim: the file, maybe torn."""
    try:
        document: Any = json.loads(claim)
    except (ValueError, RecursionError):
        return True
    return not (isinstance(document, dict) and "node" in document and document["node"] is None)


class LogCopy:
    """The copy of an attempt's log, in parts as on its node: each part keeps its number, so that the copy tells where it ends.

    Every method is for a thread, and raises OSError; FileNotFoundError if the attempt was removed meanwhile.
    """

    def __init__(self, directory: str) -> None:
        self._files = LogFiles(f"{directory}/{LOG}")

    def position(self) -> tuple[int, int]:
        """Where it goes on: a part's number, and the place in it."""
        rotated = self._files.rotated()
        try:
            size = os.path.getsize(self._files.path)
        except FileNotFoundError:
            size = 0
        return rotated[-1] + 1 if rotated else 1, size

    def add(self, block: slurm_node_pb2.FetchAttemptLogResponse) -> None:
        part, size = self.position()
        if block.part > part:
            self._begin(part, block.part)
            size = 0
        elif block.part < part:
            return  # had before
        data = memoryview(block.data)[max(size - block.offset, 0) :]
        with open(self._files.path, "ab", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            while data:
                data = data[file.write(data) :]
        for number in self._files.rotated():
            if number < block.oldest_part and number < block.part - 1:
                os.unlink(self._files.segment(number))

    def _begin(self, before: int, part: int) -> None:
        """Another part. An empty one just before it holds its number, where those before it were gone when we came."""
        with suppress(FileNotFoundError):
            os.rename(self._files.path, self._files.segment(before))
        if not os.path.exists(self._files.segment(part - 1)):
            with open(self._files.segment(part - 1), "xb"):
                pass

    def sync(self) -> None:
        """All of it is to outlive a power cut."""
        paths = [self._files.segment(number) for number in self._files.rotated()]
        for path in [*paths, self._files.path, self._files.directory]:
            with suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

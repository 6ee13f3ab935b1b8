"""The launch journal: what was launched since the last backups, in files beside the database.

If the database is lost, a backup says what was desired then; the journal says what has been launched since, so that none of it
is launched again. A line is written after the intent is durable and before the launch. It is not synced: it outlives the
daemon, not the power; then the attempts' directories tell what they can.

A new file begins with each backup; files that no kept backup needs any more are removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from joblet.manifest import manifest_from_json, manifest_to_json
from jobletd.model import Attempt, AttemptId, JobName, JobView, Phase, Run, RunId, Source

SUFFIX = ".jsonl"
ROTATE_BYTES = 64 << 20  # then a backup is due, whenever the last one was


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt that was about to be launched, with its job and run as they were. The run has that attempt alone.

    array: the run that it is an index of, as it began.
    """

    written_ns: int
    job: JobView
    run: Run
    array: Run | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """A job that went away."""

    written_ns: int
    name: JobName
    uid: str


Entry = Launch | Removal


class LaunchJournal:
    """One directory of journal files, the last of which is written."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1
        self._told: set[str] = set()  # digests of the manifests that are in the file already
        self.bytes = 0

    def open(self, now_ns: int) -> None:
        """Begin a file. Raises OSError."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        self.rotate(now_ns)

    def rotate(self, now_ns: int) -> None:
        """Begin another file. Raises OSError, and goes on with the old one then."""
        path = f"{self._directory}/{now_ns:020d}{SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.close()
        self._fd, self._told, self.bytes = fd, set(), os.fstat(fd).st_size

    def drop_before(self, ns: int) -> None:
        """Remove files that have nothing of that time or later. Raises OSError."""
        names = journal_files(self._directory)
        for name, following in pairwise(names):
            if begin_ns(following) <= ns:
                os.unlink(f"{self._directory}/{name}")

    def launching(self, view: JobView, run: Run, attempt: Attempt, now_ns: int, *, array: Run | None = None) -> None:
        """view: the job's, also if the run is one of an index of that array. Raises OSError: then it must not be launched."""
        lines: list[dict[str, Any]] = []
        job_digest = self._digest(manifest_to_json(view.manifest), lines)
        manifest = run.manifest if array is None else array.manifest
        run_digest = job_digest if manifest is view.manifest else self._digest(manifest_to_json(manifest), lines)
        told = {job_digest, run_digest}
        line = {
            "type": "launch",
            "ns": now_ns,
            "job": [view.uid, str(view.source), view.generation, view.created_ns, view.updated_ns, job_digest],
            "run": [run.id, run.generation, run.trigger, run.created_ns, run_digest],
            "attempt": [attempt.id, attempt.number, attempt.created_ns, attempt.epoch, attempt.generation],
        }
        if array is not None:
            marks = self._digest(array.marks, lines)
            told.add(marks)
            line["array"] = [array.id, array.created_ns, array.tick_seconds, marks, run.job, run.index]
        self._append([*lines, line])
        self._told |= told

    def removed(self, view: JobView, now_ns: int) -> None:
        """Raises OSError."""
        self._append([{"type": "removal", "ns": now_ns, "name": view.name, "uid": view.uid}])

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _digest(self, text: str, lines: list[dict[str, Any]]) -> str:
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        if digest not in self._told:
            lines.append({"type": "manifest", "digest": digest, "text": text})
        return digest

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        """One write: what of it a full disk cuts off is no line, and the next one begins after a newline of its own."""
        data = b"".join(b"\n" + json.dumps(line, separators=(",", ":")).encode() for line in lines) + b"\n"
        written = os.write(self._fd, data)
        self.bytes += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._directory)


def read_journal(directory: str, since_ns: int) -> Iterator[Entry]:
    """What was written since then, in order; lines that are not whole are passed over. Raises OSError."""
    names = journal_files(directory)
    for place, name in enumerate(names):
        if place + 1 < len(names) and begin_ns(names[place + 1]) <= since_ns:
            continue
        manifests: dict[str, str] = {}
        with open(f"{directory}/{name}", "rb") as file:
            for line in file:
                with suppress(ValueError, KeyError, TypeError):
                    entry = _entry_of(json.loads(line), manifests)
                    if entry is not None and entry.written_ns >= since_ns:
                        yield entry


def journal_files(directory: str) -> list[str]:
    """Oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdecimal())


def begin_ns(name: str) -> int:
    return int(name.removesuffix(SUFFIX))


def _entry_of(data: dict[str, Any], manifests: dict[str, str]) -> Entry | None:
    match data["type"]:
        case "manifest":
            manifests[data["digest"]] = data["text"]
            return None
        case "removal":
            return Removal(data["ns"], JobName(data["name"]), data["uid"])
        case "launch":
            return _launch_of(data, manifests)
    return None


def _launch_of(data: dict[str, Any], manifests: dict[str, str]) -> Launch:
    uid, source, generation, created_ns, updated_ns, digest = data["job"]
    view = JobView(
        uid=uid,
        manifest=manifest_from_json(manifests[digest]),
        source=Source.parse(source),
        generation=generation,
        observed_generation=generation,
        created_ns=created_ns,
        updated_ns=updated_ns,
    )
    run_id, run_generation, trigger, run_created_ns, run_digest = data["run"]
    attempt_id, number, attempt_created_ns, epoch, attempt_generation = data["attempt"]
    attempt = Attempt(
        id=AttemptId(attempt_id),
        run_id=RunId(run_id),
        number=number,
        phase=Phase.INITIALIZING,
        created_ns=attempt_created_ns,
        epoch=epoch,
        generation=attempt_generation,
    )
    run = Run(
        id=RunId(run_id),
        job=view.name,
        job_uid=uid,
        generation=run_generation,
        trigger=trigger,
        phase=Phase.INITIALIZING,
        manifest=manifest_from_json(manifests[run_digest]),
        created_ns=run_created_ns,
        attempts=(attempt,),
    )
    if "array" not in data:
        return Launch(data["ns"], replace(view, runs=(run,)), run)
    array_id, array_created_ns, tick_seconds, marks_digest, name, index = data["array"]
    array = replace(
        run,
        id=RunId(array_id),
        phase=Phase.RUNNING,
        created_ns=array_created_ns,
        started_ns=run_created_ns,
        tick_seconds=tick_seconds,
        marks=manifests[marks_digest],
        attempts=(),
    )
    run = replace(run, job=JobName(name), job_uid=array_id, tick_seconds=tick_seconds, index=index)
    return Launch(data["ns"], replace(view, runs=(array,)), run, array)

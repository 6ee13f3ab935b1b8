"""What really happened, from outside: the jobs' journal, their logs as files, the database; and whether it adds up."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobletd.executor.local.volume_image import mount_image
from tests.faults.workload import Kind, SoakJob, Way
from tests.integration.host import Host

FINAL_EVENTS = ("Completed", "Failed", "Stopped")
# How a run may be stopped, by the kind of its job; None: nobody stops it.
STOPS = {
    **{Kind.STOPPED: "Stopped", Kind.SUPERSEDED: "Superseded", Kind.DELETED: "Deleted", Kind.SERVICE: "Deleted"},
}
ATTEMPTS_KEPT = 20


@dataclass
class Journal:
    """What the jobs themselves wrote. Keys: (run, attempt's number)."""

    begins: Counter[tuple[str, int]] = field(default_factory=Counter)
    ends: Counter[tuple[str, int]] = field(default_factory=Counter)
    overlaps: list[str] = field(default_factory=list)

    @classmethod
    def take(cls, host: Host) -> Journal:
        """Read it, and have the jobs to come begin another."""
        journal = cls()
        with volume_of_journal(host) as directory:
            path = directory / "journal"
            journal.read(path.read_text() if path.exists() else "")
            for left in directory.glob("*"):
                if left.name == "journal" or left.name.startswith("lock-"):
                    left.unlink()
        return journal

    def read(self, text: str) -> None:
        for line in text.splitlines():
            word, job, run, attempt = line.split()
            match word:
                case "begin":
                    self.begins[run, int(attempt)] += 1
                case "end":
                    self.ends[run, int(attempt)] += 1
                case _:
                    self.overlaps.append(f"{job}: {run} attempt {attempt} began while another of its job ran")


@contextmanager
def volume_of_journal(host: Host) -> Iterator[Path]:
    """What the jobs see of it: the tmpfs itself, or, where the kernel cannot map the ids of one, the image that lies in it."""
    directory = host.root / "run/volumes/journal"
    image = directory / "data/volume.img"
    if not image.exists():
        yield directory
        return
    mount_fd = mount_image(str(image))
    try:
        yield Path(f"/proc/self/fd/{mount_fd}")
    finally:
        os.close(mount_fd)


@dataclass(frozen=True)
class AttemptRow:
    """One attempt on record."""

    number: int
    id: str
    end: dict[str, Any] | None

    @property
    def outcome(self) -> dict[str, Any]:
        outcome: dict[str, Any] = json.loads(self.end["outcome"]) if self.end else {}
        return outcome

    @property
    def lost(self) -> bool:
        return self.outcome.get("type") == "unknown"


@dataclass(frozen=True)
class RunRow:
    """One run on record. final_events: how often its end was told."""

    id: str
    job: str
    generation: int
    phase: str
    reason: str
    final_events: int
    attempts: list[AttemptRow]


@dataclass(frozen=True)
class Asked:
    """What the client knows of one job. generation: the highest acknowledged. stopped: the stop was acknowledged;
    deleted: so was the delete, or the file is gone."""

    job: SoakJob
    generation: int
    stopped: bool = False
    deleted: bool = False


def runs_on_record(host: Host, prefix: str) -> dict[str, list[RunRow]]:
    """By job, oldest first, of all jobs with that prefix: also those of deleted ones."""
    with closing(sqlite3.connect(f"file:{host.root}/state/joblet.db?mode=ro", uri=True)) as database:
        attempts: dict[str, list[AttemptRow]] = {}
        query = 'SELECT run_id, number, id, "end" FROM attempts WHERE id GLOB ? ORDER BY number'
        for run, number, name, end in database.execute(query, (f"{prefix}*",)):
            attempts.setdefault(run, []).append(AttemptRow(number, name, json.loads(end) if end else None))
        marks = ", ".join("?" * len(FINAL_EVENTS))
        query = f"SELECT run_id, sum(count) FROM events WHERE job GLOB ? AND reason IN ({marks}) GROUP BY run_id"
        ended = dict(database.execute(query, (f"{prefix}*", *FINAL_EVENTS)))
        found: dict[str, list[RunRow]] = {}
        query = "SELECT id, job, generation, phase, reason FROM runs WHERE job GLOB ? ORDER BY created_ns, rowid"
        for run, job, generation, phase, reason in database.execute(query, (f"{prefix}*",)):
            row = RunRow(run, job, generation, phase, reason or "", ended.get(run, 0), attempts.get(run, []))
            found.setdefault(job, []).append(row)
        return found


def log_of(host: Host, job: str, attempt: str) -> bytes:
    """What an attempt wrote, from its log file: CRI lines, without their stamps."""
    path = host.root / "log" / job / f"{attempt.removeprefix(f'{job}-')}.log"
    if not path.exists():
        return b""
    output = bytearray()
    for line in path.read_bytes().splitlines():
        _, _, tag, text = line.split(b" ", 3)
        output += text + (b"\n" if tag == b"F" else b"")
    return bytes(output)


class Audit:
    """Compares what was asked with what happened; ``wrong`` says in words what does not add up."""

    def __init__(self, host: Host, journal: Journal, victims: set[str]) -> None:
        self.host = host
        self.journal = journal
        self.victims = victims
        self.wrong: list[str] = list(journal.overlaps)
        self.counts: Counter[str] = Counter()

    def check(self, asked: list[Asked], prefix: str) -> None:
        runs = runs_on_record(self.host, prefix)
        known = {(run.id, attempt.number) for rows in runs.values() for run in rows for attempt in run.attempts}
        services = {run.id for one in asked if one.job.kind is Kind.SERVICE for run in runs.get(one.job.name, ())}
        for run_id, number in self.journal.begins:
            if (run_id, number) not in known and run_id not in services:
                self.wrong.append(f"run {run_id} attempt {number} ran, and is not on record")
        for key, count in self.journal.begins.items():
            if count > 1:
                self.wrong.append(f"run {key[0]} attempt {key[1]} was launched {count} times")
        self.counts["commands launched"] += self.journal.begins.total()
        for one in asked:
            self.wrong += [f"{one.job.name} ({one.job.way}, {one.job.kind}): {what}" for what in self.job(one, runs)]
        if strangers := runs.keys() - {one.job.name for one in asked}:
            self.wrong.append(f"runs of jobs that nobody asked for: {sorted(strangers)[:5]}")

    def job(self, one: Asked, runs: dict[str, list[RunRow]]) -> Iterator[str]:
        """One run a generation, each of them in order."""
        rows = runs.get(one.job.name, [])
        wanted = [1, 2] if one.job.kind is Kind.SUPERSEDED and one.generation == 2 else [1]
        if one.job.kind is Kind.RESIZED:
            # Changed while it ran: the same run. Changed after it was over and had failed: a new one.
            wanted = [one.generation] if len(rows) < 2 else [1, 2]
        have = [run.generation for run in rows]
        if not have and one.deleted and one.job.way is Way.SPOOL:
            return  # its file was gone before anybody saw it
        if have != wanted and not (one.job.kind is Kind.RESIZED and have == [1]):
            yield f"has runs of generations {have}, not {wanted}"
            return
        for place, run in enumerate(rows):
            self.counts["runs"] += 1
            for what in self.run(one, run, superseded=place < len(rows) - 1):
                yield f"run {run.id}: {what}"

    def run(self, one: Asked, run: RunRow, *, superseded: bool) -> Iterator[str]:
        job = one.job
        if run.phase not in ("COMPLETED", "FAILED", "STOPPED"):
            yield f"is {run.phase}"
            return
        if run.final_events != 1:
            yield f"its end was told {run.final_events} times"
        numbers = [attempt.number for attempt in run.attempts]
        if numbers != list(range(1, len(numbers) + 1)) and len(numbers) < ATTEMPTS_KEPT:
            yield f"attempts {numbers}"
        if job.kind is not Kind.SERVICE and len(numbers) > job.retries + 1:
            yield f"{len(numbers)} attempts, {job.retries + 1} are allowed"
        stop = STOPS.get(job.kind) if job.kind is not Kind.SUPERSEDED or superseded else None
        for attempt in run.attempts:
            self.counts["attempts"] += 1
            generation = 1 if superseded or job.kind is not Kind.SUPERSEDED else 2
            for what in self.attempt(job, run, attempt, generation, stop):
                yield f"attempt {attempt.number}: {what}"
        yield from self.run_end(one, run, stop)

    def run_end(self, one: Asked, run: RunRow, stop: str | None) -> Iterator[str]:
        """What the run's end has to do with its last attempt's."""
        if run.phase == "STOPPED":
            if run.reason != stop:
                yield f"is STOPPED because of {run.reason}"
            return
        if not run.attempts:
            yield f"is {run.phase} without an attempt"
            return
        last = run.attempts[-1]
        if run.phase == "COMPLETED" and last.outcome != {"type": "exited", "code": 0}:
            yield f"is COMPLETED after {last.outcome}"
        if run.phase == "FAILED" and last.outcome == {"type": "exited", "code": 0}:
            yield "is FAILED after exit code 0"
        if run.phase == "FAILED" and last.number <= one.job.retries:
            yield f"is FAILED with {one.job.retries + 1 - last.number} retries left"
        if stop == "Stopped" and one.stopped:
            yield f"its stop was acknowledged, and it is {run.phase}"

    def attempt(
        self, job: SoakJob, run: RunRow, attempt: AttemptRow, generation: int, stop: str | None
    ) -> Iterator[str]:
        key = (run.id, attempt.number)
        begins, ends = self.journal.begins[key], self.journal.ends[key]
        written = log_of(self.host, job.name, attempt.id)
        whole = job.output(attempt.number)
        self.counts["bytes of output"] += len(written)
        outcome = attempt.outcome
        endless = not job.ends_by_itself and job.kind is not Kind.SERVICE and generation == 1
        match outcome.get("type"):
            case "exited":
                self.counts["exited"] += 1
                if endless or outcome["code"] != job.exit_code(attempt.number):
                    yield f"exit code {outcome['code']} on record, {job.exit_code(attempt.number)} was given"
                if (begins, ends) != (1, 1):
                    yield f"exited, and said {begins} times that it began and {ends} times that it was through"
                if written != whole:
                    yield f"exited, and {len(written)} of its {len(whole)} bytes of output are there"
            case "killed":
                self.counts["killed"] += 1
                reason = attempt.end["reason"] if attempt.end else ""
                if job.kind is not Kind.TIMED_OUT and stop is None:
                    yield f"killed by {outcome['signal']}, and nobody did"
                if job.kind is Kind.TIMED_OUT and reason != "TimedOut":
                    yield f"killed because of {reason}"
            case "unknown":
                self.counts["lost"] += 1
                never = "never started" in outcome["why"] and stop is not None
                if attempt.id not in self.victims and not never:
                    yield f"lost ({outcome['why']}), and nobody killed its init"
                if never and begins:
                    yield "never started on record, and it ran"
            case _:
                yield f"outcome {outcome}"
        if not whole.startswith(written):
            yield f"its output is not what it wrote: {written[:80]!r}"

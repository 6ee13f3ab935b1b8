"""A host with much on record, made at once: jobs as if they had been applied from the spool, had run and were recorded.

The rows are written by the daemon's own store code, before any daemon runs on it.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from joblet.manifest import JobManifest, read_manifests
from jobletd.kept_output import put_sizes
from jobletd.model import (
    Attempt,
    AttemptId,
    End,
    Exited,
    JobView,
    LimitStatus,
    Phase,
    Reason,
    Run,
    RunId,
    Source,
    Usage,
)
from jobletd.sources.spool import spool_source
from jobletd.store import rows
from jobletd.store.migrations import migrate
from jobletd.store.store import connect

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
USAGE = Usage(memory_peak_bytes=90 << 20, cpu_seconds=1.5, io_read_bytes=1 << 20, io_write_bytes=4096, oom_kills=0)
LIMITS = (LimitStatus("cpu", "50%", "50%", True), LimitStatus("memory", "256Mi", "268435456", True))
TEXT = """\
apiVersion: joblet/v1
kind: Job
metadata:
  name: {name}
  labels: {{team: data}}
spec:
  command: [python3, report.py, --number, "{number}"]
  files:
    - {{path: report.py, mode: "0644", content: "print('hello from the sandbox')"}}
  limits: {{cpu: 50%, memory: 256Mi, pids: 32}}
  timeout: 30m
  retry: {{limit: 3, initial: 10s, onExitCodes: [1, 75]}}
"""


@dataclass(frozen=True)
class Recorded:
    """How much is on record. runs: of each job."""

    jobs: int
    runs: int = 1


def name_of(number: int) -> str:
    return f"job-{number:06}"


def run_id_of(number: int, place: int) -> RunId:
    return RunId(f"r{number:06}{chr(ord('a') + place // 26)}{chr(ord('a') + place % 26)}")


def text_of(name: str, number: int) -> str:
    """A manifest of a usual size."""
    return TEXT.format(name=name, number=number)


def fill_spool(spool: Path, first: int, last: int) -> None:
    """The files of the jobs from the one number up to the other, as ``fill_store`` has them on record."""
    for number in range(first, last):
        (spool / f"{name_of(number)}.yml").write_text(text_of(name_of(number), number))


def fill_store(database: Path, recorded: Recorded, *, spool: bool) -> None:
    """Put jobs on record with their runs, all completed. spool: they came from its files, else from a client."""
    (template,) = read_manifests(text_of("template", 0).encode(), filename="template.yml")
    assert isinstance(template, JobManifest)
    connection = connect(str(database))
    try:
        migrate(connection, str(database))
        connection.execute("PRAGMA synchronous = OFF")  # no daemon's promise depends on it yet
        connection.execute("BEGIN")
        for number in range(recorded.jobs):
            source = spool_source(f"{name_of(number)}.yml") if spool else Source("grpc", "bench")
            _put_job(connection, _manifest(template, number), source, number, recorded.runs)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _manifest(template: JobManifest, number: int) -> JobManifest:
    """What the file of that number says, without reading it."""
    command = (*(template.spec.command or ())[:-1], str(number))
    return template.model_copy(
        update={
            "metadata": template.metadata.model_copy(update={"name": name_of(number)}),
            "spec": template.spec.model_copy(update={"command": command}),
        }
    )


def _put_job(connection: sqlite3.Connection, manifest: JobManifest, source: Source, number: int, runs: int) -> None:
    created_ns = time.time_ns() - DAY_NS
    view = JobView(
        uid=str(uuid.uuid4()),
        manifest=manifest,
        source=source,
        generation=1,
        observed_generation=1,
        created_ns=created_ns,
        updated_ns=created_ns,
    )
    rows.put_job(connection, view)
    rows.put_generation(connection, view)
    for place in range(runs):
        _put_run(connection, view, run_id_of(number, place), created_ns + place * 60 * SECOND_NS)


def _put_run(connection: sqlite3.Connection, view: JobView, run_id: RunId, created_ns: int) -> None:
    ended_ns = created_ns + 3 * SECOND_NS
    outcome = Exited(0)
    run = Run(
        id=run_id,
        job=view.name,
        job_uid=view.uid,
        generation=1,
        trigger="manual",
        phase=Phase.COMPLETED,
        manifest=view.manifest,
        created_ns=created_ns,
        reason=Reason.COMPLETED,
        started_ns=created_ns + SECOND_NS,
        ended_ns=ended_ns,
        outcome=outcome,
    )
    attempt = Attempt(
        id=AttemptId(f"{view.name}-{run_id}-1"),
        run_id=run_id,
        number=1,
        phase=Phase.COMPLETED,
        created_ns=created_ns,
        generation=1,
        started_ns=created_ns + SECOND_NS,
        limits=LIMITS,
        end=End(outcome, Reason.COMPLETED, ended_ns, created_ns + SECOND_NS, usage=USAGE),
    )
    rows.put_run(connection, run)
    rows.put_attempt(connection, attempt)
    put_sizes(connection, [(run_id, 0)])
    rows.put_event(
        connection, job=view.name, run_id=run_id, type="Normal", reason="Completed", message="", now_ns=ended_ns
    )

"""The daemon's log under systemd: fields in the journal, files that logrotate rotates."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path

from joblet.api.v1 import job_pb2
from tests.systemd.installed import PLACES, Installed, run

LOGS = Path("/var/log/joblet")
JOB = """
{{apiVersion: joblet/v1, kind: Job, metadata: {{name: logged, labels: {{number: "{number}"}}}},
 spec: {{command: ['true'], suspend: true}}}}
"""
ROTATIONS = 4
APPLIES = 10  # between two of them


def entries(*matches: str) -> list[dict[str, str]]:
    """What the journal has of them."""
    run("journalctl", "--sync")
    return [json.loads(line) for line in run("journalctl", "-o", "json", *matches).stdout.splitlines()]


def texts(pattern: str) -> str:
    files = sorted(LOGS.glob(pattern))
    return "".join(gzip.open(file, "rt").read() if file.suffix == ".gz" else file.read_text() for file in files)


def test_the_journal_finds_lines_by_job_and_peer(daemon: Installed) -> None:
    daemon.apply(JOB.format(number="journal"))
    (line, *_) = reversed(entries("JOBLET_JOB=logged", "JOBLET_EVENT=apply"))
    peer = line["JOBLET_PEER"]
    assert peer.startswith("127.0.0.1:")
    assert (line["_SYSTEMD_UNIT"], line["SYSLOG_IDENTIFIER"], line["PRIORITY"]) == ("joblet.service", "joblet", "6")
    assert line["MESSAGE"].startswith(f"[info     ] apply peer={peer} client=admin role=admin ")
    assert [entry["JOBLET_JOB"] for entry in entries(f"JOBLET_PEER={peer}", "JOBLET_EVENT=apply")] == ["logged"]
    for name in ("joblet.log", "audit.log"):
        assert f"apply peer={peer} client=admin role=admin job=logged" in (LOGS / name).read_text()


def test_a_forced_rotation_loses_no_line(daemon: Installed) -> None:
    ended = run("logrotate", "-d", PLACES["joblet.logrotate"])
    assert "error" not in ended.stderr and "warning" not in ended.stderr.lower().replace(
        "warning: logrotate in debug", ""
    )
    go_on = threading.Semaphore(APPLIES)

    def write() -> None:
        for number in range(ROTATIONS * APPLIES):
            go_on.acquire()
            daemon.apply(JOB.format(number=number))

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(ROTATIONS):
        run("logrotate", "--force", "--state", "/run/logrotate.status", PLACES["joblet.logrotate"])
        for _ in range(APPLIES):
            go_on.release()
    writer.join()
    daemon.jobs.Delete(job_pb2.DeleteRequest(name="logged"))
    assert len(list(LOGS.glob("joblet.log*"))) > ROTATIONS / 2
    journal = [entry["JOBLET_GENERATION"] for entry in entries("JOBLET_JOB=logged", "JOBLET_EVENT=apply")]
    assert len(journal) >= ROTATIONS * APPLIES
    for pattern in ("joblet.log*", "audit.log*"):
        assert texts(pattern).count(" apply peer=127.0.0.1:") == len(journal), pattern
    assert {file.group() for file in LOGS.iterdir()} == {"joblet"}
    assert {file.stat().st_mode & 0o777 for file in LOGS.iterdir()} == {0o640}


def test_the_journal_finds_how_a_run_of_a_job_ended(daemon: Installed) -> None:
    daemon.apply("{apiVersion: joblet/v1, kind: Job, metadata: {name: ending}, spec: {command: ['false']}}")
    run_id = daemon.finished("ending").id
    (line,) = entries("JOBLET_JOB=ending", "JOBLET_EVENT=Failed")
    assert (line["JOBLET_RUN"], line["PRIORITY"], line["_SYSTEMD_UNIT"]) == (run_id, "6", "joblet.service")
    assert "ExitCode: exited with code 1" in line["MESSAGE"]
    daemon.delete("ending")

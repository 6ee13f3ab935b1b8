"""Databases of each earlier schema, with data in them: made by the migrations themselves, filled as the daemon of then did."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from joblet.manifest import JobManifest, ResourceManifest, key_of, manifest_to_json, read_manifests
from jobletd.store.migrations import MIGRATIONS

JOB = b"{apiVersion: joblet/v1, kind: Job, metadata: {name: report}, spec: {command: [echo, hello], restart: Always}}"
VOLUME = b"{apiVersion: joblet/v1, kind: Volume, metadata: {name: data}, spec: {size: 64Mi}}"
ENDED_NS = 1_700_000_100 * 10**9


def _fill_first(connection: sqlite3.Connection) -> None:
    (job,) = read_manifests(JOB, filename="report.yml")
    assert isinstance(job, JobManifest)
    text = manifest_to_json(job)
    condition = [{"type": "Valid", "status": "True", "reason": "Read", "message": "", "since_ns": 5}]
    outcome = json.dumps({"type": "exited", "code": 7})
    end = {
        "outcome": outcome,
        "reason": "ExitCode",
        "ended_ns": ENDED_NS,
        "started_ns": 20,
        "message": "m",
        "usage": {},
    }
    execute = connection.execute
    execute(
        "INSERT INTO jobs VALUES ('report','uid-1',?,'spool:report.yml',2,2,1,2,0,?)", (text, json.dumps(condition))
    )
    execute("INSERT INTO generations VALUES ('uid-1',1,?,1), ('uid-1',2,?,2)", (text, text))
    execute(
        "INSERT INTO runs VALUES ('run00001','report','uid-1',1,'generation','FAILED',1,'ExitCode','m',?,10,20,?,?,NULL,NULL,0)",
        (text, ENDED_NS, outcome),
    )
    execute(
        "INSERT INTO runs VALUES ('run00002','report','uid-1',2,'generation','RUNNING',0,NULL,'',?,30,40,NULL,NULL,NULL,NULL,0)",
        (text,),
    )
    limits = json.dumps([{"name": "memory", "asked": "64Mi", "effective": "64Mi", "enforced": True, "message": ""}])
    execute(
        "INSERT INTO attempts VALUES ('report-run00001-1','run00001',1,'FAILED',10,'boot',1,20,?,?)",
        (limits, json.dumps(end)),
    )
    execute("INSERT INTO attempts VALUES ('report-run00002-1','run00002',1,'RUNNING',30,'boot',2,40,'[]',NULL)")
    execute("INSERT INTO events VALUES (1,'report','run00001','Normal','Started','attempt 1 runs',1,20,20)")


def _fill_third(connection: sqlite3.Connection) -> None:
    (volume,) = read_manifests(VOLUME, filename="data.yml")
    assert isinstance(volume, ResourceManifest)
    connection.execute(
        "INSERT INTO resources (key, uid, manifest, source, generation, created_ns, updated_ns) VALUES (?,?,?,?,1,1,1)",
        (key_of(volume), "uid-2", manifest_to_json(volume), "grpc:admin"),
    )


# What could be recorded from that step on. A step without new tables or columns that have to be filled has nothing here.
FILLS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _fill_first, 3: _fill_third}


def make_database(path: Path, version: int) -> None:
    """As joblet of that schema version left it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for number, step in enumerate(MIGRATIONS[:version], 1):
            connection.executescript(f"BEGIN; {step} PRAGMA user_version = {number}; COMMIT;")
            if number in FILLS:
                FILLS[number](connection)

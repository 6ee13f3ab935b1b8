"""Rows of the runs that workflows are at, and of those to come."""

from __future__ import annotations

import json
import sqlite3

from joblet.manifest import WorkflowManifest, manifest_to_json, resource_from_json
from jobletd.workflows.steps import WorkflowRun
from jobletd.workflows.turns import Asked, Turns

_COLUMNS = "workflow, number, generation, tries, phase, created_ns, ended_ns, trigger_by, tick_seconds, manifest"


def load_workflow_runs(connection: sqlite3.Connection) -> list[WorkflowRun]:
    return [
        WorkflowRun(
            row[0], row[1], row[2], row[5], json.loads(row[3]), row[4], row[6], row[7], row[8], _manifest(row[9])
        )
        for row in connection.execute(f"SELECT {_COLUMNS} FROM workflow_runs")  # noqa: S608  constants
    ]


def put_workflow_run(connection: sqlite3.Connection, run: WorkflowRun) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO workflow_runs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  constants
        (
            run.workflow,
            run.number,
            run.generation,
            json.dumps(dict(run.tries)),
            run.phase,
            run.created_ns,
            run.ended_ns,
            run.trigger,
            run.tick_seconds,
            None if run.manifest is None else manifest_to_json(run.manifest),
        ),
    )


def load_turns(connection: sqlite3.Connection) -> list[Turns]:
    return [
        Turns(workflow, clockwork, ticked, tuple(Asked(*one) for one in json.loads(waiting)))
        for workflow, clockwork, ticked, waiting in connection.execute(
            "SELECT workflow, clockwork, ticked_seconds, waiting FROM workflow_turns"
        )
    ]


def put_turns(connection: sqlite3.Connection, turns: Turns) -> None:
    waiting = json.dumps([(one.trigger, one.tick_seconds) for one in turns.waiting])
    connection.execute(
        "INSERT OR REPLACE INTO workflow_turns (workflow, clockwork, ticked_seconds, waiting) VALUES (?, ?, ?, ?)",
        (turns.workflow, turns.clockwork, turns.ticked_seconds, waiting),
    )


def delete_workflow(connection: sqlite3.Connection, workflow: str) -> None:
    connection.execute("DELETE FROM workflow_runs WHERE workflow = ?", (workflow,))
    connection.execute("DELETE FROM workflow_turns WHERE workflow = ?", (workflow,))


def _manifest(text: str | None) -> WorkflowManifest | None:
    manifest = None if text is None else resource_from_json(text)
    assert manifest is None or isinstance(manifest, WorkflowManifest)
    return manifest

"""Rows of the runs that workflows are at."""

from __future__ import annotations

import json
import sqlite3

from jobletd.workflows.steps import WorkflowRun

_COLUMNS = "workflow, number, generation, tries, phase, created_ns, ended_ns"


def load_workflow_runs(connection: sqlite3.Connection) -> list[WorkflowRun]:
    return [
        WorkflowRun(row[0], row[1], row[2], row[5], json.loads(row[3]), row[4], row[6])
        for row in connection.execute(f"SELECT {_COLUMNS} FROM workflow_runs")  # noqa: S608  constants
    ]


def put_workflow_run(connection: sqlite3.Connection, run: WorkflowRun) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO workflow_runs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  constants
        (
            run.workflow,
            run.number,
            run.generation,
            json.dumps(dict(run.tries)),
            run.phase,
            run.created_ns,
            run.ended_ns,
        ),
    )


def delete_workflow_run(connection: sqlite3.Connection, workflow: str) -> None:
    connection.execute("DELETE FROM workflow_runs WHERE workflow = ?", (workflow,))

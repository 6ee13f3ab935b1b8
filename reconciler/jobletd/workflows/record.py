"""What is on record of workflows, in memory as the store has it: the run that each is at, and those to come."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence

from joblet.trace_context import SpanPlace
from jobletd.notifying.drafts import NotificationDraft
from jobletd.registry import Registry
from jobletd.saves import EventDraft
from jobletd.store.trace_rows import put_place
from jobletd.store.workflow_rows import delete_workflow, load_turns, load_workflow_runs, put_turns, put_workflow_run
from jobletd.workflows.steps import KIND, WorkflowRun
from jobletd.workflows.turns import Turns


class Record:
    """Whoever decides by it and writes holds ``changing`` meanwhile. ``load`` before all else."""

    def __init__(self, registry: Registry) -> None:
        self.changing = asyncio.Lock()
        self._registry = registry
        self._runs: dict[str, WorkflowRun] = {}
        self._turns: dict[str, Turns] = {}

    async def load(self) -> None:
        self._runs = {run.workflow: run for run in await self._registry.store.read(load_workflow_runs)}
        self._turns = {turns.workflow: turns for turns in await self._registry.store.read(load_turns)}

    def run(self, workflow: str) -> WorkflowRun | None:
        """The latest one; None before the first."""
        return self._runs.get(workflow)

    def running(self, workflow: str) -> int:
        """The number of the run that goes on, 0: there is none."""
        run = self._runs.get(workflow)
        return run.number if run is not None and run.goes_on else 0

    def turns(self, workflow: str) -> Turns:
        return self._turns.get(workflow) or Turns(workflow)

    def all_turns(self) -> list[Turns]:
        return list(self._turns.values())

    async def put(
        self,
        run: WorkflowRun | None,
        turns: Turns | None,
        *events: EventDraft,
        notifications: Sequence[NotificationDraft] = (),
        place: SpanPlace | None = None,
    ) -> None:
        """One write; what is None stays as it is. place: in a trace, of what begins with the run. Raises StoreError."""

        def write(connection: sqlite3.Connection) -> None:
            if run is not None:
                put_workflow_run(connection, run)
                if place is not None:
                    put_place(connection, f"{KIND}/{run.workflow}", place)
            if turns is not None:
                put_turns(connection, turns)

        await self._registry.write(write, *events, notifications=notifications)
        if run is not None:
            self._runs[run.workflow] = run
            if place is not None and self._registry.tracing is not None:
                self._registry.tracing.began_anew(f"{KIND}/{run.workflow}", place)
        if turns is not None:
            self._turns[turns.workflow] = turns

    async def delete(self, workflow: str) -> None:
        """All of it. Raises StoreError."""
        await self._registry.store.write(lambda connection: delete_workflow(connection, workflow))
        self._runs.pop(workflow, None)
        self._turns.pop(workflow, None)

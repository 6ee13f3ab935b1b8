"""From what people type (a job's name, a run's id or its beginning) to the job or run that they mean."""

from __future__ import annotations

import difflib
import sqlite3
from dataclasses import replace

from jobletd.errors import AmbiguousRef, NoSuchJob, NoSuchResource, WrongState
from jobletd.model import JobName, JobView, ResourceView, Run, RunId, Source
from jobletd.registry import Registry
from jobletd.store import rows

SHORTEST_PREFIX = 4
HISTORY_SHOWN = 1000


class Lookup:
    """Answers from memory where it can, else from the store."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def job(self, name: str) -> JobView:
        """Raises NoSuchJob."""
        view = self._registry.views.get(JobName(name))
        if view is None:
            raise NoSuchJob(name, self._nearest(name))
        return view

    def resource(self, name: str) -> ResourceView:
        """Raises NoSuchJob."""
        view = self._registry.resources.get(JobName(name))
        if view is None:
            kind, _, short = name.partition("/")
            known = [key for key in self._registry.resources if key.startswith(f"{kind}/")]
            near = difflib.get_close_matches(name, known, 3)
            raise NoSuchResource(kind, short, near)
        return view

    async def resolve(self, ref: str) -> tuple[JobName, Run | None]:
        """The job that is meant, and the run if it was a run's id. Raises NoSuchJob, AmbiguousRef."""
        if JobName(ref) in self._registry.views:
            return JobName(ref), None
        if (name := self._registry.by_run.get(RunId(ref))) is not None:
            return name, next(run for run in self._registry.views[name].runs if run.id == ref)
        runs = await self._beginning_with(ref)
        if len(runs) > 1:
            raise AmbiguousRef(f"several runs begin with {ref!r}", todo="give more of the id")
        if not runs:
            raise NoSuchJob(ref, self._nearest(ref))
        return runs[0].job, self._cached(runs[0])

    async def resolve_events(self, ref: str) -> tuple[str, str]:
        """The job's name and the run's id, either empty, whose events are meant: also of a job that is gone."""
        try:
            name, run = await self.resolve(ref)
        except NoSuchJob:
            if not await self._registry.store.read(lambda connection: _has_events(connection, ref)):
                raise
            return ref, ""
        return name, run.id if run is not None else ""

    async def run(self, ref: str) -> Run:
        """The run that is meant: a job's latest, or the one with that id. Raises NoSuchJob, AmbiguousRef, WrongState."""
        name, run = await self.resolve(ref)
        if run is not None:
            return run
        view = self.job(name)
        if not view.runs:
            raise WrongState(f"job {name!r} has not run yet", todo=f"rnx status {name}")
        return view.runs[0]

    async def history(self, view: JobView) -> tuple[Run, ...]:
        """All runs that are kept, newest first."""

        def select(connection: sqlite3.Connection) -> list[Run]:
            query = (
                f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE job = ? AND job_uid = ? "  # noqa: S608  a constant
                "ORDER BY rowid DESC LIMIT ?"
            )
            return rows.load_runs(connection, query, (view.name, view.uid, HISTORY_SHOWN))

        return tuple(self._cached(run) for run in await self._registry.store.read(select))

    def job_of(self, name: JobName, run: Run) -> JobView:
        """The job with that run alone; if the job is gone, the run is what is left of it."""
        view = self._registry.views.get(name)
        if view is not None and view.uid == run.job_uid:
            return replace(view, runs=(run,))
        gone = Source("deleted", "")
        generation = run.generation
        return JobView(
            run.job_uid, run.manifest, gone, generation, generation, run.created_ns, run.created_ns, runs=(run,)
        )

    async def _beginning_with(self, ref: str) -> list[Run]:
        """At most two."""
        if len(ref) < SHORTEST_PREFIX or not ref.isalnum() or not ref.isascii():
            return []
        query = f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE id >= ? AND id < ? LIMIT 2"  # noqa: S608  a constant
        return await self._registry.store.read(
            lambda connection: rows.load_runs(connection, query, (ref, ref + "\x7f"))
        )

    def _cached(self, run: Run) -> Run:
        view = self._registry.views.get(run.job)
        return next((other for other in view.runs if other.id == run.id), run) if view else run

    def _nearest(self, ref: str) -> list[str]:
        return difflib.get_close_matches(ref, list(self._registry.views), n=3, cutoff=0.6)


def _has_events(connection: sqlite3.Connection, job: str) -> bool:
    return connection.execute("SELECT 1 FROM events WHERE job = ? LIMIT 1", (job,)).fetchone() is not None

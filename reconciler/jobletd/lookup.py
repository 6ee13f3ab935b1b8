"""From what people type (a job's name, a run's id or its beginning) to the job or run that they mean."""

from __future__ import annotations

import difflib
import sqlite3
from dataclasses import replace

from joblet.manifest import indexes_of
from jobletd.arrays.index_runs import job_part
from jobletd.errors import AmbiguousRef, NoSuchJob, NoSuchResource, WrongState
from jobletd.model import JobName, JobView, ResourceView, Run, RunId, Source
from jobletd.registry import Registry
from jobletd.store import rows

SHORTEST_PREFIX = 4
HISTORY_SHOWN = 1000
LONGEST_INDEX = 9  # digits
MOST_NEAREST = 3
_TAKEN_FOR = {"job": ("job", "workflow"), "workflow": ("workflow", "job")}


class Lookup:
    """Answers from memory where it can, else from the store."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def job(self, name: str) -> JobView:
        """Raises NoSuchJob."""
        view = self._registry.views.get(JobName(name))
        if view is None:
            raise NoSuchJob(name, self.nearest("job", name))
        return view

    def work(self, name: JobName) -> JobView:
        """A job, or an open index of an array. Raises NoSuchJob."""
        return self._registry.find(name) or self.job(name)

    def resource(self, name: str) -> ResourceView:
        """Raises NoSuchJob."""
        view = self._registry.resources.get(JobName(name))
        if view is None:
            kind, _, short = name.partition("/")
            raise NoSuchResource(kind, short, self.nearest(kind, short))
        return view

    def nearest(self, kind: str, name: str) -> list[str]:
        """What may have been meant, as people write it. A workflow may be taken for a job, and a job for a workflow."""
        kinds = _TAKEN_FOR.get(kind, (kind,))
        found: dict[str, list[str]] = {}
        for job in self._registry.views if "job" in kinds else ():
            found.setdefault(job, []).append(job)
        for key in self._registry.resources:
            other, _, short = key.partition("/")
            if other in kinds:
                found.setdefault(short, []).append(key)
        near = difflib.get_close_matches(name, found, n=MOST_NEAREST)
        return [shown for one in near for shown in found[one]][:MOST_NEAREST]

    async def resolve(self, ref: str) -> tuple[JobName, Run | None]:
        """The job that is meant, and the run if it was a run's id. Raises NoSuchJob, AmbiguousRef."""
        if JobName(ref) in self._registry.views:
            return JobName(ref), None
        if (name := self._registry.by_run.get(RunId(ref))) is not None:
            return name, next(run for run in self.work(name).runs if run.id == ref)
        if "." in ref:
            return await self._index(ref)
        runs = await self._beginning_with(ref)
        if len(runs) > 1:
            raise AmbiguousRef(f"several runs begin with {ref!r}", todo="give more of the id")
        if not runs:
            raise NoSuchJob(ref, self.nearest("job", ref))
        return runs[0].job, self._cached(runs[0])

    async def _index(self, ref: str) -> tuple[JobName, Run]:
        """``<job>.<index>`` or ``<run>.<index>``, or the name that the daemon has for it. Raises WrongState if it has no run."""
        before, _, number = ref.rpartition(".")
        if not (number.isascii() and number.isdecimal() and len(number) <= LONGEST_INDEX):
            raise NoSuchJob(ref, self.nearest("job", ref))
        index = int(number)
        array = await self.array(before.rpartition(".")[2])
        indexes = indexes_of(array.manifest.spec)
        if indexes is None or index not in indexes:
            span = "it has no array" if indexes is None else f"its indexes are {indexes.first} to {indexes.last}"
            raise WrongState(f"run {array.id} of job {array.job!r} has no index {index}", todo=span)
        query = f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE job_uid = ? AND array_index = ?"  # noqa: S608  a constant
        runs = await self._registry.store.read(lambda connection: rows.load_runs(connection, query, (array.id, index)))
        if not runs:
            raise WrongState(f"index {index} of job {array.job!r} has not begun", todo=f"rnx status {array.job} tells")
        return runs[0].job, self._cached(runs[0])

    async def array(self, ref: str) -> Run:
        """The run that is meant, with the letters of its indexes as they are now. Raises NoSuchJob, AmbiguousRef, WrongState."""
        return self._registry.arrays.shown(await self.run(ref))

    async def indexes(self, array: Run, first: int, last: int) -> dict[int, Run]:
        """The runs of these indexes, as far as they have begun."""
        query = f"SELECT {rows.RUN_COLUMNS} FROM runs WHERE job_uid = ? AND array_index BETWEEN ? AND ?"  # noqa: S608
        arguments = (array.id, first, last)
        runs = await self._registry.store.read(lambda connection: rows.load_runs(connection, query, arguments))
        return {run.index: self._cached(run) for run in runs if run.index is not None}

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
        view = self._registry.views.get(job_part(name))
        if view is not None and (run.index is not None or view.uid == run.job_uid):
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
        view = self._registry.find(run.job)
        return next((other for other in view.runs if other.id == run.id), run) if view else run


def _has_events(connection: sqlite3.Connection, job: str) -> bool:
    return connection.execute("SELECT 1 FROM events WHERE job = ? LIMIT 1", (job,)).fetchone() is not None

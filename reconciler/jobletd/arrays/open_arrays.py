"""The arrays that are open, and their open indexes, in memory: each follows what was put on record, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from joblet.manifest import indexes_of
from jobletd.arrays.index_runs import index_view, with_manifest_of
from jobletd.arrays.progress import OPEN, Mark, Progress, mark_of
from jobletd.model import JobName, JobView, Phase, Run, RunId


@dataclass(slots=True)
class OpenArray:
    """One run of a job with an array, as the job has it now. open: its indexes that have begun and not ended.

    begun: whether any ever has. started_ns: when the first command was executed, as far as this daemon has seen it.
    """

    view: JobView
    run: Run
    progress: Progress
    open: dict[int, JobName] = field(default_factory=dict)
    begun: bool = False
    started_ns: int | None = None

    @property
    def has_started(self) -> bool:
        """Whether an index runs, or has done so."""
        return self.started_ns is not None or self.progress.count(Mark.RUNNING) > 0


class OpenArrays:
    """wants_look: told of each job and index that is to be looked at; changed: of each job that looks different."""

    def __init__(self, wants_look: Callable[[JobName], None], changed: Callable[[JobName], None]) -> None:
        self._wants_look = wants_look
        self._changed = changed
        self._arrays: dict[RunId, OpenArray] = {}
        self.indexes: dict[JobName, JobView] = {}

    def __getitem__(self, run_id: RunId) -> OpenArray:
        return self._arrays[run_id]

    def load(self, view: JobView, run: Run, indexes: Iterable[tuple[int, Mark, Run | None]]) -> None:
        """An array as it is on record. indexes: those that have begun; with their runs as far as they are open."""
        known = self._begin(view, run)
        for index, mark, index_run in indexes:
            known.begun = True
            known.progress.put(index, mark)
            if index_run is not None:
                self._put(known, index, _as_now(known, index_run))

    def put_job(self, old: JobView | None, view: JobView) -> None:
        """A job was put on record: its arrays begin, change and end with their runs."""
        present = {run.id: run for run in view.runs if run.marks and not run.phase.is_final}
        for gone in old.runs if old is not None else ():
            if gone.id not in present:
                self._arrays.pop(gone.id, None)
        for run in present.values():
            known = self._arrays.get(run.id) or self._begin(view, run)
            differs = _is_behind(known, run.generation, view)
            known.view, known.run = view, run
            for index, name in known.open.items() if differs else ():
                self._put(known, index, _as_now(known, self.indexes[name].runs[0]))
                self._wants_look(name)

    def put_index(self, view: JobView) -> None:
        """An index was put on record."""
        (run,) = view.runs
        known = self._arrays[RunId(view.uid)]
        assert run.index is not None
        mark = mark_of(run.phase, run.reason)
        known.begun = True
        if known.started_ns is None:
            known.started_ns = run.started_ns
        if known.progress[run.index] is not mark:
            known.progress.put(run.index, mark)
            self._changed(known.view.name)
        if mark in OPEN:
            self._put(known, run.index, _as_now(known, run) if _is_behind(known, run.generation, view) else view)
        else:
            self.indexes.pop(run.job, None)
            known.open.pop(run.index, None)
        if mark not in OPEN or (mark is Mark.RUNNING and known.run.phase is not Phase.RUNNING):
            self._wants_look(known.view.name)

    def shown(self, run: Run) -> Run:
        """An array's run with its letters as they are now."""
        known = self._arrays.get(run.id)
        return run if known is None else replace(run, marks=known.progress.text())

    def array_of(self, view: JobView) -> OpenArray | None:
        """The one that an index is of; None for a job."""
        return None if view.array_run is None else self._arrays[view.array_run]

    def first_waiting(self, run: Run) -> Run | None:
        """The first open index of an array that has no live attempt."""
        known = self._arrays.get(run.id)
        if known is None:
            return None
        names = (name for index, name in known.open.items() if known.progress[index] is Mark.WAITING)
        name = next(names, None)
        return None if name is None else self.indexes[name].runs[0]

    def waiting(self, view: JobView) -> list[JobName]:
        """The open indexes of a job that have no live attempt."""
        arrays = [self._arrays[run.id] for run in view.runs if run.id in self._arrays]
        return [name for one in arrays for index, name in one.open.items() if one.progress[index] is Mark.WAITING]

    def _begin(self, view: JobView, run: Run) -> OpenArray:
        indexes = indexes_of(run.manifest.spec)
        assert indexes is not None
        known = self._arrays[run.id] = OpenArray(view, run, Progress(indexes.first, run.marks))
        return known

    def _put(self, known: OpenArray, index: int, view: JobView) -> None:
        name = view.runs[0].job
        known.open[index] = name
        self.indexes[name] = view


def _as_now(known: OpenArray, run: Run) -> JobView:
    return index_view(known.view, known.run, with_manifest_of(known.run.manifest, run))


def _is_behind(known: OpenArray, generation: int, view: JobView) -> bool:
    """Whether an index has something of what its job was before; or a job something that its indexes have not yet."""
    return known.run.generation != generation or known.view.source != view.source

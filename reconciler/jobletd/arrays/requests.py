"""What people ask of a job's array: how its indexes stand, and that some of them run anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from joblet.crash_points import reached
from joblet.manifest import Indexes, indexes_of
from jobletd.arrays.index_runs import job_part
from jobletd.arrays.progress import Mark
from jobletd.errors import WrongState
from jobletd.lookup import Lookup
from jobletd.model import JobView, Run
from jobletd.planning import open_runs, run_again, with_runs
from jobletd.registry import Registry
from jobletd.saves import EventDraft, Save


@dataclass(frozen=True, slots=True)
class ShownIndex:
    """One index as people see it. values: of the axes of its matrix. run: None if it has not begun."""

    index: int
    mark: Mark
    values: Mapping[str, str]
    run: Run | None


class ArrayRequests:
    """check_room: raises NoRoom if nothing new can be taken on just now."""

    def __init__(self, registry: Registry, lookup: Lookup, check_room: Callable[[], None]) -> None:
        self._registry = registry
        self._lookup = lookup
        self._check_room = check_room

    async def indexes(
        self, ref: str, marks: frozenset[Mark], *, limit: int, after: int
    ) -> tuple[Run, list[ShownIndex]]:
        """See ``DesiredState.indexes``."""
        run = await self._lookup.array(ref)
        array = array_of(run)
        every = enumerate(map(Mark, run.marks), array.first)
        wanted = ((index, mark) for index, mark in every if index > after and (not marks or mark in marks))
        found = list(islice(wanted, limit))
        runs = await self._lookup.indexes(run, found[0][0], found[-1][0]) if found else {}
        return run, [ShownIndex(index, mark, array.values(index), runs.get(index)) for index, mark in found]

    async def retry(self, ref: str, indexes: Sequence[range]) -> Run:
        """See ``DesiredState.retry``. Returns the new run."""
        name, asked = await self._lookup.resolve(ref)
        if asked is not None and asked.index is not None:
            indexes = [range(asked.index, asked.index + 1), *indexes]
        async with self._registry.lock(job_part(name)):
            view = self._lookup.job(job_part(name))
            over = _latest(view)
            own = () if asked is None else (asked.id, asked.job_uid)
            if asked is not None and over.id not in own:
                raise WrongState(
                    f"run {asked.id} is not the latest of job {view.name!r}", todo=f"rnx retry {view.name}"
                )
            again = run_again(view, over, _checked(over, indexes), self._registry.clock.wall_ns())
            count = len(again.handed_over.but)
            if not count:
                raise WrongState(
                    f"all indexes of job {view.name!r} have succeeded",
                    todo=f"rnx retry {view.name} --index N runs one all the same; rnx run --job {view.name} runs all",
                )
            self._check_room()
            event = EventDraft(
                view.name, again.run.id, "Normal", "Retried", f"{count} indexes of run {over.id} run anew"
            )
            await self._registry.save(
                Save(with_runs(view, (), again.run), runs=(again.run,), events=[event], handed_over=again.handed_over)
            )
            reached("daemon.array-retry-stored")
        return again.run


def array_of(run: Run) -> Indexes:
    """Raises WrongState if it has none."""
    indexes = indexes_of(run.manifest.spec)
    if indexes is None or not run.marks:
        raise WrongState(f"job {run.job!r} has no array", todo=f"rnx status {run.job} shows its run")
    return indexes


def _latest(view: JobView) -> Run:
    """The run that may run again. Raises WrongState."""
    if view.deleting or view.manifest.spec.suspend:
        state = "is being deleted" if view.deleting else "is suspended"
        raise WrongState(f"job {view.name!r} {state}", todo="apply it with spec.suspend: false")
    if not view.runs:
        raise WrongState(f"job {view.name!r} has not run yet", todo=f"rnx run --job {view.name}")
    if not view.runs[0].marks:
        raise WrongState(f"job {view.name!r} has no array", todo=f"rnx run --job {view.name} starts a new run")
    if running := open_runs(view):
        what = f"job {view.name!r} has run {running[0].id}, which is {running[0].phase}"
        raise WrongState(what, todo=f"rnx wait {view.name} --for finished, then again; or rnx stop {view.name}")
    return view.runs[0]


def _checked(over: Run, wanted: Sequence[range]) -> set[int] | None:
    """Raises WrongState for an index that there is not."""
    array = array_of(over)
    for span in wanted:
        if len(span) == 0 or span[0] not in array or span[-1] not in array:
            what = f"job {over.job!r} has no index {span.start}" + (f" to {span.stop - 1}" if len(span) != 1 else "")
            raise WrongState(what, todo=f"its indexes are {array.first} to {array.last}")
    return {index for span in wanted for index in span} if wanted else None

"""The step of an array's run: the next indexes begin, what is not needed any more is stopped, and the end is told.

An index is put on record when its turn comes, a few at a time, and from then on it is worked on like a job of its own: under its
own lock, beside the others. The array's run is looked at again whenever one of them has ended. Who looks at an array may take
the locks of its indexes, never the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from joblet.crash_points import reached
from joblet.manifest import JobSpec, indexes_of, needed_of
from jobletd.arrays.index_runs import index_view, job_part, new_index_run
from jobletd.arrays.open_arrays import OpenArray
from jobletd.arrays.progress import Begin, Over, Rules, StopOpen, next_step
from jobletd.decisions import Finish
from jobletd.model import JobName, JobView, Phase, Reason, Run
from jobletd.planning import new_run_id, plan_stop, with_runs
from jobletd.registry import Registry
from jobletd.saves import EventDraft, Save

Finisher = Callable[[JobView, Run, Finish], Awaitable[float | None]]


class Arrays:
    """finish: puts the end of a run on record. nudge: tells the reconciler that an index wants a look."""

    def __init__(self, registry: Registry, finish: Finisher, nudge: Callable[[JobName], None]) -> None:
        self._registry = registry
        self._finish = finish
        self._nudge = nudge

    def has_begun(self, run: Run) -> bool:
        """Whether the run is one of an array of which an index is on record already."""
        return bool(run.marks) and self._registry.arrays[run.id].begun

    def nudge_with_indexes(self, name: JobName) -> None:
        """What the job uses may be there now."""
        self._nudge(name)
        if (view := self._registry.views.get(name)) is not None:
            for index in self._registry.arrays.waiting(view):
                self._nudge(index)

    async def step(self, view: JobView, run: Run, *, accepting: bool) -> float | None:
        """One step of an array's run; the caller holds the job's lock. Returns None: look at once; 0: wait for a nudge."""
        array = self._registry.arrays[run.id]
        match next_step(array.progress, rules_of(run.manifest.spec), run.stop):
            case Over(phase, reason, message):
                return await self._finish(view, run, Finish(phase, reason, message))
            case StopOpen(reason):
                await asyncio.gather(*(self._stop(name, reason, run.force) for name in list(array.open.values())))
                reached("daemon.indexes-stopped")
            case Begin(indexes) if indexes and accepting:
                await self._begin(view, run, indexes)
                return None
            case Begin():
                pass
        return await self._note(view, run, array)

    async def _begin(self, view: JobView, run: Run, indexes: tuple[int, ...]) -> None:
        """All of them on record at once, or none."""
        now_ns = self._registry.clock.wall_ns()
        begun = [new_index_run(run, index, new_run_id(), now_ns + place) for place, index in enumerate(indexes)]
        await self._registry.save(*(Save(index_view(view, run, one), runs=(one,)) for one in begun))
        reached("daemon.indexes-stored")
        for one in begun:
            self._nudge(one.job)

    async def _stop(self, name: JobName, reason: Reason, force: bool) -> None:
        async with self._registry.lock(name):
            view = self._registry.find(name)
            if view is None:
                return
            stopped = plan_stop(view, reason, force=force)
            if stopped == view.runs:
                return
            await self._registry.save(Save(with_runs(view, stopped), runs=stopped))
        self._nudge(name)

    async def _note(self, view: JobView, run: Run, array: OpenArray) -> float | None:
        """Put on record what is new about the array as a whole: that it runs, and which generation that is of."""
        observed = max(view.observed_generation, run.generation)
        noted, events = run, []
        if run.phase is not Phase.RUNNING and array.has_started:
            started_ns = array.started_ns or self._registry.clock.wall_ns()
            noted = replace(run, phase=Phase.RUNNING, reason=None, message="", started_ns=started_ns)
            events = [
                EventDraft(run.job, run.id, "Normal", "Started", f"the first of {len(array.progress)} indexes runs")
            ]
        if noted is run and observed == view.observed_generation:
            return 0.0
        changed = with_runs(replace(view, observed_generation=observed), (noted,))
        await self._registry.save(Save(changed, runs=(noted,), events=events, job=observed != view.observed_generation))
        return None


def rules_of(spec: JobSpec) -> Rules:
    indexes = indexes_of(spec)
    assert indexes is not None and spec.array is not None
    return Rules(needed_of(spec, indexes.count), spec.array.parallel, spec.array.fail_fast)


def told_of_index(run: Run) -> list[EventDraft]:
    """What the end of a run says in the events of the array it is an index of: a failure."""
    if run.index is None or run.phase is not Phase.FAILED:
        return []
    text = f"index {run.index} (run {run.id}): {run.reason}: {run.message}"
    return [EventDraft(job_part(run.job), run.job_uid, "Warning", "IndexFailed", text)]

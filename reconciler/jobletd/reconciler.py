"""The reconciler: keeps what runs in line with what is desired, one job at a time, level-triggered.

``reconcile(job)`` looks at the oldest open run, asks the executor for the truth about its attempt, takes one durable step, and
looks again until nothing is left to do now. A newer run of the same job waits until the older one has really ended. What is done
with an attempt is in ``live_attempts``, what is put on record of runs in ``run_records``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog
from structlog.contextvars import bound_contextvars

from joblet.clock import Moment
from joblet.crash_points import reached
from joblet.errors import JobletError
from jobletd.arrays.controller import Arrays
from jobletd.backup.journal import LaunchJournal
from jobletd.decisions import SECOND_NS, Finish, left_ns, wait_ns
from jobletd.dependencies import Dependencies, Failed, Waits
from jobletd.executor import Executor
from jobletd.job_bounds import NO_BOUNDS as NO_JOB_BOUNDS
from jobletd.job_bounds import JobBounds
from jobletd.live_attempts import LiveAttempts
from jobletd.metrics import instruments
from jobletd.model import AttemptId, JobName, JobView, Phase, Reason, Run, RunId
from jobletd.places import Bounds, Places
from jobletd.planning import open_runs, with_runs
from jobletd.registry import Registry
from jobletd.resources import Resources
from jobletd.run_records import RunRecords
from jobletd.saves import EventDraft, Save
from jobletd.schedules.overlap import runs_in_turn
from jobletd.schedules.ticker import Ticker, is_too_late
from jobletd.store import StoreError
from jobletd.work_queue import WorkQueue

WORKERS = 32
NO_BOUNDS = Bounds()
LONGEST_WAIT_SECONDS = 60.0  # then the clocks are read again: the host may have slept, and the loop counts no sleep
UNRECORDED_SECONDS = 5.0  # between two looks, in a shutdown, whether anything but a full disk is waited for
ROOM_SECONDS = 2.0  # between two looks whether there is room again
log = structlog.get_logger("reconciler")


class Reconciler:
    """One for the host. bounds: of runs with a live attempt at the same time."""

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        resources: Resources,
        *,
        bounds: Bounds = NO_BOUNDS,
        job_bounds: JobBounds = NO_JOB_BOUNDS,
        journal: LaunchJournal | None = None,
        room: Callable[[], str] = lambda: "",
    ) -> None:
        """journal: of launches, for when the database is lost. room: why nothing can be started just now, or nothing."""
        self._registry = registry
        self._job_bounds = job_bounds
        self._resources = resources
        self._places = Places(registry, bounds, self.nudge)
        self._records = RunRecords(registry, self._places, self._bounded)
        self._attempts = LiveAttempts(
            registry,
            executor,
            resources,
            self._records,
            bounded=self._bounded,
            journal=journal,
            on_cleaned=self._note_end,
        )
        self._arrays = Arrays(registry, self._records.finish, self.nudge)
        resources.subscribe(self._arrays.nudge_with_indexes)
        registry.on_look(self.nudge)
        self._dependencies = Dependencies(registry, self.nudge)
        self._executor = executor
        self._journal = journal
        self._room = room
        self._ticker = Ticker(registry)
        self._queue: WorkQueue[JobName] = WorkQueue()
        self._all_ended = asyncio.Event()
        self._unrecorded: set[JobName] = set()  # whose last look failed because the store could not be written
        self._accepting = True
        self._in_a_hurry = False

    @property
    def running(self) -> int:
        """Runs that hold a place."""
        return len(self._places)

    @property
    def work_queue_length(self) -> int:
        """Jobs that want a look, less those that are looked at."""
        return len(self._queue)

    @property
    def places(self) -> Places:
        return self._places

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing runs, and nothing that ran is left on the host."""
        return not self._places and self._attempts.are_cleaned

    def reconfigure(self, *, bounds: Bounds, job_bounds: JobBounds) -> None:
        """What may change while it runs: it counts for attempts to come, a shorter time for those that run too."""
        self._job_bounds = job_bounds
        self._places.resize(bounds)
        for view in self._registry.everything():
            if open_runs(view):
                self.nudge(view.name)

    def nudge(self, name: JobName) -> None:
        """Look at a job soon."""
        self._queue.add(name)

    async def look(self, name: JobName) -> None:
        """Bring a job in line now and not in its turn: then the truth about its attempts is on record. Raises JobletError."""
        async with self._registry.lock(name):
            again_seconds = await self._reconcile(name)
        if again_seconds is not None:
            self._queue.add_after(name, again_seconds)

    async def settle(self) -> None:
        """Wait until no job wants a look now."""
        await self._queue.join()

    async def start(self) -> None:
        """Take up what an earlier daemon left: adopt, settle, and free what belongs to nothing. Before any launch."""
        self._executor.subscribe(lambda attempt_id: self.nudge(job_of(attempt_id)))
        live = [
            run
            for view in self._registry.everything()
            for run in open_runs(view)
            if run.attempts and run.attempts[-1].end is None
        ]
        for one in live:
            self._places.adopt(one)
        await self._executor.prune([run.attempts[-1].id for run in live])
        reached("daemon.leftovers-freed")
        for view in list(self._registry.everything()):
            for run in runs_in_turn(view):
                if run.stop is None and not run.marks and not wait_ns(run, self._moment()):
                    self._places.stand_in_line(run)
        for view in list(self._registry.everything()):
            behind = view.deleting or view.observed_generation < view.generation
            if open_runs(view) or behind or view.manifest.spec.schedule is not None:
                self.nudge(view.name)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def stop_all(self) -> None:
        """The daemon's shutdown: end all runs with their grace, and wait until that is on record. Raises StoreError if nothing
        is left to wait for but room to record it."""
        self._accepting = False
        await self.stop_runs(lambda _: True)
        while not self.is_at_rest:
            self._all_ended.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(UNRECORDED_SECONDS):
                    await self._all_ended.wait()
            left = {self._registry.by_run[run_id] for run_id in self._places.holders()}
            if left and left <= self._unrecorded:
                what = f"how {len(left)} runs ended cannot be recorded"
                raise StoreError(what, todo="make room on the disk; the next start records it")

    async def hurry(self) -> None:
        """What still has its grace in a shutdown loses it."""
        self._in_a_hurry = True
        if not self._accepting:
            await self.stop_runs(lambda _: True)

    async def stop_runs(self, wanted: Callable[[Run], bool]) -> None:
        """End the live attempts of these runs, as a shutdown does: what may go on does so later. Raises StoreError."""
        jobs = {self._registry.by_run[run_id] for run_id in self._places.holders() if run_id in self._registry.by_run}
        await asyncio.gather(*(self._stop_run_of(name, wanted) for name in sorted(jobs)))

    async def _stop_run_of(self, name: JobName, wanted: Callable[[Run], bool]) -> None:
        async with self._registry.lock(name):
            view = self._registry.find(name)
            stopped = tuple(
                replace(
                    run,
                    stop=run.stop or Reason.SHUTDOWN,
                    force=run.force or self._in_a_hurry,
                    next_attempt_ns=None,
                    next_attempt_boot=None,
                )
                for run in (open_runs(view) if view is not None else ())
                if run.attempts and run.attempts[-1].end is None and wanted(run)
            )
            if view is not None and stopped:
                await self._registry.save(Save(with_runs(view, stopped), runs=stopped))
        self.nudge(name)

    def close(self) -> None:
        """No more timers; what runs goes on."""
        self._queue.close()
        self._places.end()

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            try:
                async with self._registry.lock(name):
                    with instruments.reconcile_duration.time(), bound_contextvars(job=name):
                        again_seconds = await self._reconcile(name)
                self._queue.forget_failures(name)
                self._unrecorded.discard(name)
                if again_seconds is not None:
                    self._queue.add_after(name, again_seconds)
            except Exception as error:  # one job's trouble, even a defect of ours, must not end the others
                await self._try_again(name, error)
            finally:
                self._queue.done(name)

    async def _try_again(self, name: JobName, error: Exception) -> None:
        """Later, and later each time; people see why."""
        instruments.reconcile_errors.inc()
        pause = self._queue.retry(name)
        expected = isinstance(error, JobletError | OSError)
        log.warning(
            "reconcile failed",
            job=name,
            error=str(error),
            again_seconds=round(pause, 2),
            exc_info=None if expected else error,
        )
        if isinstance(error, StoreError):
            self._unrecorded.add(name)
        try:
            await self._registry.record(EventDraft(name, "", "Warning", "Delayed", str(error) or repr(error)))
        except StoreError as unwritable:
            log.warning("event not recorded", job=name, error=str(unwritable))

    # --- one job ------------------------------------------------------------------------------------------------------

    async def _reconcile(self, name: JobName) -> float | None:
        """Bring the job in line. Returns in how many seconds to look again, or None: when nudged."""
        await self._attempts.clean_up(name)
        while True:
            view = self._registry.find(name)
            if view is None:
                return None
            if not open_runs(view):
                if view.deleting:
                    event = EventDraft(name, "", "Normal", "Deleted", "stopped and removed")
                    await self._registry.save(Save(view, remove=True, events=[event]))
                    if self._journal is not None:
                        self._journal.removed(view, self._now())
                    return None
                if view.observed_generation < view.generation:  # a generation that asks for no run
                    await self._registry.save(Save(replace(view, observed_generation=view.generation), job=True))
            looks = [await self._step_of(name, run.id) for run in runs_in_turn(view)]
            if None not in looks:
                looks.append(await self._ticker.tick(name) if self._accepting else 0.0)
            waits = [seconds for seconds in looks if seconds]
            if None not in looks:
                return min(*waits, LONGEST_WAIT_SECONDS) if waits else None

    async def _step_of(self, name: JobName, run_id: RunId) -> float | None:
        """A step of that run as it is now: the step of another one may have changed the job."""
        view = self._registry.find(name)
        run = next((one for one in open_runs(view) if one.id == run_id), None) if view is not None else None
        if view is None or run is None:
            return None
        with bound_contextvars(run=run.id, source=str(view.source)):
            return await self._step(view, run)

    async def _step(self, view: JobView, run: Run) -> float | None:
        """One step of a run. Returns None: look at once; 0: wait for a nudge; else seconds."""
        if run.attempts and run.attempts[-1].end is None:
            return await self._attempts.tend(view, run, run.attempts[-1])
        if self._arrays.has_begun(run):
            return await self._arrays.step(view, run, accepting=self._accepting)
        if run.stop is not None:
            return await self._records.finish(view, run, Finish(Phase.STOPPED, run.stop, run.message))
        now = self._moment()
        if is_too_late(run, now.wall_ns):
            why = "its startingDeadline was over before it could begin"
            return await self._records.finish(view, run, Finish(Phase.STOPPED, Reason.MISSED, why))
        left = left_ns(self._bounded(run), now)
        if left is not None and left <= 0:
            return await self._records.finish(
                view, run, Finish(Phase.FAILED, Reason.TIMED_OUT, "its time was up between attempts")
            )
        if wait := wait_ns(run, now):
            self._places.give(run.id)
            wait = wait if left is None else min(wait, left)
            return min(max(wait / SECOND_NS, 0.001), LONGEST_WAIT_SECONDS)
        if not self._accepting:
            self._places.give(run.id)  # taken for an attempt that could not be put on record
            self._note_end()
            return 0.0
        unmet = self._dependencies.look(run)
        if isinstance(unmet, Failed):
            return await self._records.finish(view, run, Finish(Phase.FAILED, Reason.DEPENDENCY_FAILED, unmet.why))
        if why := unmet.why if isinstance(unmet, Waits) else self._resources.waits_for(run.manifest):
            if (run.reason, run.message) != (Reason.WAITING, why):
                await self._records.change(view, replace(run, phase=Phase.PENDING, reason=Reason.WAITING, message=why))
            self._places.give(run.id)  # nobody has to wait because of it
            return 0.0
        if run.marks:
            return await self._arrays.step(view, run, accepting=True)
        return await self._start_in_turn(view, run)

    async def _start_in_turn(self, view: JobView, run: Run) -> float | None:
        """With a place, and where there is room: its next attempt."""
        if not self._places.take(run):
            if run.reason is not Reason.QUEUED:
                await self._records.change(view, replace(run, phase=Phase.PENDING, reason=Reason.QUEUED))
            return 0.0
        if self._room():  # the node's conditions say why; it keeps its place, so that the order stays
            return ROOM_SECONDS
        return await self._attempts.begin(view, run)

    def _note_end(self) -> None:
        if self.is_at_rest:
            self._all_ended.set()

    def _bounded(self, run: Run) -> Run:
        """Within what the configuration allows each."""
        return self._job_bounds.bounded(run)

    def _now(self) -> int:
        return self._registry.clock.wall_ns()

    def _moment(self) -> Moment:
        return self._registry.clock.now()


def job_of(attempt_id: AttemptId) -> JobName:
    return JobName(attempt_id.rsplit("-", 2)[0])

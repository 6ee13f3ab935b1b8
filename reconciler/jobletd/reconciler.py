"""The reconciler: keeps what runs in line with what is desired, one job at a time, level-triggered.

``reconcile(job)`` looks at the oldest open run, asks the executor for the truth about its attempt, takes one durable step, and
looks again until nothing is left to do now. A newer run of the same job waits until the older one has really ended. The intent
to launch is durable before the launch; what an attempt's end means is decided by ``decisions`` alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog
from structlog.contextvars import bound_contextvars

from joblet.clock import Moment
from joblet.crash_points import reached
from joblet.errors import JobletError
from jobletd.backup.journal import LaunchJournal
from jobletd.conditions import with_condition, with_limits_condition
from jobletd.decisions import SECOND_NS, Finish, Retry, after_attempt, left_ns, phase_of, wait_ns
from jobletd.executor import AttemptRequest, Ended, Executor, NeverSubmitted, Observation, Pending, Running
from jobletd.job_bounds import NO_BOUNDS as NO_JOB_BOUNDS
from jobletd.job_bounds import JobBounds
from jobletd.metrics import instruments
from jobletd.model import Attempt, AttemptId, End, JobName, JobView, LimitStatus, Phase, Reason, Run, Unknown
from jobletd.places import Bounds, Places
from jobletd.planning import open_runs, with_runs
from jobletd.registry import EventDraft, Registry, Save
from jobletd.resources import Resources
from jobletd.store import StoreError
from jobletd.work_queue import WorkQueue

WORKERS = 32
LAUNCHES = 2  # handed over at a time: there is one launcher, and the event loop has others to serve
ATTEMPTS_KEPT = 20
NO_BOUNDS = Bounds()
LONGEST_WAIT_SECONDS = 60.0  # then the clocks are read again: the host may have slept, and the loop counts no sleep
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
        resources.subscribe(self.nudge)
        self._executor = executor
        self._journal = journal
        self._room = room
        self._queue: WorkQueue[JobName] = WorkQueue()
        self._places = Places(registry, bounds, self.nudge)
        self._all_ended = asyncio.Event()
        self._launching = asyncio.Semaphore(LAUNCHES)
        self._accepting = True
        self._in_a_hurry = False
        self._cleaning: set[AttemptId] = set()  # ended, and not yet off the host
        self._leftovers: dict[JobName, set[AttemptId]] = {}  # those that could not be cleaned up at the first try

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
        return not self._places and not self._cleaning

    def reconfigure(self, *, bounds: Bounds, job_bounds: JobBounds) -> None:
        """What may change while it runs: it counts for attempts to come, a shorter time for those that run too."""
        self._job_bounds = job_bounds
        self._places.resize(bounds)
        for view in self._registry.views.values():
            if open_runs(view):
                self.nudge(view.name)

    def nudge(self, name: JobName) -> None:
        """Look at a job soon."""
        self._queue.add(name)

    async def settle(self) -> None:
        """Wait until no job wants a look now."""
        await self._queue.join()

    async def start(self) -> None:
        """Take up what an earlier daemon left: adopt, settle, and free what belongs to nothing. Before any launch."""
        self._executor.subscribe(lambda attempt_id: self.nudge(job_of(attempt_id)))
        live = [
            run
            for view in self._registry.views.values()
            for run in open_runs(view)
            if run.attempts and run.attempts[-1].end is None
        ]
        for one in live:
            self._places.adopt(one)
        await self._executor.prune([run.attempts[-1].id for run in live])
        reached("daemon.leftovers-freed")
        for view in list(self._registry.views.values()):
            run = next(reversed(open_runs(view)), None)
            if run is not None and run.stop is None and not wait_ns(run, self._moment()):
                self._places.stand_in_line(run)
        for view in list(self._registry.views.values()):
            if open_runs(view) or view.deleting or view.observed_generation < view.generation:
                self.nudge(view.name)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def stop_all(self) -> None:
        """The daemon's shutdown: end all runs with their grace, and wait until that is on record."""
        self._accepting = False
        await self.stop_runs(lambda _: True)
        while not self.is_at_rest:
            self._all_ended.clear()
            await self._all_ended.wait()

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
            view = self._registry.views.get(name)
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
        try:
            await self._registry.record(EventDraft(name, "", "Warning", "Delayed", str(error) or repr(error)))
        except StoreError as unwritable:
            log.warning("event not recorded", job=name, error=str(unwritable))

    # --- one job ------------------------------------------------------------------------------------------------------

    async def _reconcile(self, name: JobName) -> float | None:
        """Bring the job in line. Returns in how many seconds to look again, or None: when nudged."""
        await self._clean_up(name)
        while True:
            view = self._registry.views.get(name)
            if view is None:
                return None
            active = open_runs(view)
            if not active:
                if view.deleting:
                    event = EventDraft(name, "", "Normal", "Deleted", "stopped and removed")
                    await self._registry.save(Save(view, remove=True, events=[event]))
                    if self._journal is not None:
                        self._journal.removed(view, self._now())
                elif view.observed_generation < view.generation:  # a generation that asks for no run
                    await self._registry.save(Save(replace(view, observed_generation=view.generation), job=True))
                return None
            with bound_contextvars(run=active[-1].id, source=str(view.source)):
                again = await self._step(view, active[-1])
            if again is not None:
                return again or None

    async def _step(self, view: JobView, run: Run) -> float | None:
        """One step of a run. Returns None: look at once; 0: wait for a nudge; else seconds."""
        if run.attempts and run.attempts[-1].end is None:
            return await self._tend(view, run, run.attempts[-1])
        if run.stop is not None:
            return await self._finish(view, run, Finish(Phase.STOPPED, run.stop, run.message))
        now = self._moment()
        left = left_ns(self._job_bounds.bounded(run), now)
        if left is not None and left <= 0:
            return await self._finish(
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
        if why := self._resources.waits_for(run.manifest):
            if (run.reason, run.message) != (Reason.WAITING, why):
                await self._save_run(view, replace(run, phase=Phase.PENDING, reason=Reason.WAITING, message=why))
            self._places.give(run.id)  # nobody has to wait because of it
            return 0.0
        if not self._places.take(run):
            if run.reason is not Reason.QUEUED:
                await self._save_run(view, replace(run, phase=Phase.PENDING, reason=Reason.QUEUED))
            return 0.0
        if self._room():  # the node's conditions say why; it keeps its place, so that the order stays
            return ROOM_SECONDS
        return await self._begin_attempt(view, run)

    async def _begin_attempt(self, view: JobView, run: Run) -> float | None:
        """The intent, durable; then the launch."""
        number = run.attempts[-1].number + 1 if run.attempts else 1
        now = self._moment()
        attempt = Attempt(
            id=AttemptId(f"{run.job}-{run.id}-{number}"),
            run_id=run.id,
            number=number,
            phase=Phase.INITIALIZING,
            created_ns=now.wall_ns,
            created_boot=now.boot,
            epoch=self._executor.epoch,
            generation=run.generation,
        )
        kept = (*run.attempts[:1], *run.attempts[1:][-(ATTEMPTS_KEPT - 2) :], attempt)
        dropped = [old for old in run.attempts if old not in kept]
        for old in dropped:
            await self._executor.remove_logs(old.id)
        started = replace(
            run,
            phase=Phase.INITIALIZING,
            reason=None,
            message="",
            next_attempt_ns=None,
            next_attempt_boot=None,
            attempts=kept,
        )
        observed = max(view.observed_generation, run.generation)
        changes_job = observed != view.observed_generation
        view = with_runs(replace(view, observed_generation=observed), (started,))
        await self._registry.save(Save(view, runs=[started], attempts=[attempt], dropped=dropped, job=changes_job))
        reached("daemon.intent-stored")
        if number == 1:
            instruments.queue_wait.observe(instruments.seconds_between(run.created_ns, now.wall_ns))
        return await self._submit(view, started, attempt)

    async def _submit(self, view: JobView, written: Run, attempt: Attempt) -> float | None:
        run = self._job_bounds.bounded(written)
        left = left_ns(run, self._moment())
        request = AttemptRequest(
            attempt.id,
            run.id,
            attempt.number,
            run.manifest,
            None if left is None else max(left / SECOND_NS, 0.001),
            self._resources.used_by(run.manifest),
            self._resources.secrets_for(run.manifest),
        )
        if self._journal is not None:
            self._journal.launching(view, written, attempt, self._now())
        async with self._launching:
            await self._executor.submit(request)
        instruments.attempts_launched.inc()
        return await self._tend(view, written, attempt)

    async def _tend(self, view: JobView, run: Run, attempt: Attempt) -> float | None:
        """An attempt that has not ended as far as we know: what is true?"""
        look: Observation = (await self._executor.observe([attempt.id]))[attempt.id]
        match look:
            case Ended(end, limits):
                return await self._end_attempt(view, run, attempt, end, limits)
            case NeverSubmitted():
                return await self._not_submitted(view, run, attempt)
            case Pending():
                if run.stop is not None:
                    await self._executor.cancel(attempt.id, force=run.force)
                return 0.0
            case Running(started_ns, _, limits):
                return await self._tend_running(view, run, attempt, started_ns, limits)

    async def _not_submitted(self, view: JobView, run: Run, attempt: Attempt) -> float | None:
        """The intent is on record, the executor knows nothing of it: a crash came between."""
        if attempt.epoch != self._executor.epoch:
            why = "the host was started anew while it ran"
            end = End(Unknown(why), Reason.NODE_REBOOT, self._now(), message=why)
            return await self._end_attempt(view, run, attempt, end, ())
        if run.stop is not None:
            end = End(Unknown("it was never started"), run.stop, self._now(), message="it was never started")
            return await self._end_attempt(view, run, attempt, end, ())
        return await self._submit(view, run, attempt)

    async def _tend_running(
        self, view: JobView, run: Run, attempt: Attempt, started_ns: int, limits: tuple[LimitStatus, ...]
    ) -> float | None:
        if attempt.generation != run.generation and run.stop is None:
            return await self._change_limits(view, run, attempt)
        if attempt.phase is not Phase.RUNNING:
            attempt = replace(attempt, phase=Phase.RUNNING, started_ns=started_ns, limits=limits)
            run = replace(
                _with_attempt(run, attempt), phase=Phase.RUNNING, reason=None, started_ns=run.started_ns or started_ns
            )
            changed = with_limits_condition(with_runs(view, (run,)), limits, self._now())
            events = [EventDraft(run.job, run.id, "Normal", "Started", f"attempt {attempt.number} runs")]
            save = Save(
                changed, runs=[run], attempts=[attempt], events=events, job=changed.conditions != view.conditions
            )
            await self._registry.save(save)
            reached("daemon.start-stored")
            instruments.launch_duration.observe(instruments.seconds_between(attempt.created_ns, started_ns))
        if run.stop is not None:
            await self._executor.cancel(attempt.id, force=run.force)
        return 0.0

    async def _change_limits(self, view: JobView, run: Run, attempt: Attempt) -> float | None:
        """A new generation that goes on with the same process."""
        try:
            limits = await self._executor.update_limits(attempt.id, self._job_bounds.bounded(run).manifest)
        except JobletError as error:  # the old ones are in force: tried again, later each time
            event = EventDraft(run.job, run.id, "Warning", "LimitsNotChanged", str(error))
            told = with_condition(view, "LimitsEnforced", "False", event.reason, event.message, self._now())
            await self._registry.save(Save(told, events=[event], job=told is not view))
            raise
        event = EventDraft(run.job, run.id, "Normal", "LimitsChanged", f"generation {run.generation}, in place")
        attempt = replace(attempt, generation=run.generation, limits=limits)
        run = _with_attempt(run, attempt)
        view = replace(view, observed_generation=max(view.observed_generation, run.generation))
        view = with_limits_condition(with_runs(view, (run,)), attempt.limits, self._now())
        await self._registry.save(Save(view, runs=[run], attempts=[attempt], events=[event], job=True))
        return None

    async def _end_attempt(
        self, view: JobView, run: Run, attempt: Attempt, end: End, limits: tuple[LimitStatus, ...]
    ) -> float | None:
        """The end is recorded once; what follows from it in the same transaction; only then is the host cleaned."""
        self._cleaning.add(attempt.id)
        try:
            reached("daemon.end-seen")
            await self._record_end(view, run, attempt, end, limits)
            reached("daemon.outcome-stored")
            _count_end(attempt, end)
            self._leftovers.setdefault(run.job, set()).add(attempt.id)
            await self._clean_up(run.job)
            reached("daemon.cleaned-up")
        finally:
            self._cleaning.discard(attempt.id)
            self._note_end()
        return None

    def _note_end(self) -> None:
        if self.is_at_rest:
            self._all_ended.set()

    async def _clean_up(self, name: JobName) -> None:
        """Free what the job's ended attempts hold on the host; what fails is tried again with the job's next look."""
        for attempt_id in list(self._leftovers.get(name, ())):
            await self._executor.forget(attempt_id)
            self._leftovers[name].discard(attempt_id)
        self._leftovers.pop(name, None)

    async def _record_end(
        self, view: JobView, run: Run, attempt: Attempt, end: End, limits: tuple[LimitStatus, ...]
    ) -> None:
        events = []
        if attempt.phase is not Phase.RUNNING and end.started_ns is not None:  # it was over before we had seen it run
            events.append(EventDraft(run.job, run.id, "Normal", "Started", f"attempt {attempt.number} ran"))
        attempt = replace(
            attempt,
            phase=phase_of(run, end),
            started_ns=attempt.started_ns or end.started_ns,
            limits=limits or attempt.limits,
            end=end,
        )
        run = replace(_with_attempt(run, attempt), outcome=end.outcome, started_ns=run.started_ns or end.started_ns)
        now = self._moment()
        following = after_attempt(self._job_bounds.bounded(run), end, now)
        if isinstance(following, Finish):
            await self._finish(view, run, following, attempt, events)
        else:
            run = replace(
                run,
                phase=Phase.SCHEDULED,
                reason=following.reason,
                message=end.message,
                next_attempt_ns=now.wall_ns + following.wait_ns,
                next_attempt_boot=now.boot.plus(following.wait_ns),
                stop=None,
                force=False,
            )
            event = _event_of_retry(run, attempt.number, end, following)
            changed = with_limits_condition(with_runs(view, (run,)), attempt.limits, self._now())
            await self._registry.save(
                Save(
                    changed,
                    runs=[run],
                    attempts=[attempt],
                    events=[*events, event],
                    job=changed.conditions != view.conditions,
                )
            )
            self._places.give(run.id)

    async def _finish(
        self,
        view: JobView,
        run: Run,
        finish: Finish,
        attempt: Attempt | None = None,
        earlier: Sequence[EventDraft] = (),
    ) -> float | None:
        """The run is over, for good."""
        ended_ns = attempt.end.ended_ns if attempt is not None and attempt.end is not None else self._now()
        run = replace(
            run,
            phase=finish.phase,
            reason=finish.reason,
            message=finish.message,
            ended_ns=ended_ns,
            next_attempt_ns=None,
            next_attempt_boot=None,
        )
        kind = "Warning" if finish.phase is Phase.FAILED else "Normal"
        event = EventDraft(run.job, run.id, kind, finish.phase.capitalize(), f"{finish.reason}: {finish.message}")
        attempts = [attempt] if attempt is not None else []
        changed = replace(view, observed_generation=max(view.observed_generation, run.generation))
        if attempt is not None:
            changed = with_limits_condition(changed, attempt.limits, self._now())
        changes_job = changed is not view and changed != view
        changed = with_runs(changed, (run,))
        await self._registry.save(
            Save(changed, runs=[run], attempts=attempts, events=[*earlier, event], job=changes_job)
        )
        instruments.runs_ended.labels(finish.phase, finish.reason).inc()
        self._places.give(run.id)
        return None

    async def _save_run(self, view: JobView, run: Run) -> None:
        await self._registry.save(Save(with_runs(view, (run,)), runs=[run]))

    def _now(self) -> int:
        return self._registry.clock.wall_ns()

    def _moment(self) -> Moment:
        return self._registry.clock.now()


def _event_of_retry(run: Run, number: int, end: End, retry: Retry) -> EventDraft:
    if retry.reason is Reason.SHUTDOWN:
        return EventDraft(
            run.job, run.id, "Normal", "Interrupted", f"attempt {number}: by a shutdown; it goes on later"
        )
    return EventDraft(run.job, run.id, "Warning", "Retrying", f"attempt {number}: {end.reason}: {end.message}")


def _count_end(attempt: Attempt, end: End) -> None:
    instruments.attempts_ended.labels(end.reason).inc()
    if end.started_ns is None:
        return
    instruments.attempt_duration.observe(instruments.seconds_between(end.started_ns, end.ended_ns))
    if attempt.phase is not Phase.RUNNING:  # over before we had seen it run
        instruments.launch_duration.observe(instruments.seconds_between(attempt.created_ns, end.started_ns))


def job_of(attempt_id: AttemptId) -> JobName:
    return JobName(attempt_id.rsplit("-", 2)[0])


def _with_attempt(run: Run, attempt: Attempt) -> Run:
    return replace(run, attempts=tuple(attempt if other.id == attempt.id else other for other in run.attempts))

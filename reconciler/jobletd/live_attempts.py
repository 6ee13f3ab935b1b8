"""Attempts from the intent to launch, durable before the launch, until they are over and off the host.

Each step asks the executor for the truth about an attempt first, and tells the reconciler when to look again: None: at once;
0: when nudged; else seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from joblet.crash_points import reached
from joblet.errors import JobletError
from jobletd.backup.journal import LaunchJournal
from jobletd.conditions import with_condition, with_limits_condition
from jobletd.decisions import SECOND_NS, left_ns
from jobletd.executor import AttemptRequest, Ended, Executor, NeverSubmitted, Observation, Pending, Running
from jobletd.metrics import instruments
from jobletd.metrics.ends import count_attempt
from jobletd.model import Attempt, AttemptId, End, JobName, JobView, LimitStatus, Phase, Reason, Run, Unknown
from jobletd.planning import with_runs
from jobletd.registry import Registry
from jobletd.relaunches import Relaunches
from jobletd.resources import Resources
from jobletd.run_records import RunRecords, with_attempt
from jobletd.saves import EventDraft, Save

LAUNCHES = 2  # handed over at a time: there is one launcher, and the event loop has others to serve
ATTEMPTS_KEPT = 20
log = structlog.get_logger("reconciler")


class LiveAttempts:
    """bounded: a run within what the configuration allows each. on_cleaned: called when one is off the host, or could not be
    put off it."""

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        resources: Resources,
        records: RunRecords,
        *,
        bounded: Callable[[Run], Run],
        journal: LaunchJournal | None,
        on_cleaned: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._executor = executor
        self._resources = resources
        self._records = records
        self._bounded = bounded
        self._journal = journal
        self._on_cleaned = on_cleaned
        self._launching = asyncio.Semaphore(LAUNCHES)
        self._relaunches = Relaunches(registry.clock)
        self._cleaning: set[AttemptId] = set()  # ended, and not yet off the host
        self._leftovers: dict[JobName, set[AttemptId]] = {}  # those that could not be cleaned up at the first try

    @property
    def are_cleaned(self) -> bool:
        """Whether nothing of those that ended is left on the host."""
        return not self._cleaning

    async def begin(self, view: JobView, run: Run) -> float | None:
        """The intent, durable; then the launch."""
        number = run.attempts[-1].number + 1 if run.attempts else 1
        now = self._registry.clock.now()
        attempt = Attempt(
            id=AttemptId(f"{run.job}-{run.id}-{number}"),
            run_id=run.id,
            number=number,
            phase=Phase.INITIALIZING,
            created_ns=now.wall_ns,
            created_boot=now.boot,
            epoch=self._executor.epoch_of(run.manifest),
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
        run = self._bounded(written)
        left = left_ns(run, self._registry.clock.now())
        request = AttemptRequest(
            attempt.id,
            run.id,
            attempt.number,
            run.manifest,
            None if left is None else max(left / SECOND_NS, 0.001),
            self._resources.used_by(run.manifest),
            self._resources.secrets_for(run.manifest),
            run.tick_seconds,
            None if run.trace is None else run.trace.derived(attempt.id),
        )
        if request.secrets:
            reached("secret.opened")
        if self._journal is not None:
            array = self._registry.arrays.array_of(view)
            job = view if array is None else array.view
            self._journal.launching(
                job, written, attempt, self._registry.clock.wall_ns(), array=array.run if array else None
            )
        log.debug("launching", job=run.job, run=run.id, attempt=attempt.id, waited_for_others=self._launching.locked())
        async with self._launching:
            await self._executor.submit(request)
        self._relaunches.handed_over(attempt.id)
        instruments.attempts_launched.inc()
        return await self.tend(view, written, attempt)

    async def tend(self, view: JobView, run: Run, attempt: Attempt) -> float | None:
        """An attempt that has not ended as far as we know: what is true?"""
        look: Observation = (await self._executor.observe([attempt.id]))[attempt.id]
        match look:
            case Ended(end, limits):
                return await self._end_attempt(view, run, attempt, end, limits)
            case NeverSubmitted():
                return await self._not_submitted(view, run, attempt)
            case Pending(why):
                if run.stop is not None:
                    await self._executor.cancel(attempt.id, force=run.force)
                elif why != run.message:
                    await self._records.change(view, replace(run, reason=Reason.QUEUED if why else None, message=why))
                return 0.0
            case Running(started_ns, _, limits):
                return await self._tend_running(view, run, attempt, started_ns, limits)

    async def _not_submitted(self, view: JobView, run: Run, attempt: Attempt) -> float | None:
        """The intent is on record, the executor knows nothing of it: a crash came between, ours or its init's."""
        if attempt.epoch != self._executor.epoch_of(run.manifest):
            why = "the host was started anew while it ran"
            end = End(Unknown(why), Reason.NODE_REBOOT, self._registry.clock.wall_ns(), message=why)
            return await self._end_attempt(view, run, attempt, end, ())
        if run.stop is not None:
            end = End(
                Unknown("it was never started"),
                run.stop,
                self._registry.clock.wall_ns(),
                message="it was never started",
            )
            return await self._end_attempt(view, run, attempt, end, ())
        if (wait := self._relaunches.wait_seconds(attempt.id)) > 0:
            return wait
        if self._relaunches.count(attempt.id) > 1:
            why = f"attempt {attempt.number}: its init ended before the command was started; launched again"
            await self._registry.record(EventDraft(run.job, run.id, "Warning", "Relaunched", why))
        return await self._submit(view, run, attempt)

    async def _tend_running(
        self, view: JobView, run: Run, attempt: Attempt, started_ns: int, limits: tuple[LimitStatus, ...]
    ) -> float | None:
        if attempt.generation != run.generation and run.stop is None:
            return await self._change_limits(view, run, attempt)
        self._relaunches.over(attempt.id)
        if attempt.phase is not Phase.RUNNING:
            attempt = replace(attempt, phase=Phase.RUNNING, started_ns=started_ns, limits=limits)
            run = replace(
                with_attempt(run, attempt),
                phase=Phase.RUNNING,
                reason=None,
                message="",
                started_ns=run.started_ns or started_ns,
            )
            changed = with_limits_condition(with_runs(view, (run,)), limits, self._registry.clock.wall_ns())
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
            limits = await self._executor.update_limits(attempt.id, self._bounded(run).manifest)
        except JobletError as error:  # the old ones are in force: tried again, later each time
            event = EventDraft(run.job, run.id, "Warning", "LimitsNotChanged", str(error))
            told = with_condition(
                view, "LimitsEnforced", "False", event.reason, event.message, self._registry.clock.wall_ns()
            )
            await self._registry.save(Save(told, events=[event], job=told is not view))
            raise
        event = EventDraft(run.job, run.id, "Normal", "LimitsChanged", f"generation {run.generation}, in place")
        attempt = replace(attempt, generation=run.generation, limits=limits)
        run = with_attempt(run, attempt)
        view = replace(view, observed_generation=max(view.observed_generation, run.generation))
        view = with_limits_condition(with_runs(view, (run,)), attempt.limits, self._registry.clock.wall_ns())
        await self._registry.save(Save(view, runs=[run], attempts=[attempt], events=[event], job=True))
        return None

    async def _end_attempt(
        self, view: JobView, run: Run, attempt: Attempt, end: End, limits: tuple[LimitStatus, ...]
    ) -> float | None:
        """The end is recorded once; what follows from it in the same transaction; only then is the host cleaned."""
        self._cleaning.add(attempt.id)
        self._relaunches.over(attempt.id)
        try:
            reached("daemon.end-seen")
            await self._records.end_attempt(view, run, attempt, end, limits)
            reached("daemon.outcome-stored")
            count_attempt(attempt, end)
            log.debug("ended", job=run.job, run=run.id, attempt=attempt.id, reason=end.reason, message=end.message)
            self._leftovers.setdefault(run.job, set()).add(attempt.id)
            await self.clean_up(run.job)
            reached("daemon.cleaned-up")
        finally:
            self._cleaning.discard(attempt.id)
            self._on_cleaned()
        return None

    async def clean_up(self, name: JobName) -> None:
        """Free what the job's ended attempts hold on the host; what fails is tried again with the job's next look."""
        for attempt_id in list(self._leftovers.get(name, ())):
            await self._executor.forget(attempt_id)
            self._leftovers[name].discard(attempt_id)
        self._leftovers.pop(name, None)

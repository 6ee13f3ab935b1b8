"""Asks services whether they are well: one task for each attempt that runs and has a probe.

What is known is in memory alone, since it is soon known again: after a restart each attempt is asked anew, and what its job's
condition Ready says stays until then. What follows from it is durable: the condition, and that an older run is to end whose newer
one is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import Probe, ProbeFailure
from jobletd.executor import AttemptRequest, Executor, ExecutorUnavailable
from jobletd.model import AttemptId, JobName, JobView, Run, RunId
from jobletd.planning import with_runs
from jobletd.probing.health import Health, after_probe, pause_seconds, unknown
from jobletd.probing.readiness import condition_of, events_of, probed_runs, relieved, with_readiness
from jobletd.registry import Registry
from jobletd.resources import Resources
from jobletd.saves import EventDraft, Save
from jobletd.work_queue import WorkQueue

AT_ONCE = 8  # probes under way: each is a process
WORKERS = 4
log = structlog.get_logger("probe")


@dataclass(slots=True)
class _Asked:
    """An attempt that is asked, with the task that does it."""

    run_id: RunId
    health: Health = field(default_factory=Health)
    task: asyncio.Task[None] | None = None


class Prober:
    """One for the host. ``run`` until cancelled. nudge: tells the reconciler that a job wants a look."""

    def __init__(
        self, registry: Registry, executor: Executor, resources: Resources, nudge: Callable[[JobName], None]
    ) -> None:
        self._registry = registry
        self._executor = executor
        self._resources = resources
        self._nudge = nudge
        self._asked: dict[AttemptId, _Asked] = {}
        self._attempts: dict[JobName, set[AttemptId]] = {}
        self._queue: WorkQueue[JobName] = WorkQueue()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._running = False
        registry.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        self._running = True
        for name, view in list(self._registry.views.items()):
            self._changed(name, view)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            self._running = False
            self._queue.close()
            tasks = [asked.task for asked in self._asked.values() if asked.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until no job's readiness is to be looked at."""
        await self._queue.join()

    def _changed(self, name: JobName, view: JobView | None) -> None:
        """Ask who runs now; stop asking who does not any more."""
        if not self._running:
            return
        wanted = {run.attempts[-1].id: run for run in probed_runs(view)} if view is not None else {}
        known = self._attempts.get(name, set())
        for attempt_id in known - wanted.keys():
            asked = self._asked.pop(attempt_id)
            if asked.task is not None:
                asked.task.cancel()
        for attempt_id in wanted.keys() - known:
            asked = self._asked[attempt_id] = _Asked(wanted[attempt_id].id)
            asked.task = asyncio.create_task(self._ask(name, attempt_id, asked), name=f"probe-{attempt_id}")
        if wanted:
            self._attempts[name] = set(wanted)
        else:
            self._attempts.pop(name, None)
        if view is not None and (known != wanted.keys() or (not wanted and condition_of(view) is not None)):
            self._queue.add(name)

    async def _ask(self, name: JobName, attempt_id: AttemptId, asked: _Asked) -> None:
        """Until the attempt has ended, which cancels this."""
        while True:
            run = self._run_of(name, asked.run_id)
            if run is None or (probe := run.manifest.spec.probe) is None:
                return
            before, asked.health = asked.health, await self._asked_once(name, run, probe, asked.health)
            if _shown(before) != _shown(asked.health):
                self._queue.add(name)
            if asked.health.given_up and probe.on_failure is ProbeFailure.RESTART:
                await self._restart(run, attempt_id, asked.health.why)
                return
            await asyncio.sleep(pause_seconds(asked.health, probe))

    async def _asked_once(self, name: JobName, run: Run, probe: Probe, health: Health) -> Health:
        """What is known of it after one more call: the answers that have come meanwhile, which may be none."""
        try:
            async with self._slots:
                answers = await self._executor.probe(self._request(run), probe)
        except ExecutorUnavailable as error:
            return unknown(health, error.what)
        except (JobletError, OSError) as error:
            answers = [f"could not be asked: {error}"]
        except Exception as error:  # a defect of ours is no fault of the job, and must not end the asking
            log.exception("a probe broke", job=name, error=str(error))
            answers = ["could not be asked; the daemon's log tells more"]
        for why in answers:
            health = after_probe(health, probe, why, self._age_seconds(run))
        return health

    async def _restart(self, run: Run, attempt_id: AttemptId, why: str) -> None:
        """The attempt is stopped with its grace; its end brings the next one, as any end of a service does."""
        number = run.attempts[-1].number
        event = EventDraft(run.job, run.id, "Warning", "ProbeFailed", f"attempt {number} is stopped: {why}")
        await self._registry.record(event)
        await self._executor.cancel(attempt_id, force=False)

    def _request(self, run: Run) -> AttemptRequest:
        """Raises JobletError if something that it uses is gone."""
        attempt = run.attempts[-1]
        secrets = self._resources.secrets_for(run.manifest)
        return AttemptRequest(attempt.id, run.id, attempt.number, run.manifest, None, (), secrets)

    def _run_of(self, name: JobName, run_id: RunId) -> Run | None:
        view = self._registry.views.get(name)
        return next((run for run in view.runs if run.id == run_id), None) if view is not None else None

    def _age_seconds(self, run: Run) -> float:
        attempt = run.attempts[-1]
        return self._registry.clock.now().since_ns(attempt.created_ns, attempt.created_boot) / 10**9

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            try:
                async with self._registry.lock(name):
                    await self._settle_job(name)
                self._queue.forget_failures(name)
            except Exception as error:  # one job's trouble, even a defect of ours, must not end the others
                pause = self._queue.retry(name)
                expected = isinstance(error, JobletError | OSError)
                told = {"job": name, "error": str(error), "again_seconds": round(pause, 2)}
                log.warning("readiness not recorded", **told, exc_info=None if expected else error)
            finally:
                self._queue.done(name)

    async def _settle_job(self, name: JobName) -> None:
        """What follows from what is known, durably."""
        view = self._registry.views.get(name)
        if view is None:
            return
        known = {attempt_id: self._asked[attempt_id].health for attempt_id in self._attempts.get(name, ())}
        changed, stopped = with_readiness(view, known, self._registry.clock.wall_ns()), relieved(view, known)
        if changed is view and not stopped:
            return
        save = Save(
            with_runs(changed, stopped),
            runs=stopped,
            events=events_of(view, changed, stopped),
            job=changed is not view,
        )
        await self._registry.save(save)
        if stopped:
            reached("daemon.relieved-stored")
            self._nudge(name)


def _shown(health: Health) -> tuple[object, ...]:
    """What of it has consequences."""
    return health.ready, health.started, health.given_up, health.why, bool(health.successes + health.failures)

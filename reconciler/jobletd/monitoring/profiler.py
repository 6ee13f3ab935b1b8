"""Takes samples of what runs, seldom of what has run for long: a second apart at first, a 120th of its time later.

So an hour of 500 idle jobs costs some 16 looks a second. Kept with the attempt's run at its end, and each time when it has
doubled: a crash of the daemon loses the latest half of a course at most.
"""

from __future__ import annotations

import asyncio
import heapq

import structlog

from jobletd.executor import Executor, Running
from jobletd.model import Attempt, AttemptId, JobName, JobView, Phase, Run
from jobletd.monitoring.profile import FIRST_INTERVAL_NS, Profile
from jobletd.registry import Registry
from jobletd.store import StoreError
from jobletd.store.profile_rows import load_profile, put_profile

SECOND_NS = 10**9
AT_A_TIME = 20
FIRST_KEPT = 4  # samples; before that there is nothing to lose
log = structlog.get_logger("profiler")


class Profiler:
    """One for the daemon. ``start`` before ``run``."""

    def __init__(self, registry: Registry, executor: Executor) -> None:
        self._registry = registry
        self._executor = executor
        self._profiles: dict[AttemptId, Profile] = {}
        self._runs: dict[AttemptId, Run] = {}
        self._due: list[tuple[int, AttemptId]] = []
        self._wanted = asyncio.Event()
        self._writes: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Go on with those of an earlier daemon."""
        for view in self._registry.views.values():
            for run in view.runs[:2]:
                if run.attempts and run.attempts[-1].phase is Phase.RUNNING:
                    attempt = run.attempts[-1]
                    self._begin(run, attempt, await self._kept(attempt.id))
        self._registry.on_change(self.changed)

    def changed(self, name: JobName, view: JobView | None) -> None:
        """Begin with what has started, and end with what has ended."""
        if view is None:
            for attempt_id in [known for known, run in self._runs.items() if run.job == name]:
                self._end(attempt_id)
            return
        for run in view.runs[:2]:
            for attempt in run.attempts[-2:]:  # the end of one and the intent of the next may be seen together
                if attempt.end is not None:
                    self._ended(run, attempt)
                elif attempt.phase is Phase.RUNNING and attempt.id not in self._profiles:
                    self._begin(run, attempt)

    async def run(self) -> None:
        """Take samples when they are due, until cancelled; then keep what there is."""
        try:
            while True:
                await self._wait()
                await self._take(self._registry.clock.wall_ns())
        finally:
            for attempt_id in list(self._profiles):
                self._keep(attempt_id)
            await asyncio.gather(*self._writes)

    async def of(self, attempt_id: AttemptId) -> Profile | None:
        """The course of that attempt; None: it was too short for one, or it is not kept any more."""
        return self._profiles.get(attempt_id) or await self._kept(attempt_id)

    async def _kept(self, attempt_id: AttemptId) -> Profile | None:
        packed = await self._registry.store.read(lambda connection: load_profile(connection, attempt_id))
        if packed is None:
            return None
        try:
            return Profile.decoded(packed)
        except ValueError as error:
            log.warning("not readable, left out", attempt=attempt_id, error=str(error))
            return None

    # --- samples ------------------------------------------------------------------------------------------------------

    def _begin(self, run: Run, attempt: Attempt, profile: Profile | None = None) -> None:
        self._profiles[attempt.id] = profile or Profile(attempt.started_ns or attempt.created_ns)
        self._runs[attempt.id] = run
        self._plan(attempt.id, self._registry.clock.wall_ns())

    def _plan(self, attempt_id: AttemptId, now_ns: int) -> None:
        heapq.heappush(self._due, (now_ns + self._profiles[attempt_id].interval_ns, attempt_id))
        self._wanted.set()

    async def _wait(self) -> None:
        """Until the first is due. The wall clock may be set: so never for long."""
        while not self._due:
            self._wanted.clear()
            await self._wanted.wait()
        wait_ns = self._due[0][0] - self._registry.clock.wall_ns()
        await asyncio.sleep(min(max(wait_ns, 0), FIRST_INTERVAL_NS) / SECOND_NS)

    async def _take(self, now_ns: int) -> None:
        due: list[AttemptId] = []
        while self._due and self._due[0][0] <= now_ns and len(due) < AT_A_TIME:
            due.append(heapq.heappop(self._due)[1])
        wanted = [attempt_id for attempt_id in due if attempt_id in self._profiles]
        seen = await self._executor.observe(wanted)
        for attempt_id in wanted:
            if (profile := self._profiles.get(attempt_id)) is None:
                continue  # it has ended while we looked
            interval_ns, count = profile.interval_ns, len(profile.samples)
            if isinstance(look := seen[attempt_id], Running):
                profile.add(now_ns, look.usage)
            if profile.interval_ns != interval_ns or is_milestone(count, len(profile.samples)):
                self._keep(attempt_id)
            self._plan(attempt_id, now_ns)

    def _ended(self, run: Run, attempt: Attempt) -> None:
        profile = self._profiles.get(attempt.id)
        if profile is None or attempt.end is None:
            return
        if profile.samples:
            last = profile.samples[-1]
            profile.add(attempt.end.ended_ns, attempt.end.usage)
            if not attempt.end.usage.memory_bytes and profile.samples[-1] is not last:
                # nothing is in use at the end: what was, a moment before, says more
                fields = profile.samples[-1].fields
                profile.samples[-1] = type(last)(fields[0], last.memory_bytes, *fields[2:])
        self._runs[attempt.id] = run
        self._keep(attempt.id)
        self._end(attempt.id)

    def _end(self, attempt_id: AttemptId) -> None:
        self._profiles.pop(attempt_id, None)
        self._runs.pop(attempt_id, None)

    def _keep(self, attempt_id: AttemptId) -> None:
        """In a task of its own: nobody waits for it, and nothing but a drawing is lost with it."""
        profile, run = self._profiles[attempt_id], self._runs[attempt_id]
        if not profile.samples:
            return
        packed = profile.encoded()

        async def write() -> None:
            try:
                await self._registry.store.write(lambda connection: put_profile(connection, attempt_id, run.id, packed))
            except StoreError as error:
                log.warning("not kept", attempt=attempt_id, error=str(error))

        task = asyncio.create_task(write(), name="profile")
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)


def is_milestone(before: int, now: int) -> bool:
    """Whether the number of samples has just become a power of two that is worth keeping."""
    return now > before and now >= FIRST_KEPT and now & (now - 1) == 0

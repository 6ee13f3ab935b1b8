"""Takes samples of what runs, seldom of what has run for long: a second apart at first, a 120th of its time later.

Many that run share the looks, one after the other, and a look at what has used no CPU since is one file: 500 idle jobs cost 20
looks and one waking a second. Kept with the attempt's run at its end, and each time when it has doubled: a crash of the daemon
loses the latest half of a course at most, and nothing of one in which nothing happened.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass

import structlog

from jobletd.executor import Executor
from jobletd.model import Attempt, AttemptId, JobName, JobView, Phase, Run, RunId, Usage
from jobletd.monitoring.agenda import Agenda
from jobletd.monitoring.profile import Profile
from jobletd.registry import Registry
from jobletd.store import StoreError
from jobletd.store.profile_rows import load_profile, put_profile

SECOND_NS = 10**9
AT_A_TIME = 20
FIRST_LOOKS = 4  # of each that does something: before there is a course, nobody waits for a turn
FIRST_KEPT = 3  # samples: something has changed
# Of so many looks in a row one reads everything: what is written back or reclaimed later uses no CPU of the job.
WHOLE_LOOK = 10
log = structlog.get_logger("profiler")


@dataclass(slots=True)
class _Followed:
    """One attempt that runs. looks: that were taken; whole: the number of those, by WHOLE_LOOK, that read everything. usage: as
    it was last read."""

    run: Run
    profile: Profile
    whole: int
    looks: int = 0
    usage: Usage | None = None

    @property
    def known(self) -> Usage | None:
        """What need not be read again if nothing of it has run."""
        return self.usage if self.looks % WHOLE_LOOK != self.whole else None

    def saw(self, now_ns: int, usage: Usage) -> bool:
        """Take it into the course. True if that is worth keeping."""
        self.usage = usage
        interval_ns, count = self.profile.interval_ns, len(self.profile.samples)
        self.profile.add(now_ns, usage)
        return self.profile.interval_ns != interval_ns or is_milestone(count, len(self.profile.samples))


class Profiler:
    """One for the daemon. ``start`` before ``run``."""

    def __init__(self, registry: Registry, executor: Executor) -> None:
        self._registry = registry
        self._executor = executor
        self._followed: dict[AttemptId, _Followed] = {}
        self._agenda = Agenda()
        self._begun = 0
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
            for attempt_id in [known for known, one in self._followed.items() if one.run.job == name]:
                del self._followed[attempt_id]
            return
        for run in view.runs[:2]:
            for attempt in run.attempts[-2:]:  # the end of one and the intent of the next may be seen together
                if attempt.end is not None:
                    self._ended(run, attempt)
                elif attempt.phase is Phase.RUNNING and attempt.id not in self._followed:
                    self._begin(run, attempt)

    async def run(self) -> None:
        """Take samples when they are due, until cancelled; then keep what there is."""
        try:
            while True:
                await self._wait()
                await self.look()
                await asyncio.sleep(0)  # others want their turn, however many are due
        finally:
            self._keep(*self._followed)
            await asyncio.gather(*self._writes)

    async def of(self, attempt_id: AttemptId) -> Profile | None:
        """The course of that attempt; None: it was too short for one, or it is not kept any more."""
        followed = self._followed.get(attempt_id)
        return followed.profile if followed is not None else await self._kept(attempt_id)

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

    @property
    def next_look(self) -> float | None:
        """When somebody is due, in seconds since boot."""
        return self._agenda.next

    def _begin(self, run: Run, attempt: Attempt, profile: Profile | None = None) -> None:
        self._begun += 1
        whole = self._begun % WHOLE_LOOK  # not of all of them in the same round
        if profile is None:
            followed = _Followed(run, Profile(attempt.started_ns or attempt.created_ns), whole)
        else:
            followed = _Followed(run, profile, whole, looks=FIRST_LOOKS)
        self._followed[attempt.id] = followed
        self._plan(attempt.id, followed)

    def _plan(self, attempt_id: AttemptId, followed: _Followed) -> None:
        now, pause = self._registry.clock.boot_seconds(), followed.profile.pause_ns / SECOND_NS
        if followed.looks < FIRST_LOOKS and not followed.profile.rests:
            self._agenda.first(attempt_id, now, pause)
        else:
            self._agenda.later(attempt_id, now, pause, len(self._followed))
        self._wanted.set()

    async def _wait(self) -> None:
        """Until the first is due."""
        while (due := self._agenda.next) is None or due > self._registry.clock.boot_seconds():
            self._wanted.clear()
            seconds = None if due is None else due - self._registry.clock.boot_seconds()
            try:
                async with asyncio.timeout(seconds):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """At those that are due."""
        due = self._agenda.take(self._registry.clock.boot_seconds(), AT_A_TIME)
        wanted = {attempt_id: one for attempt_id in due if (one := self._followed.get(attempt_id)) is not None}
        seen = await self._executor.usage({attempt_id: one.known for attempt_id, one in wanted.items()})
        now_ns = self._registry.clock.wall_ns()
        worth_keeping: list[AttemptId] = []
        for attempt_id, one in wanted.items():
            if self._followed.get(attempt_id) is not one:
                continue  # it has ended while we looked
            one.looks += 1
            if (used := seen.get(attempt_id)) is not None and one.saw(used.at_ns or now_ns, used.usage):
                worth_keeping.append(attempt_id)
            self._plan(attempt_id, one)
        self._keep(*worth_keeping)

    def _ended(self, run: Run, attempt: Attempt) -> None:
        followed = self._followed.get(attempt.id)
        if followed is None or attempt.end is None:
            return
        profile, followed.run = followed.profile, run
        if profile.samples:
            last = profile.samples[-1]
            profile.add(attempt.end.ended_ns, attempt.end.usage)
            if not attempt.end.usage.memory_bytes and profile.samples[-1] is not last:
                # nothing is in use at the end: what was, a moment before, says more
                fields = profile.samples[-1].fields
                profile.samples[-1] = type(last)(fields[0], last.memory_bytes, *fields[2:])
        self._keep(attempt.id)
        del self._followed[attempt.id]

    def _keep(self, *attempts: AttemptId) -> None:
        """In a task of its own: nobody waits for it, and nothing but a drawing is lost with it."""
        rows = [
            (attempt_id, one.run.id, one.profile.encoded())
            for attempt_id in attempts
            if (one := self._followed[attempt_id]).profile.samples
        ]
        if rows:
            task = asyncio.create_task(self._write(rows), name="profile")
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def _write(self, rows: list[tuple[AttemptId, RunId, bytes]]) -> None:
        def put(connection: sqlite3.Connection) -> None:
            for row in rows:
                put_profile(connection, *row)

        try:
            await self._registry.store.write(put)
        except StoreError as error:
            log.warning("not kept", attempts=[attempt_id for attempt_id, _, _ in rows], error=str(error))


def is_milestone(before: int, now: int) -> bool:
    """Whether the number of samples has just become one that is worth keeping: twice the last of them."""
    doublings, rest = divmod(now, FIRST_KEPT)
    return now > before and not rest and doublings & (doublings - 1) == 0

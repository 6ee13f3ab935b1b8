"""One look at everything: Slurm's jobs by one query, what the nodes have written, and what follows from both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from joblet.clock import Clock
from jobletd.executor import Ended, Observation, Pending, Running
from jobletd.executor.slurm.bringing import Bringing
from jobletd.executor.slurm.client import Client, SlurmJob, SlurmUnavailable
from jobletd.executor.slurm.records import NOTHING, Told, give_up, read_exit, read_told, read_usage
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm.tracking import Ask, Tracked, attempt_of, choose, doubles
from jobletd.executor.slurm.verdict import ACTIVE, WAITING, Seen, Step, Verdict, decide, is_over, place_of, refined
from jobletd.executor.slurm_node.place import EXIT
from jobletd.executor.slurm_node.records import DamagedRecord, ended_of
from jobletd.model import AttemptId, End, Reason, Unknown

USAGE_SECONDS = 5.0  # between two looks at what an attempt uses
TOLD_AFTER_SECONDS = 3.0  # a wait that is worth a word
log = structlog.get_logger("slurm")


@dataclass(slots=True)
class Changes:
    """told: attempts of which something else is true now. lost: those that have to be handed over again."""

    told: list[AttemptId] = field(default_factory=list)
    lost: list[AttemptId] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.told or self.lost)


class Watch:
    """answered: set while Slurm does. listed: its jobs of ours by name, as of the last answer. trouble: why it does not."""

    def __init__(
        self,
        settings: SlurmSettings,
        client: Client,
        clock: Clock,
        call: Callable[..., Awaitable[Any]],
        has_ended: Callable[[AttemptId], bool],
        bringing: Bringing | None = None,
    ) -> None:
        """has_ended: whether an attempt of ours was forgotten after its end; what other daemons have in Slurm is theirs.
        bringing: where no directory is shared with the nodes."""
        self._has_ended = has_ended
        self._settings = settings
        self._client = client
        self._clock = clock
        self._call = call
        self._bringing = bringing
        self.answered = asyncio.Event()
        self.listed: dict[str, list[SlurmJob]] = {}
        self.trouble = ""
        self._useless: dict[str, float] = {}  # jobs whose attempt has ended, and since when they were seen so
        self._since_list: set[AttemptId] = set()  # handed over while a list was on its way, which cannot have them

    def is_away(self, why: str) -> None:
        if not self.trouble:
            log.warning("Slurm is away", error=why)
        self.trouble = why
        self.answered.clear()

    @property
    def awaits_ends(self) -> bool:
        """Whether Slurm is not done with jobs whose attempts have ended."""
        return bool(self._useless)

    def submitted(self, attempt_id: AttemptId) -> None:
        self._since_list.add(attempt_id)

    def forget(self, attempt_id: AttemptId) -> None:
        self._since_list.discard(attempt_id)

    async def look(self, tracked: Mapping[AttemptId, Tracked]) -> Changes:
        """Ask, read, decide. Raises nothing that Slurm or the shared directory are to blame for."""
        self._since_list.clear()
        was_away = bool(self.trouble)
        answered = await self._list()
        here = [one for one in tracked.values() if not one.has_ended and one.attempt_id not in self._since_list]
        now = self._clock.boot_seconds()
        for one in here:
            if answered:
                jobs = [job for job in self.listed.get(one.name, []) if job.id not in one.dropped]
                one.job = choose(jobs, one.job_id, one.told.claim)
                one.note(now)
        begun = [one for one in here if one.wants_reading(now) or was_away or not answered]
        if self._bringing is not None:
            await self._bringing.refresh(begun, slurm_answers=answered)
        told = await self._call(self._read, begun)
        changes = Changes()
        for one in here:
            if one.attempt_id in tracked and not one.has_ended:
                one.told = told.get(one.attempt_id, one.told)
                await self._settle(one, answered, now, changes)
        await self._cancel_doubles(here)
        if answered:
            await self._cancel_useless(tracked, now)
        return changes

    async def _list(self) -> bool:
        try:
            jobs = await self._call(self._client.jobs)
        except SlurmUnavailable as error:
            self.is_away(str(error))
            return False
        if self.trouble:
            log.info("Slurm answers again")
        self.trouble = ""
        self.listed = {}
        for job in jobs:
            self.listed.setdefault(job.name, []).append(job)
        self.answered.set()
        return True

    def _read(self, those: Iterable[Tracked]) -> dict[AttemptId, Told]:
        """In a thread. What cannot be read now, as the shared directory is away, is read with the next look."""
        found = {}
        for one in those:
            try:
                directory = self._settings.attempt_directory(one.attempt_id)
                if isinstance(one.observation, Running):
                    found[one.attempt_id] = self._read_running(one, directory)
                else:
                    found[one.attempt_id] = read_told(directory)
                if self._bringing is not None:
                    silent = self._bringing.silent_about(one.attempt_id)
                    found[one.attempt_id] = replace(found[one.attempt_id], silent=silent)
            except OSError as error:
                log.warning("the shared directory cannot be read", attempt=one.attempt_id, error=str(error))
        return found

    def _read_running(self, one: Tracked, directory: str) -> Told:
        """Of what runs nothing but its end counts; what it uses is noted seldom, so it is not read with each look."""
        told = replace(one.told, exit=read_exit(directory))
        now = self._clock.boot_seconds()
        if told.exit is not None or now - one.usage_read_at < USAGE_SECONDS:
            return told
        one.usage_read_at = now
        return replace(told, usage=read_usage(directory) or told.usage)

    # --- one attempt --------------------------------------------------------------------------------------------------

    async def _settle(self, one: Tracked, answered: bool, now: float, changes: Changes) -> None:
        now_ns = self._clock.wall_ns()
        seen = self._seen(one, answered, now)
        if one.told.exit is not None:
            if self._bringing is not None and self._bringing.awaits_output(one.attempt_id):
                return
            self._tell(one, self._by_record(seen), changes)
            return
        if seen.job is not None and seen.job.id != one.job_id and not one.in_hand:
            one.job_id = seen.job.id  # of a submission whose answer never came
            seen = replace(seen, job_id=one.job_id)
        if not one.stop and seen.job is not None and seen.job.state in WAITING and one.past_deadline(now_ns):
            one.time_is_up = True
            seen = replace(seen, time_is_up=True)
        verdict = decide(seen, grace_seconds=self._settings.grace_seconds, now_ns=now_ns)
        await self._act(one, verdict, changes)

    async def _act(self, one: Tracked, verdict: Verdict, changes: Changes) -> None:
        match verdict.step:
            case Step.GIVE_UP if isinstance(verdict.observation, Ended):
                if not await self._give_up(one, verdict.observation):
                    return  # it has just begun, or the shared directory is away: the next look tells
            case Step.HAND_OVER_AGAIN:
                log.warning("Slurm has lost a job that no node had begun", attempt=one.attempt_id, job=one.job_id)
                one.dropped.add(one.job_id)
                one.job_id, one.job, one.over_since = "", None, None
                changes.lost.append(one.attempt_id)
            case Step.CANCEL:
                one.time_is_up = True
        self._tell(one, verdict.observation, changes)

    async def _give_up(self, one: Tracked, ended: Ended) -> bool:
        """Whether nobody can begin it any more."""
        directory = self._settings.attempt_directory(one.attempt_id)
        end = ended.end
        try:
            if self._bringing is not None and not await self._bringing.fence(one):
                return False
            done = await self._call(give_up, directory, one.attempt_id, end.message, end.reason)
        except OSError as error:
            log.warning("the shared directory cannot be written", attempt=one.attempt_id, error=str(error))
            return False
        if one.job is not None and (one.job.state in WAITING or one.job.state in ACTIVE):
            await self._ask(self._client.cancel, [one.job.id])
        return done or one.told.claim is not None

    def _by_record(self, seen: Seen) -> Ended:
        document = seen.told.exit
        assert document is not None
        try:
            ended = ended_of(document)
        except DamagedRecord as error:
            why = str(error)
            return Ended(End(Unknown(why), Reason.LOST, self._clock.wall_ns(), message=why, place=place_of(seen)), ())
        return replace(ended, end=replace(refined(ended.end, seen), place=place_of(seen)))

    def _seen(self, one: Tracked, answered: bool, now: float) -> Seen:
        return Seen(
            job_id=one.job_id,
            answered=answered,
            job=one.job,
            told=one.told,
            before=one.observation,
            over_seconds=0.0 if one.over_since is None else now - one.over_since,
            trouble=one.trouble or self.trouble,
            told_why=now - one.waits_since >= TOLD_AFTER_SECONDS,
            stopped=one.stop,
            time_is_up=one.time_is_up,
        )

    def _tell(self, one: Tracked, observation: Observation, changes: Changes) -> None:
        if _differs(one.observation, observation):
            changes.told.append(one.attempt_id)
        one.observation = observation
        if isinstance(observation, Ended):
            one.told = NOTHING
            one.over.set()

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def stop(self, those: Iterable[Tracked]) -> None:
        """Tell Slurm of all that is to end and that it has not heard of yet. Raises SlurmUnavailable."""
        now = self._clock.boot_seconds()
        wanted: dict[Ask, list[Tracked]] = {}
        for one in those:
            if one.has_ended or one.job is None or not (one.stop or one.time_is_up):
                continue  # an id counts only while Slurm shows it with our name: it may give one twice
            ask = self._hardness(one, now)
            is_forgotten = ask is Ask.CANCEL and now - one.asked_at > self._settings.stop_seconds
            if ask > one.asked or is_forgotten:  # by a slurmctld that was killed and goes on from an older state
                wanted.setdefault(ask, []).append(one)
        hows = {Ask.TERMINATE: self._client.terminate, Ask.KILL: self._client.kill, Ask.CANCEL: self._client.cancel}
        for ask, these in wanted.items():
            await self._call(hows[ask], [one.job.id for one in these if one.job is not None])
            for one in these:
                one.asked, one.asked_at = ask, now

    def _hardness(self, one: Tracked, now: float) -> Ask:
        """How it has to be asked by now: what has nothing yet that could be asked to end is just taken away."""
        if not (isinstance(one.observation, Running) or (one.job is not None and one.job.state in ACTIVE)):
            return Ask.CANCEL
        if one.stopping_since is None:
            one.stopping_since = now
        if one.force and one.killed_since is None:
            one.killed_since = now
        since = now - one.stopping_since
        if since > one.manifest.spec.stop.grace_seconds + self._settings.stop_seconds:
            return Ask.CANCEL
        if one.killed_since is None:
            return Ask.TERMINATE
        return Ask.CANCEL if now - one.killed_since > self._settings.stop_seconds else Ask.KILL

    async def _cancel_doubles(self, those: Iterable[Tracked]) -> None:
        if more := [
            job_id for one in those for job_id in doubles(self.listed.get(one.name, []), one.job, one.told.claim)
        ]:
            log.warning("cancelling jobs that were submitted twice", jobs=more)
            await self._ask(self._client.cancel, more)

    async def _cancel_useless(self, tracked: Mapping[AttemptId, Tracked], now: float) -> None:
        """A job whose attempt has ended, and that Slurm would keep in its queue for ever, run for nothing, or keep cores for.

        Slurm has those where it was killed and goes on from an older state, and where a node was off for so short that nobody
        noticed: nobody tells it of such a job's end. One that runs, as far as Slurm knows, is about to be over in most cases: it
        gets the grace of a record.
        """
        living = [(attempt_of(job.name), job) for jobs in self.listed.values() for job in jobs if not is_over(job)]
        ended = [(attempt, job) for attempt, job in living if attempt not in tracked or tracked[attempt].has_ended]
        forgotten = await self._call(self._forgotten, {attempt for attempt, _ in ended if attempt not in tracked})
        useless = {job.id: job for attempt, job in ended if attempt in tracked or attempt in forgotten}
        self._useless = {job_id: self._useless.get(job_id, now) for job_id in useless}
        due = [
            job_id
            for job_id, job in useless.items()
            if job.state in WAITING
            or (job.state != "COMPLETING" and now - self._useless[job_id] > self._settings.grace_seconds)
        ]
        if due:
            log.warning("cancelling jobs whose attempts have ended", jobs=due)
            await self._ask(self._client.cancel, due)

    def _forgotten(self, attempts: Iterable[AttemptId]) -> set[AttemptId]:
        return {attempt for attempt in attempts if self._has_ended(attempt)}

    async def _ask(self, what: Callable[..., object], *arguments: object) -> None:
        try:
            await self._call(what, *arguments)
        except SlurmUnavailable as error:
            self.is_away(str(error))


def some_have_ended(settings: SlurmSettings, attempts: Iterable[AttemptId]) -> bool:
    """Whether one of them has an exit record by now."""
    return any(os.path.exists(f"{settings.attempt_directory(attempt)}/{EXIT}") for attempt in attempts)


def _differs(before: Observation, now: Observation) -> bool:
    """Whether somebody has to be told: what is shown of a place alone is asked for when it is looked at."""
    if isinstance(before, Pending) and isinstance(now, Pending):
        return before.why != now.why
    return type(before) is not type(now) or isinstance(now, Ended)

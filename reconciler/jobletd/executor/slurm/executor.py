"""Hands attempts to Slurm and tells what becomes of them.

``submit`` puts an attempt on record and returns: handing it on is done here, by a few threads that may wait for Slurm, so that
nobody else does. One watch asks Slurm for all jobs at once, at a pause that grows while nothing changes, reads what the nodes
have written, and lets ``verdict`` decide. All that is kept in memory is found again after a restart.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from joblet.clock import Clock
from joblet.errors import JobletError
from joblet.manifest import JobManifest, Probe
from jobletd.blobs.copying import ContentDamaged
from jobletd.executor import (
    AttemptRequest,
    Ended,
    EngineNode,
    Handle,
    LogQuery,
    NeverSubmitted,
    Observation,
    Pending,
    Running,
    Standing,
    Used,
)
from jobletd.executor.slurm import tracking
from jobletd.executor.slurm.bringing import Bringing
from jobletd.executor.slurm.client import ENGINE, Client, SlurmRefused, SlurmUnavailable
from jobletd.executor.slurm.furnishing import NeedsSecrets, NotYet, Unfurnished, drop_unused_contents
from jobletd.executor.slurm.nodes import NodeDaemons
from jobletd.executor.slurm.polling import Pace
from jobletd.executor.slurm.probe_answers import ProbeAnswers
from jobletd.executor.slurm.records import Records, free
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm.submission import request_document
from jobletd.executor.slurm.submitting import hand_over
from jobletd.executor.slurm.support import slurm_problems
from jobletd.executor.slurm.tracking import Tracked
from jobletd.executor.slurm.watch import Watch, some_have_ended
from jobletd.executor.slurm_node.place import LOG
from jobletd.log_reader import LogFiles, read_log
from jobletd.model import AttemptId, End, LimitStatus, LogEntry, NotStarted, Place, Reason, Unknown, Usage
from jobletd.policy import NotAllowed, Policy

SUBMITTERS = 4
THREADS = SUBMITTERS + 2
RECORDS_A_SECOND = 200  # are looked for, at most
NODE_SECONDS = 5.0  # in which a node's daemon has to answer
LOG_SECONDS = 1.0  # between two looks at a log that another host writes, where no event tells of it
VOLUME_SECONDS = 1.0  # between two looks whether another attempt still has it
CONTENTS_SECONDS = 300.0  # between two looks at what nobody uses any more
TOO_LATE = "it was stopped before Slurm had it"
T = TypeVar("T")
log = structlog.get_logger("slurm")


class LimitsStay(JobletError):
    """The limits of what runs on another node are those that it began with."""


class SlurmExecutor:
    """The executor of one cluster. See ``jobletd.executor.Executor`` for what each method promises."""

    def __init__(self, settings: SlurmSettings, client: Client, clock: Clock) -> None:
        self._settings = settings
        self._client = client
        self._clock = clock
        self._records = Records(settings.directory)
        self._tracked: dict[AttemptId, Tracked] = {}
        self._nudge: Callable[[AttemptId], None] = lambda _: None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="slurm")
        self._to_hand_over: asyncio.Queue[AttemptId] = asyncio.Queue()
        self._pace = Pace(settings.shortest_poll_seconds, settings.longest_poll_seconds)
        self._bringing = self._bringing_home() if settings.shared_directory is None else None
        self._watch = Watch(settings, client, clock, self._call, self._records.has_ended, self._bringing)
        self._contents_looked_at = clock.boot_seconds()
        self._probes = ProbeAnswers(settings, clock, self._call)
        self._tasks: list[asyncio.Task[None]] = []

    def _bringing_home(self) -> Bringing:
        settings = self._settings
        return Bringing(
            settings,
            NodeDaemons(settings.node_clients, settings.node_port, min(settings.command_seconds, NODE_SECONDS)),
            boot_seconds=self._clock.boot_seconds,
            list_nodes=self._addresses,
            look_soon=self._pace.nudge,
        )

    # --- what it is ---------------------------------------------------------------------------------------------------

    def epoch_of(self, manifest: JobManifest) -> str:  # noqa: ARG002
        return ENGINE

    def changes_limits(self, manifest: JobManifest) -> bool:  # noqa: ARG002
        return False

    def take_policy(self, policy: Policy) -> None:
        """Another one, for attempts to come."""
        self._settings = replace(self._settings, policy=policy)

    def knows(self, attempt: AttemptId) -> bool:
        """Whether it was handed to this executor, ever, as long as its log is kept."""
        return attempt in self._tracked or self._records.knows(attempt)

    async def nodes(self) -> Sequence[EngineNode]:
        return await self._call(self._client.nodes)

    async def _addresses(self) -> dict[str, str]:
        """Of all nodes; nothing while Slurm is away."""
        with suppress(SlurmUnavailable):
            return {node.name: node.address for node in await self.nodes() if node.address}
        return {}

    def standing(self) -> Sequence[Standing]:
        looks = [tracked.observation for tracked in self._tracked.values()]
        return (
            Standing(
                ENGINE,
                available=not self._watch.trouble,
                why=self._watch.trouble,
                pending=sum(isinstance(look, Pending) for look in looks),
                running=sum(isinstance(look, Running) for look in looks),
            ),
        )

    # --- life ---------------------------------------------------------------------------------------------------------

    def subscribe(self, nudge: Callable[[AttemptId], None]) -> None:
        self._nudge = nudge

    async def start(self) -> None:
        """Raises OSError if its own directory cannot be made; Slurm and the shared directory may be away."""
        self._records.open()
        if self._bringing is not None:
            self._bringing.open()
        for attempt_id, record in self._records.load().items():
            try:
                self._tracked[attempt_id] = Tracked.of_record(attempt_id, record, self._clock.boot_seconds())
            except (KeyError, TypeError, ValueError) as error:
                log.error("a record cannot be read, and is left alone", attempt=attempt_id, error=str(error))
                continue
            if not record["job_id"]:
                self._to_hand_over.put_nowait(attempt_id)
        self._tasks = [
            asyncio.create_task(self._run_watch(), name="slurm watch"),
            *(asyncio.create_task(self._submitter(), name=f"slurm submitter {n}") for n in range(SUBMITTERS)),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._bringing is not None:
            await self._bringing.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """In a thread of our own: what waits for Slurm or for the shared directory keeps nobody else."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    # --- starting -----------------------------------------------------------------------------------------------------

    async def submit(self, request: AttemptRequest) -> Handle:
        handle = Handle(request.attempt_id)
        if request.attempt_id in self._tracked:
            return handle
        document = request_document(request, self._settings, self._clock.wall_ns())
        tracked = Tracked(request.attempt_id, document, request.manifest, self._clock.boot_seconds())
        tracked.secrets = request.secrets or None
        try:
            self._settings.policy.check(request.manifest)
            shares = self._settings.shared_directory is not None
            if problems := tuple(slurm_problems(request.manifest, shares_a_directory=shares)):
                raise NotAllowed(request.manifest.metadata.name, problems)
        except NotAllowed as error:
            self._end_unstarted(tracked, error, Reason.NOT_ALLOWED)
        self._records.write(request.attempt_id, tracked.record())
        self._tracked[request.attempt_id] = tracked
        if not tracked.has_ended:
            self._to_hand_over.put_nowait(request.attempt_id)
        return handle

    async def _submitter(self) -> None:
        while True:
            attempt_id = await self._to_hand_over.get()
            await self._watch.answered.wait()  # the first list of all jobs tells what an earlier daemon had handed over
            tracked = self._tracked.get(attempt_id)
            if tracked is None or tracked.has_ended or tracked.job_id or tracked.stop:
                continue
            tracked.in_hand = True
            try:
                await self._hand_over(tracked)
            except Exception as error:  # a defect of ours: the others go on, and this one is tried again
                log.error("not handed over", attempt=attempt_id, exc_info=error)
                self._again_later(tracked, str(error))
            finally:
                tracked.in_hand = False

    async def _hand_over(self, tracked: Tracked) -> None:
        if why := tracking.volume_in_use(tracked, self._tracked.values()):
            self._wait_for_volume(tracked, why)
            return
        was_listed = bool(self._watch.listed.get(tracked.name))
        try:
            job_id = await self._call(hand_over, self._client, self._settings, tracked, was_listed)
        except (SlurmRefused, Unfurnished, ContentDamaged) as error:
            self._end_unstarted(tracked, error, Reason.START_ERROR)
            self._nudge(tracked.attempt_id)
            return
        except NotYet as error:
            self._wait_for_volume(tracked, error.what)
            return
        except NeedsSecrets:
            await self._submit_anew(tracked)
            return
        except (SlurmUnavailable, OSError) as error:
            self._again_later(tracked, str(error))
            if isinstance(error, SlurmUnavailable):
                self._watch.is_away(str(error))
            return
        tracked.job_id, tracked.trouble, tracked.over_since, tracked.secrets = job_id, "", None, None
        self._watch.submitted(tracked.attempt_id)
        if tracked.attempt_id in self._tracked:
            self._records.write(tracked.attempt_id, tracked.record())
        self._pace.nudge()

    async def _submit_anew(self, tracked: Tracked) -> None:
        """Slurm has not got it: as if it had never been submitted, so that the reconciler comes with the values of now."""
        await self._call(free, self._settings.attempt_directory(tracked.attempt_id))
        self._tracked.pop(tracked.attempt_id, None)
        self._records.remove(tracked.attempt_id)
        self._nudge(tracked.attempt_id)

    def _again_later(self, tracked: Tracked, why: str) -> None:
        tracked.trouble = why
        again = self._settings.shortest_poll_seconds
        asyncio.get_running_loop().call_later(again, self._to_hand_over.put_nowait, tracked.attempt_id)
        self._pace.nudge()

    def _wait_for_volume(self, tracked: Tracked, why: str) -> None:
        """That may take hours, in which Slurm need not be asked more often for it."""
        asyncio.get_running_loop().call_later(VOLUME_SECONDS, self._to_hand_over.put_nowait, tracked.attempt_id)
        if tracked.trouble != why:
            tracked.trouble = why
            self._pace.nudge()

    def _end_unstarted(self, tracked: Tracked, error: JobletError, reason: Reason) -> None:
        why = str(error)
        end = End(NotStarted(126, why), reason, self._clock.wall_ns(), message=why, place=Place(ENGINE))
        tracked.observation = Ended(end, ())
        tracked.over.set()

    # --- watching -----------------------------------------------------------------------------------------------------

    async def observe(self, attempts: Iterable[AttemptId]) -> Mapping[AttemptId, Observation]:
        return {attempt: self._look(attempt) for attempt in attempts}

    def _look(self, attempt: AttemptId) -> Observation:
        tracked = self._tracked.get(attempt)
        return NeverSubmitted() if tracked is None else tracked.observation

    async def usage(self, attempts: Mapping[AttemptId, Usage | None]) -> Mapping[AttemptId, Used]:
        looks = {attempt: self._look(attempt) for attempt in attempts}
        running = {attempt: look for attempt, look in looks.items() if isinstance(look, Running)}
        return {attempt: Used(look.usage, look.usage_ns) for attempt, look in running.items() if look.usage != Usage()}

    async def _run_watch(self) -> None:
        while True:
            try:
                changed = await self._watch.look(self._tracked)
                for attempt_id in changed.told:
                    self._nudge(attempt_id)
                for attempt_id in changed.lost:
                    self._records.write(attempt_id, self._tracked[attempt_id].record())
                    self._to_hand_over.put_nowait(attempt_id)
                await self._drop_abandoned()
                await self._stop_those_asked()
            except Exception as error:  # a defect of ours must not leave all jobs unwatched
                log.error("the look at Slurm failed", exc_info=error)
                changed = None
            idle = not self._tracked and self._watch.answered.is_set() and not self._watch.awaits_ends
            idle = idle and (self._bringing is None or self._bringing.is_idle)
            if await self._pause(changed=bool(changed), idle=idle):
                await self._stop_those_asked()

    async def _pause(self, *, changed: bool, idle: bool) -> bool:
        """As ``Pace.pause``; less as soon as something that runs has ended."""
        records = asyncio.create_task(self._look_for_records(), name="slurm records")
        try:
            return await self._pace.pause(changed=changed, idle=idle)
        finally:
            records.cancel()

    async def _look_for_records(self) -> None:
        """Ends come by the shared directory, where a look costs Slurm nothing: who waits for one does not wait for the pause."""
        running = [one.attempt_id for one in self._tracked.values() if isinstance(one.observation, Running)]
        while running:
            await asyncio.sleep(max(self._settings.shortest_poll_seconds, len(running) / RECORDS_A_SECOND))
            if await self._call(some_have_ended, self._settings, running):
                self._pace.nudge()
                return

    async def _drop_abandoned(self) -> None:
        """Its output stays: most are attempts whose end was put on record just before the daemon was killed."""
        for tracked in [one for one in self._tracked.values() if one.abandoned and one.has_ended]:
            await self.forget(tracked.attempt_id)

    # --- ending -------------------------------------------------------------------------------------------------------

    async def cancel(self, attempt: AttemptId, *, force: bool) -> None:
        tracked = self._tracked.get(attempt)
        if tracked is None or tracked.has_ended:
            return
        if tracked.stop and (tracked.force or not force):
            return
        tracked.stop, tracked.force = True, tracked.force or force
        self._pace.nudge()

    async def _stop_those_asked(self) -> None:
        """What Slurm has to be told of stops; what it does not hear it is told again with the next look."""
        for tracked in self._tracked.values():
            if tracked.stop and not tracked.has_ended and not tracked.job_id and not tracked.in_hand:
                await self._end_before_handed_over(tracked)
        with suppress(SlurmUnavailable):
            await self._watch.stop(self._tracked.values())

    async def _end_before_handed_over(self, tracked: Tracked) -> None:
        """Nobody has it, unless a submission whose answer never came did get through: Slurm's list tells."""
        if tracked.trouble and not self._watch.answered.is_set():
            return
        if jobs := self._watch.listed.get(tracked.name):
            chosen = tracking.choose(jobs, "", tracked.told.claim)
            tracked.job_id = chosen.id if chosen is not None else ""
            return
        end = End(Unknown(TOO_LATE), Reason.STOPPED, self._clock.wall_ns(), message=TOO_LATE, place=Place(ENGINE))
        tracked.observation = Ended(end, ())
        tracked.over.set()
        self._nudge(tracked.attempt_id)

    async def update_limits(self, attempt: AttemptId, manifest: JobManifest) -> tuple[LimitStatus, ...]:
        tracked = self._tracked.get(attempt)
        if tracked is not None and tracked.manifest.spec.limits != manifest.spec.limits:
            raise LimitsStay("limits of what runs on a node of Slurm do not change", where=attempt, todo="stop it")
        return tracked.observation.limits if tracked is not None and isinstance(tracked.observation, Running) else ()

    async def probe(self, request: AttemptRequest, probe: Probe) -> Sequence[str]:
        """It is asked on its node, at the pace of the probe: this passes on what was answered."""
        tracked = self._tracked.get(request.attempt_id)
        return ["it does not run"] if tracked is None else await self._probes.new(tracked, probe)

    async def forget(self, attempt: AttemptId) -> None:
        if attempt not in self._tracked:
            return
        await self._call(free, self._settings.attempt_directory(attempt))
        await self._drop_unused_contents()
        self._records.keep(attempt)
        del self._tracked[attempt]
        self._watch.forget(attempt)
        self._probes.forget(attempt)

    async def _drop_unused_contents(self) -> None:
        """Now and then; what stays goes another time."""
        now = self._clock.boot_seconds()
        if now - self._contents_looked_at >= CONTENTS_SECONDS:
            self._contents_looked_at = now
            with suppress(OSError):
                await self._call(drop_unused_contents, self._settings)

    async def prune(self, live: Iterable[AttemptId]) -> None:
        """What belongs to nobody is ended with the next looks, and forgotten then: Slurm may be away just now."""
        for attempt in set(self._tracked) - set(live):
            log.warning("stopping an attempt that is on no record", attempt=attempt)
            self._tracked[attempt].abandoned = True
            await self.cancel(attempt, force=True)

    # --- output -------------------------------------------------------------------------------------------------------

    async def remove_logs(self, attempt: AttemptId) -> None:
        if attempt in self._tracked:
            return
        if self._bringing is not None:
            self._bringing.drop(attempt)
        await self._call(_remove_directory, self._settings.attempt_directory(attempt))
        self._records.remove(attempt)

    async def log_bytes(self, attempt: AttemptId) -> int:
        return await self._call(LogFiles(self._log_path(attempt)).size_bytes)

    async def logs(self, attempt: AttemptId, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        tracked = self._tracked.get(attempt)
        number = int(attempt.rsplit("-", 1)[1])
        batches = read_log(
            self._log_path(attempt),
            query,
            has_ended=lambda: tracked is None or tracked.has_ended,
            ended=tracked.over if tracked is not None else asyncio.Event(),
            look_again_seconds=LOG_SECONDS,
        )
        async with self._reading(tracked, query):
            async for batch in batches:
                for entry in batch:
                    entry.attempt = number
                yield batch

    def _reading(self, tracked: Tracked | None, query: LogQuery) -> AbstractAsyncContextManager[None]:
        """While the log of this attempt is read: of one that runs, it may have to come from its node first."""
        if self._bringing is None or tracked is None or tracked.has_ended:
            return nullcontext()
        return self._bringing.reading(tracked.attempt_id, follow=query.follow)

    def _log_path(self, attempt: AttemptId) -> str:
        return f"{self._settings.attempt_directory(attempt)}/{LOG}"


def _remove_directory(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)

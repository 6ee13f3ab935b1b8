"""Runs attempts on this host: hands them to the launcher, watches their inits, adopts those of an earlier daemon.

What is true is read from the kernel and from the attempt's directory each time; what is kept in memory are descriptors to be
woken by, and nothing that could be wrong after a restart. See DESIGN section 2 for the table behind ``_look``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from joblet.atomicfile import write_atomic
from joblet.cgroup import CgroupError, CgroupLimits, Hierarchy, OwnMemory, device_of, open_hierarchy, own_memory
from joblet.cgroup.hierarchy import readable_size
from joblet.clock import Clock
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import Enforcement, JobManifest, Probe
from joblet.sandbox import exit_record
from jobletd.executor import AttemptRequest, Ended, Handle, LogQuery, NeverSubmitted, Observation, Pending, Running
from jobletd.executor.local import attempt_files, limit_status, watching
from jobletd.executor.local.attempt_files import AttemptNotes
from jobletd.executor.local.id_ranges import IdRanges
from jobletd.executor.local.launch_spec import cgroup_limits, launch_spec, limit_words, without
from jobletd.executor.local.launcher_process import AlreadyLaunched, Launched, LauncherDied, LauncherProcess, Refused
from jobletd.executor.local.outcome import end_of
from jobletd.executor.local.probing import probe_attempt
from jobletd.executor.local.provider import Provider
from jobletd.executor.local.rootfs_store import RootfsStore
from jobletd.executor.local.seccomp_choice import shared_profiles
from jobletd.executor.local.settings import LocalSettings
from jobletd.executor.local.workspace import bound_of, can_limit_disk, make_workspace, remove_workspace
from jobletd.log_reader import LogFiles, read_log
from jobletd.model import AttemptId, End, LimitStatus, LogEntry, Reason, Unknown, Usage
from jobletd.policy import NotAllowed

TRIES_TO_LAUNCH = 3
ADOPTED_SECONDS = 0.1  # between two looks at an init that cannot tell us what it does
# What the host has none of just now.
SCARCE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_REASONS = ((limit_status.LimitNotEnforceable, Reason.LIMIT_NOT_ENFORCEABLE), (NotAllowed, Reason.NOT_ALLOWED))
log = structlog.get_logger("executor")
_ATTEMPT = re.compile(r"[a-z0-9][a-z0-9.-]{0,126}-[0-9]+")


class LaunchRefused(JobletError):
    """The launcher did not take the attempt, and could not put on record why."""


class LocalExecutor:
    """The executor of one host. See ``jobletd.executor.Executor`` for what each method promises."""

    def __init__(
        self, settings: LocalSettings, hierarchy: Hierarchy, clock: Clock, providers: Sequence[Provider] = ()
    ) -> None:
        self._settings = settings
        self._providers = providers
        self._hierarchy = hierarchy
        self._clock = clock
        self._boot_id = exit_record.boot_id()
        self._launcher = LauncherProcess(
            template=f"{settings.run_directory}/template",
            seccomp=shared_profiles(),
            inits_cgroup=hierarchy.inits_directory,
            early=hierarchy.entered_by_thread,
        )
        self._ids = IdRanges(base=settings.id_base, count=settings.id_count, slots=settings.id_slots)
        self._images = RootfsStore(f"{settings.state_directory}/rootfs")
        self._nudge: Callable[[AttemptId], None] = _nobody
        self._watched: dict[AttemptId, watching.Watched] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._notes: dict[AttemptId, AttemptNotes] = {}
        self._limits: dict[AttemptId, tuple[LimitStatus, ...]] = {}
        self._ended: dict[AttemptId, Ended] = {}

    @classmethod
    def on_this_host(
        cls, settings: LocalSettings, *, cgroup_base: str, clock: Clock, providers: Sequence[Provider] = ()
    ) -> LocalExecutor:
        """With the cgroups of this host below ``cgroup_base``. Raises CgroupError, SeccompUnavailable."""
        hierarchy = open_hierarchy(cgroup_base, frozenset(settings.cgroup_controllers))
        hierarchy.empty_within_seconds = settings.cgroup_empty_seconds
        return cls(settings, hierarchy, clock, providers)

    def reconfigure(self, settings: LocalSettings) -> None:
        """What may change while it runs, for attempts to come: policy, sizes, cleanup_seconds."""
        self._settings = settings

    @property
    def epoch(self) -> str:
        return self._boot_id

    @property
    def cgroup_mode(self) -> str:
        """v2, hybrid or v1."""
        return self._hierarchy.mode.value

    @staticmethod
    def own_memory() -> OwnMemory | None:
        """What bounds the daemon's own memory; None: nothing but the host."""
        return own_memory()

    @property
    def controllers(self) -> tuple[str, ...]:
        """What can be limited on this host."""
        return tuple(sorted(self._hierarchy.controllers))

    def subscribe(self, nudge: Callable[[AttemptId], None]) -> None:
        self._nudge = nudge

    async def start(self) -> None:
        for name in ("attempts", "work"):
            os.makedirs(f"{self._settings.state_directory}/{name}", 0o711, exist_ok=True)
        os.makedirs(self._settings.log_directory, 0o750, exist_ok=True)
        self._prepare_cgroups()
        for attempt_id in self._on_record():
            self._notes_of(attempt_id)
            for id_first in attempt_files.held_ids(self._settings.attempt_directory(attempt_id)):
                self._ids.adopt(id_first, attempt_id)
        self._images.remove_unused({notes.image for notes in self._notes.values()})
        await self._launcher.start()

    def _prepare_cgroups(self) -> None:
        """The base, for us alone; what was made above it is on record, so that also the daemon after a crash removes it."""
        record = f"{self._settings.run_directory}/cgroups-made"
        if os.path.exists(record):
            with open(record) as file:
                self._hierarchy.made += file.read().splitlines()
        self._hierarchy.prepare()
        self._hierarchy.lock()
        write_atomic(record, "".join(f"{path}\n" for path in self._hierarchy.made).encode(), durable=False)

    async def close(self) -> None:
        self._launcher.close()
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()
        await asyncio.gather(*self._leaving)
        self._hierarchy.remove_base()  # where nothing runs on
        self._hierarchy.unlock()

    # --- starting -----------------------------------------------------------------------------------------------------

    async def submit(self, request: AttemptRequest) -> Handle:
        handle = Handle(request.attempt_id)
        if not isinstance(self._look(request.attempt_id), NeverSubmitted):
            return handle
        directory = self._settings.attempt_directory(request.attempt_id)
        await self._free_leftovers(request.attempt_id)
        os.mkdir(directory, 0o700)
        reached("daemon.attempt-directory-made")
        try:
            await self._launch(request, directory)
        except (JobletError, OSError) as error:
            if isinstance(error, LauncherDied) or getattr(error, "errno", None) in SCARCE:
                raise  # no fault of the job: tried again, later each time
            self._record_not_started(request, error)
        return handle

    async def _launch(self, request: AttemptRequest, directory: str) -> None:
        """Limits, ids, workspace, launch; a launcher that dies over it is replaced, and the lock tells what it had done."""
        self._settings.policy.check(request.manifest)
        limits, left_out = self._enforceable(request.manifest)
        self._hierarchy.restore()
        rootfs, image = "host", ""
        if request.manifest.spec.isolation.rootfs != "host":
            rootfs, image = await self._images.provide(request.manifest.spec.isolation.rootfs)
        id_base = self._ids.take(request.attempt_id)
        bound = bound_of(request.manifest.spec.limits, self._settings, has_loop=can_limit_disk())
        disk = "" if request.manifest.spec.limits.disk_bytes is None else readable_size(bound.bytes)
        words = limit_words(request.manifest)
        notes = AttemptNotes(id_base, limits, left_out, words, disk, bound.in_memory, image)
        attempt_files.note_ids(directory, id_base)
        self._note(request.attempt_id, notes)
        reached("daemon.attempt-noted")
        owner = id_base + request.manifest.spec.isolation.user
        workspace = await make_workspace(self._settings.work_directory(request.attempt_id), bound, owner)
        reached("daemon.workspace-made")
        log_path = self._settings.log_path(request.attempt_id)
        os.makedirs(os.path.dirname(log_path), 0o750, exist_ok=True)
        spec = launch_spec(
            request,
            attempt_dir=directory,
            log_path=log_path,
            id_base=id_base,
            id_count=self._settings.id_count,
            workspace=workspace,
            rootfs=rootfs,
            root_bytes=self._settings.default_disk_bytes,
            stop_signal=signal.Signals[request.manifest.spec.stop.signal],
            cgroup=self._hierarchy.plan(request.attempt_id, limits),
            content_path=self._settings.content_path,
        )
        descriptors: list[int] = []
        given: list[LimitStatus] = []
        try:
            for provider in self._providers:
                spec |= await provider.attach(request, id_base, descriptors, given)
            if given:
                self._note(request.attempt_id, replace(notes, given=tuple(given)))
            reached("daemon.resources-attached")
            await self._hand_over(request.attempt_id, spec, descriptors)
            reached("daemon.launched")
        finally:
            for fd in descriptors:
                os.close(fd)

    async def _hand_over(self, attempt_id: AttemptId, spec: dict[str, Any], descriptors: list[int]) -> None:
        for left in reversed(range(TRIES_TO_LAUNCH)):
            try:
                answer = await self._launcher.launch(spec, descriptors)
            except LauncherDied:
                if not isinstance(self._look(attempt_id), NeverSubmitted):
                    return
                self._hierarchy.remove(attempt_id)
                if not left:
                    raise
                continue
            if isinstance(answer, Launched):
                self._watch(attempt_id, watching.Watched(answer.pidfd, answer.status_fd))
            elif isinstance(answer, AlreadyLaunched) and isinstance(self._look(attempt_id), NeverSubmitted):
                continue  # a look of ours held the lock for an instant
            elif isinstance(answer, Refused) and isinstance(self._look(attempt_id), NeverSubmitted):
                raise LaunchRefused(answer.error, where=attempt_id, todo="see the launcher's lines in the log")
            return

    def _enforceable(self, manifest: JobManifest) -> tuple[CgroupLimits, tuple[tuple[str, str, str], ...]]:
        """The limits to set, and those left out with the reason. Raises LimitNotEnforceable when strict."""
        asked = manifest.spec.limits
        problems: list[tuple[str, str]] = []
        device = None
        if asked.io is not None:
            try:
                device = device_of(self._settings.state_directory)
            except CgroupError as error:
                problems.append(("io", error.what))
        limits = cgroup_limits(asked, device)
        problems += self._hierarchy.unenforceable(limits)
        if not problems:
            return limits, ()
        if asked.enforcement is Enforcement.STRICT:
            name, why = problems[0]
            raise limit_status.LimitNotEnforceable(
                f"limit not enforceable: {why}",
                where=f"spec.limits.{name}",
                todo="leave it out, or set spec.limits.enforcement: best-effort",
            )
        left_out = tuple((name, limit_status.asked_text(asked, name), why) for name, why in problems)
        return without(limits, frozenset(name for name, _ in problems)), left_out

    def _record_not_started(self, request: AttemptRequest, error: JobletError | OSError) -> None:
        """The exit record of an attempt that did not reach the launcher."""
        directory = self._settings.attempt_directory(request.attempt_id)
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.START_ERROR)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            exit_record.write(
                fd,
                {
                    "attempt": request.attempt_id,
                    "boot_id": self._boot_id,
                    "outcome": exit_record.not_started(126, str(error)),
                    "reason": reason.value,
                    "cause": "",
                    "started_ns": None,
                    "ended_ns": self._clock.wall_ns(),
                    "usage": {},
                    "cpu_seconds": 0.0,
                },
                durable=True,
            )
        finally:
            os.close(fd)

    async def _free_leftovers(self, attempt_id: AttemptId) -> None:
        """What a launch that broke off before the command left behind."""
        for provider in self._providers:
            await provider.detach(attempt_id)
        places = (self._settings.attempt_directory(attempt_id), self._settings.work_directory(attempt_id))
        if any(map(os.path.lexists, (*places, *self._hierarchy.directories(attempt_id)))):
            await asyncio.to_thread(self._free_files, attempt_id)
        self._ids.free(attempt_id)

    # --- watching -----------------------------------------------------------------------------------------------------

    async def observe(self, attempts: Iterable[AttemptId]) -> Mapping[AttemptId, Observation]:
        return {attempt_id: self._look(attempt_id) for attempt_id in attempts}

    def _look(self, attempt_id: AttemptId) -> Observation:
        if attempt_id in self._ended:
            return self._ended[attempt_id]
        directory = self._settings.attempt_directory(attempt_id)
        if not os.path.isdir(directory):
            return NeverSubmitted()
        if (ended := self._look_for_record(attempt_id, directory)) is not None:
            return ended
        if not attempt_files.lock_is_held(directory):
            return self._look_at_dead(attempt_id, directory)
        state = attempt_files.read_state(directory)
        if attempt_id not in self._watched:
            self._adopt(attempt_id, state)
        if state is None or state.started_ns is None:
            if state is not None and (watched := self._watched.get(attempt_id)) and not watched.tells_start:
                asyncio.get_running_loop().call_later(ADOPTED_SECONDS, self._nudge, attempt_id)
            return Pending()
        return Running(state.started_ns, self._usage(attempt_id), self._limits_of(attempt_id))

    def _look_for_record(self, attempt_id: AttemptId, directory: str) -> Ended | None:
        """With its exit record an attempt has ended, even if its init still makes it durable."""
        try:
            record = attempt_files.read_exit(directory)
        except ValueError as error:
            return self._over(attempt_id, Unknown(str(error)), Reason.LOST)
        if record is None:
            return None
        notes = self._notes_of(attempt_id)
        end = end_of(record, self._parse_usage, notes.words if notes else {})
        self._ended[attempt_id] = Ended(end, self._limits_of(attempt_id))
        return self._ended[attempt_id]

    def _look_at_dead(self, attempt_id: AttemptId, directory: str) -> Observation:
        """Nobody holds the lock: the record once more, for an init that ended in between, or what its absence means."""
        if (ended := self._look_for_record(attempt_id, directory)) is not None:
            return ended
        state = attempt_files.read_state(directory)
        if state is None:
            return NeverSubmitted()
        if state.boot_id != self._boot_id:
            return self._over(attempt_id, Unknown("the host was started anew while it ran"), Reason.NODE_REBOOT)
        self._hierarchy.kill(attempt_id)
        return self._over(
            attempt_id, Unknown("its init ended without a record; its exit code is not known"), Reason.LOST
        )

    def _over(self, attempt_id: AttemptId, outcome: Unknown, reason: Reason) -> Ended:
        state = attempt_files.read_state(self._settings.attempt_directory(attempt_id))
        end = End(
            outcome=outcome,
            reason=reason,
            ended_ns=self._clock.wall_ns(),
            started_ns=state.started_ns if state else None,
            message=outcome.why,
            usage=self._usage(attempt_id),
        )
        ended = Ended(end, self._limits_of(attempt_id))
        self._ended[attempt_id] = ended
        return ended

    def _adopt(self, attempt_id: AttemptId, state: attempt_files.InitState | None) -> None:
        """Watch an init that we did not start. Its pid is believed only if start time and boot agree and the lock is held
        after its pidfd was opened."""
        loop = asyncio.get_running_loop()
        directory = self._settings.attempt_directory(attempt_id)
        if state is None or state.boot_id != self._boot_id:
            # Still setting itself up: it will say who it is, or be gone.
            loop.call_later(0.1, self._nudge, attempt_id)
            return
        try:
            pidfd = os.pidfd_open(state.pid)
        except ProcessLookupError:
            loop.call_soon(self._nudge, attempt_id)
            return
        if attempt_files.start_time_of(state.pid) == state.start_time and attempt_files.lock_is_held(directory):
            self._watch(attempt_id, watching.Watched(pidfd, None))
        else:
            os.close(pidfd)
            loop.call_later(0.1, self._nudge, attempt_id)

    def _watch(self, attempt_id: AttemptId, watched: watching.Watched) -> None:
        if (old := self._watched.get(attempt_id)) is not None:
            old.close()  # of a launch that came to nothing
        self._watched[attempt_id] = watched
        watched.start(lambda: self._nudge(attempt_id))

    def _usage(self, attempt_id: AttemptId) -> Usage:
        return limit_status.usage_of(self._hierarchy.usage(attempt_id))

    def _parse_usage(self, raw: Mapping[str, str]) -> Usage:
        return limit_status.usage_of(self._hierarchy.parse_usage(raw))

    def _note(self, attempt_id: AttemptId, notes: AttemptNotes) -> None:
        attempt_files.write_notes(self._settings.attempt_directory(attempt_id), notes)
        self._notes[attempt_id] = notes

    def _notes_of(self, attempt_id: AttemptId) -> AttemptNotes | None:
        if attempt_id not in self._notes:
            notes = attempt_files.read_notes(self._settings.attempt_directory(attempt_id))
            if notes is None:
                return None
            self._notes[attempt_id] = notes
        return self._notes[attempt_id]

    def _limits_of(self, attempt_id: AttemptId) -> tuple[LimitStatus, ...]:
        """As read back from the kernel, once an attempt; changed limits are read anew."""
        notes = self._notes_of(attempt_id)
        if attempt_id not in self._limits and notes is not None:
            readings = self._hierarchy.read_limits(attempt_id, notes.limits)
            if not os.path.isdir(self._hierarchy.directories(attempt_id)[0]):
                return ()
            self._limits[attempt_id] = limit_status.statuses(readings, notes)
        return self._limits.get(attempt_id, ())

    # --- changing and ending ------------------------------------------------------------------------------------------

    async def cancel(self, attempt: AttemptId, *, force: bool) -> None:
        if isinstance(self._look(attempt), (Ended, NeverSubmitted)):
            return
        watched = self._watched.get(attempt)
        if watched is None:  # adopted, not known by pid yet: the reconciler comes again
            return
        watched.signal(signal.SIGUSR1 if force else signal.SIGTERM)
        grace = 0.0 if force else self._grace(attempt)
        if not watched.deadline_set or force:
            watched.deadline_set = True
            loop = asyncio.get_running_loop()
            loop.call_later(grace + self._settings.cleanup_seconds, self._kill_stuck, attempt)

    def _grace(self, attempt: AttemptId) -> float:
        notes = self._notes_of(attempt)
        return float(notes.words["grace"].removesuffix("s")) if notes else 0.0

    def _kill_stuck(self, attempt: AttemptId) -> None:
        """An init that did not finish in time: kill the cgroup, then, if it lingers, the init itself."""
        watched = self._watched.get(attempt)
        if watched is None or watched.over or watched.stuck:
            return
        watched.stuck = True
        asyncio.get_running_loop().call_later(self._settings.cleanup_seconds, watched.signal, signal.SIGKILL)
        self._hierarchy.kill(attempt)

    async def update_limits(self, attempt: AttemptId, manifest: JobManifest) -> tuple[LimitStatus, ...]:
        limits, left_out = self._enforceable(manifest)
        self._hierarchy.apply_limits(attempt, limits)
        notes = self._notes_of(attempt)
        if notes is not None:
            words = {**notes.words, "memory": readable_size(manifest.spec.limits.memory_bytes)}
            notes = replace(notes, limits=limits, left_out=left_out, words=words)
            self._note(attempt, notes)
        self._limits.pop(attempt, None)
        return self._limits_of(attempt)

    async def probe(self, request: AttemptRequest, probe: Probe) -> str:
        attempt = request.attempt_id
        notes = self._notes_of(attempt)
        state = attempt_files.read_state(self._settings.attempt_directory(attempt))
        if notes is None or state is None or state.boot_id != self._boot_id:
            return "it does not run"
        plan = self._hierarchy.plan(attempt, notes.limits)
        into = plan["command_into"] or self._hierarchy.inits_directory
        cgroups = [*plan["join"], *([f"{into}/cgroup.procs"] if into else [])]
        return await probe_attempt(request, probe, state, cgroups)

    async def forget(self, attempt: AttemptId) -> None:
        for provider in self._providers:
            await provider.detach(attempt)
        reached("daemon.resources-detached")
        await asyncio.to_thread(self._free_files, attempt)
        if watched := self._watched.pop(attempt, None):
            leaving = asyncio.create_task(watched.see_off(self._settings.cleanup_seconds))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._ids.free(attempt)
        for kept in (self._ended, self._notes, self._limits):
            kept.pop(attempt, None)

    def _free_files(self, attempt: AttemptId) -> None:
        """The attempt's directory goes last: as long as it is there, the rest is found again."""
        self._hierarchy.remove(attempt)
        reached("daemon.cgroup-removed")
        remove_workspace(self._settings.work_directory(attempt))
        reached("daemon.workspace-removed")
        remove_workspace(self._settings.attempt_directory(attempt))

    async def prune(self, live: Iterable[AttemptId]) -> None:
        keep = set(live)
        with_cgroup = {AttemptId(name) for name in self._hierarchy.list_attempts()}
        for attempt_id in (set(self._on_record()) | with_cgroup) - keep:
            try:
                await self._clear_away(attempt_id)
            except (JobletError, OSError) as error:  # one that hangs in the kernel must not keep the others waiting
                log.warning("not cleaned up, the next start tries again", attempt=attempt_id, error=str(error))
                keep.add(attempt_id)
        for provider in self._providers:
            await provider.keep_only(frozenset(keep))

    async def _clear_away(self, attempt_id: AttemptId) -> None:
        self._look(attempt_id)  # to know its init, should it not follow its command
        if attempt_files.lock_is_held(self._settings.attempt_directory(attempt_id)):
            log.warning("stopping an attempt that is on no record", attempt=attempt_id)
        self._hierarchy.kill(attempt_id)
        await self._wait_for_death(attempt_id)
        if watched := self._watched.get(attempt_id):
            watched.signal(signal.SIGKILL)
            await self._wait_for_death(attempt_id)
        await self.forget(attempt_id)

    async def _wait_for_death(self, attempt_id: AttemptId) -> None:
        """Its command was killed: its init follows at once, once it has written its record."""
        directory = self._settings.attempt_directory(attempt_id)
        deadline = time.monotonic() + self._settings.cleanup_seconds
        while attempt_files.lock_is_held(directory) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def _on_record(self) -> list[AttemptId]:
        """Attempts with files here; lost+found and the like are none."""
        directories = [f"{self._settings.state_directory}/{name}" for name in ("attempts", "work")]
        names = {name for directory in directories for name in os.listdir(directory)}
        return sorted(AttemptId(name) for name in names if _ATTEMPT.fullmatch(name))

    # --- output -------------------------------------------------------------------------------------------------------

    async def remove_logs(self, attempt: AttemptId) -> None:
        files = LogFiles(self._settings.log_path(attempt))
        await asyncio.to_thread(files.remove)
        job = attempt.rsplit("-", 2)[0]
        if not any(other.rsplit("-", 2)[0] == job for other in self._on_record()):
            with suppress(OSError):  # ended runs of the job have theirs there
                os.rmdir(files.directory)

    async def log_bytes(self, attempt: AttemptId) -> int:
        return await asyncio.to_thread(LogFiles(self._settings.log_path(attempt)).size_bytes)

    async def logs(self, attempt: AttemptId, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        watched = self._watched.get(attempt)
        directory = self._settings.attempt_directory(attempt)
        number = int(attempt.rsplit("-", 1)[1])
        batches = read_log(
            self._settings.log_path(attempt),
            query,
            has_ended=lambda: not attempt_files.lock_is_held(directory),
            ended=watched.ended if watched else asyncio.Event(),
        )
        async for batch in batches:
            for entry in batch:
                entry.attempt = number
            yield batch


def _nobody(_: AttemptId) -> None:
    """Nudges go nowhere before somebody subscribes."""

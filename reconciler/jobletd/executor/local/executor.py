"""Runs attempts on this host: hands them to the launcher, ends them, and frees what they had. What is known of those that are
there, also of an earlier daemon's, is in ``known_attempts``.
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
from joblet.cgroup import Hierarchy, OwnMemory, open_hierarchy, own_memory
from joblet.cgroup.hierarchy import readable_size
from joblet.clock import Clock
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import JobManifest, Probe
from joblet.sandbox import exit_record
from jobletd.executor import (
    AttemptRequest,
    Ended,
    EngineNode,
    Handle,
    LogQuery,
    NeverSubmitted,
    Observation,
    Standing,
    Used,
)
from jobletd.executor.local import attempt_files, limit_status, watching
from jobletd.executor.local.attempt_files import AttemptNotes
from jobletd.executor.local.id_ranges import IdRanges
from jobletd.executor.local.known_attempts import KnownAttempts
from jobletd.executor.local.launch_spec import launch_spec, limit_words
from jobletd.executor.local.launcher_process import AlreadyLaunched, Launched, LauncherDied, LauncherProcess, Refused
from jobletd.executor.local.not_started import record_not_started
from jobletd.executor.local.probing import probe_attempt
from jobletd.executor.local.provider import Provider
from jobletd.executor.local.rootfs_store import RootfsStore
from jobletd.executor.local.seccomp_choice import shared_profiles
from jobletd.executor.local.settings import LocalSettings, job_of
from jobletd.executor.local.spare_directory import SpareDirectory
from jobletd.executor.local.workspace import bound_of, can_limit_disk, make_workspace, remove_workspace
from jobletd.log_reader import LogFiles, read_log
from jobletd.model import AttemptId, LimitStatus, LogEntry, Usage

LOCAL = "local"
TRIES_TO_LAUNCH = 3
SPARE_AFTER_SECONDS = 0.05  # later than a launch takes
# What the host has none of just now.
SCARCE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
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
            spare_cgroups=hierarchy.spare_directories,
            attempts=settings.attempts_directory,
        )
        self._spare = SpareDirectory(settings.state_directory)
        self._spare_due: asyncio.TimerHandle | None = None
        self._ids = IdRanges(base=settings.id_base, count=settings.id_count, slots=settings.id_slots)
        self._images = RootfsStore(f"{settings.state_directory}/rootfs")
        self._known = KnownAttempts(settings.attempt_directory, hierarchy, clock, self._boot_id)
        self._leaving: set[asyncio.Task[None]] = set()

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

    def epoch_of(self, manifest: JobManifest) -> str:  # noqa: ARG002
        return self._boot_id

    @property
    def boot_id(self) -> str:
        """Of this host as it runs now."""
        return self._boot_id

    def changes_limits(self, manifest: JobManifest) -> bool:  # noqa: ARG002
        return True

    async def nodes(self) -> Sequence[EngineNode]:
        return ()

    def standing(self) -> Sequence[Standing]:
        return (Standing(LOCAL, available=True, running=self._known.running),)

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
        self._known.subscribe(nudge)

    async def start(self) -> None:
        for name in ("attempts", "work"):
            os.makedirs(f"{self._settings.state_directory}/{name}", 0o711, exist_ok=True)
        os.makedirs(self._settings.log_directory, 0o750, exist_ok=True)
        self._prepare_cgroups()
        for attempt_id in self._on_record():
            self._known.notes_of(attempt_id)
            for id_first in attempt_files.held_ids(self._settings.attempt_directory(attempt_id)):
                self._ids.adopt(id_first, attempt_id)
        self._images.remove_unused(self._known.images)
        await self._launcher.start()
        self._spare.make()

    def _make_spare_later(self) -> None:
        """Once no launch has come for a moment."""
        if self._spare_due is not None:
            self._spare_due.cancel()
        self._spare_due = asyncio.get_running_loop().call_later(SPARE_AFTER_SECONDS, self._spare.make)

    def _prepare_cgroups(self) -> None:
        """The base, for us alone; what was made above it is on record, so that also the daemon after a crash removes it."""
        record = f"{self._settings.run_directory}/cgroups-made"
        if os.path.exists(record):
            with open(record) as file:
                self._hierarchy.made += file.read().splitlines()
        self._hierarchy.prepare()
        self._hierarchy.lock()
        write_atomic(record, "".join(f"{path}\n" for path in self._hierarchy.made).encode(), durable=False)

    def dismiss_launcher(self) -> None:
        """No other attempt follows soon: its memory is free; the next launch starts another one."""
        self._launcher.close()

    async def close(self) -> None:
        self._launcher.close()
        if self._spare_due is not None:
            self._spare_due.cancel()
        self._spare.remove()
        self._known.close()
        await asyncio.gather(*self._leaving)
        self._hierarchy.remove_base()  # where nothing runs on
        self._hierarchy.unlock()

    # --- starting -----------------------------------------------------------------------------------------------------

    async def submit(self, request: AttemptRequest) -> Handle:
        handle = Handle(request.attempt_id)
        if not isinstance(self._known.look(request.attempt_id), NeverSubmitted):
            return handle
        directory = self._settings.attempt_directory(request.attempt_id)
        await self._free_leftovers(request.attempt_id)
        self._spare.become(directory)
        self._make_spare_later()
        reached("daemon.attempt-directory-made")
        try:
            await self._launch(request, directory)
        except (JobletError, OSError) as error:
            if isinstance(error, LauncherDied) or getattr(error, "errno", None) in SCARCE:
                raise  # no fault of the job: tried again, later each time
            record_not_started(directory, request.attempt_id, error, self._boot_id, self._clock.wall_ns())
        return handle

    async def _launch(self, request: AttemptRequest, directory: str) -> None:
        """Limits, ids, workspace, launch; a launcher that dies over it is replaced, and the lock tells what it had done."""
        self._settings.policy.check(request.manifest)
        limits, left_out = limit_status.enforceable(
            request.manifest.spec.limits, self._hierarchy, self._settings.state_directory
        )
        self._hierarchy.restore()
        rootfs, image = "host", ""
        if request.manifest.spec.isolation.rootfs != "host":
            rootfs, image = await self._images.provide(request.manifest.spec.isolation.rootfs)
        id_base = self._ids.take(request.attempt_id)
        bound = bound_of(request.manifest.spec.limits, self._settings, has_loop=can_limit_disk)
        disk = "" if request.manifest.spec.limits.disk_bytes is None else readable_size(bound.bytes)
        words = limit_words(request.manifest)
        notes = AttemptNotes(id_base, limits, left_out, words, disk, bound.in_memory, image)
        self._known.begin(request.attempt_id, notes)
        reached("daemon.attempt-noted")
        owner = id_base + request.manifest.spec.isolation.user
        workspace = await make_workspace(self._settings.work_directory(request.attempt_id), bound, owner)
        reached("daemon.workspace-made")
        log_path = self._settings.log_path(request.attempt_id)
        os.makedirs(os.path.dirname(log_path), 0o750, exist_ok=True)
        cgroup = self._hierarchy.plan(request.attempt_id, limits)
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
            cgroup=cgroup,
            content_path=self._settings.content_path,
        )
        if self._settings.cgroup_view:
            spec["cgroup_view"] = self._hierarchy.view(cgroup)
        descriptors: list[int] = []
        given: list[LimitStatus] = []
        try:
            for provider in self._providers:
                spec |= await provider.attach(request, id_base, descriptors, given)
            if given:
                self._known.note(request.attempt_id, replace(notes, given=tuple(given)))
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
                if not isinstance(self._known.look(attempt_id), NeverSubmitted):
                    return
                self._hierarchy.remove(attempt_id)
                if not left:
                    raise
                continue
            if isinstance(answer, Launched):
                self._known.watch(attempt_id, watching.Watched(answer.pidfd, answer.status_fd))
            elif isinstance(answer, AlreadyLaunched) and isinstance(self._known.look(attempt_id), NeverSubmitted):
                continue  # a look of ours held the lock for an instant
            elif isinstance(answer, Refused) and isinstance(self._known.look(attempt_id), NeverSubmitted):
                raise LaunchRefused(answer.error, where=attempt_id, todo="see the launcher's lines in the log")
            return

    async def _free_leftovers(self, attempt_id: AttemptId) -> None:
        """What a launch that broke off before the command left behind. The directory is made first and removed last."""
        if not self._has_files(attempt_id):
            self._ids.free(attempt_id)
            return
        for provider in self._providers:
            await provider.detach(attempt_id)
        await asyncio.to_thread(self._free_files, attempt_id)
        self._ids.free(attempt_id)

    def _has_files(self, attempt_id: AttemptId) -> bool:
        return os.path.lexists(self._settings.attempt_directory(attempt_id))

    # --- watching -----------------------------------------------------------------------------------------------------

    async def observe(self, attempts: Iterable[AttemptId]) -> Mapping[AttemptId, Observation]:
        return {attempt_id: self._known.look(attempt_id) for attempt_id in attempts}

    async def usage(self, attempts: Mapping[AttemptId, Usage | None]) -> Mapping[AttemptId, Used]:
        found = {attempt_id: self._known.usage_since(attempt_id, before) for attempt_id, before in attempts.items()}
        return {attempt_id: Used(usage) for attempt_id, usage in found.items() if usage != Usage()}

    # --- changing and ending ------------------------------------------------------------------------------------------

    async def cancel(self, attempt: AttemptId, *, force: bool) -> None:
        if isinstance(self._known.look(attempt), (Ended, NeverSubmitted)):
            return
        watched = self._known.watched(attempt)
        if watched is None:  # adopted, not known by pid yet: the reconciler comes again
            return
        watched.signal(signal.SIGUSR1 if force else signal.SIGTERM)
        grace = 0.0 if force else self._grace(attempt)
        if not watched.deadline_set or force:
            watched.deadline_set = True
            loop = asyncio.get_running_loop()
            loop.call_later(grace + self._settings.cleanup_seconds, self._kill_stuck, attempt)

    def _grace(self, attempt: AttemptId) -> float:
        notes = self._known.notes_of(attempt)
        return float(notes.words["grace"].removesuffix("s")) if notes else 0.0

    def _kill_stuck(self, attempt: AttemptId) -> None:
        """An init that did not finish in time: kill the cgroup, then, if it lingers, the init itself."""
        watched = self._known.watched(attempt)
        if watched is None or watched.over or watched.stuck:
            return
        watched.stuck = True
        asyncio.get_running_loop().call_later(self._settings.cleanup_seconds, watched.signal, signal.SIGKILL)
        self._hierarchy.kill(attempt)

    async def update_limits(self, attempt: AttemptId, manifest: JobManifest) -> tuple[LimitStatus, ...]:
        limits, left_out = limit_status.enforceable(
            manifest.spec.limits, self._hierarchy, self._settings.state_directory
        )
        self._hierarchy.apply_limits(attempt, limits)
        notes = self._known.notes_of(attempt)
        if notes is not None:
            words = {**notes.words, "memory": readable_size(manifest.spec.limits.memory_bytes)}
            notes = replace(notes, limits=limits, left_out=left_out, words=words)
            self._known.note(attempt, notes)
        return self._known.limits_changed(attempt)

    async def probe(self, request: AttemptRequest, probe: Probe) -> Sequence[str]:
        attempt = request.attempt_id
        notes = self._known.notes_of(attempt)
        state = attempt_files.read_state(self._settings.attempt_directory(attempt))
        if notes is None or state is None or state.boot_id != self._boot_id:
            return ["it does not run"]
        plan = self._hierarchy.plan(attempt, notes.limits)
        into = plan["command_into"] or self._hierarchy.inits_directory
        cgroups = [*plan["join"], *([f"{into}/cgroup.procs"] if into else [])]
        return [await probe_attempt(request, probe, state, cgroups)]

    async def forget(self, attempt: AttemptId) -> None:
        for provider in self._providers:
            await provider.detach(attempt)
        reached("daemon.resources-detached")
        await asyncio.to_thread(self._free_files, attempt)
        watched = self._known.forget(attempt)
        if watched is not None and not watched.leave():
            leaving = asyncio.create_task(watched.see_off(self._settings.cleanup_seconds))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._ids.free(attempt)

    def _free_files(self, attempt: AttemptId) -> None:
        """The attempt's directory goes last: as long as it is there, the rest is found again."""
        self._hierarchy.remove(attempt)
        reached("daemon.cgroup-removed")
        remove_workspace(self._settings.work_directory(attempt))
        reached("daemon.workspace-removed")
        if not attempt_files.remove(self._settings.attempt_directory(attempt)):
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
        self._known.look(attempt_id)  # to know its init, should it not follow its command
        if attempt_files.lock_is_held(self._settings.attempt_directory(attempt_id)):
            log.warning("stopping an attempt that is on no record", attempt=attempt_id)
        self._hierarchy.kill(attempt_id)
        await self._wait_for_death(attempt_id)
        if watched := self._known.watched(attempt_id):
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
        job = job_of(attempt.rsplit("-", 2)[0])
        if not any(job_of(other.rsplit("-", 2)[0]) == job for other in self._on_record()):
            with suppress(OSError):  # ended runs of the job have theirs there
                os.rmdir(files.directory)

    async def log_bytes(self, attempt: AttemptId) -> int:
        return await asyncio.to_thread(LogFiles(self._settings.log_path(attempt)).size_bytes)

    async def logs(self, attempt: AttemptId, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
        watched = self._known.watched(attempt)
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

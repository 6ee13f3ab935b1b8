"""The spool: a directory whose files are the desired state.

Level-triggered: ``sync`` reads the directory, decides, and makes the desired state follow. What the kernel tells about
changes only nudges it to look again, so that a lost or doubled event does no harm (an overflow of the kernel's queue
nudges too, since what is left in the queue does); a rescan now and then covers file systems that tell nothing.

A file counts once nobody has it open for writing any more. One that cannot be acted upon (invalid, refused, still being
written) leaves its jobs as they are. A file that is gone is waited for a moment before its jobs are deleted, because a
rename or an editor's save may look like that. An unreadable directory means nothing at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError  # its only home

from joblet.clock import Clock
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import Manifest, SecretManifest, key_of
from joblet.manifest.errors import ManifestError
from jobletd.model import JobName, JobView, Source
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.error_files import ErrorFiles
from jobletd.sources.following import Follower
from jobletd.sources.ownership import Claim, Conflict, Plan, make_plan
from jobletd.sources.spool_files import Absent, Content, Loaded, Refused, SpoolDirectory, SpoolUnavailable, Stamp

# watchfiles looks every step and waits at most debounce for a burst to end. Measured, from a file's creation to us:
# step 5 ms: 6 ms at 0.9 % of a core when idle; 10: 11 ms, 0.7 %; 20: 31 ms, 0.4 %.
_STEP_MS = 10
_DEBOUNCE_MS = 40
_WRITER_SECONDS = 0.02  # how soon a file is looked at again that somebody has open for writing
_WRITER_MAX_SECONDS = 1.0
_WRITER_PATIENCE = 15  # looks before that is shown as an error: some eight seconds
_SETTLE_SECONDS = 0.3  # how long an invalid file must have rested before its error is shown
_LEAVE_SECONDS = 0.25  # how long a file must be gone before its jobs are
_REOPEN_SECONDS = 1.0  # how soon a missing directory is looked for again
_APPLIES_AT_ONCE = 64  # so that one commit can carry many

KIND = "spool"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """directory: absolute. rescan_seconds: between two looks without a nudge. owner: the uid that files must have."""

    directory: str
    rescan_seconds: float = 30.0
    owner: int = 0

    @property
    def status_directory(self) -> str:
        return os.path.join(self.directory, "status")


@dataclass(slots=True)
class _File:
    """What is known of one file. good: what it said last that was valid; None: nothing yet."""

    stamp: Stamp | None = None
    content: Content = Absent.GONE
    good: tuple[Manifest, ...] | None = None
    applied: frozenset[JobName] | None = None  # None: has to be applied
    fault: Refused | None = None  # why an apply was refused
    gone_since: float | None = None
    busy_count: int = 0


class SpoolScope:
    """See ``ownership.Scope``."""

    def file_of(self, owner: Source) -> str | None:
        return owner.name if owner.kind == KIND else None

    def source_of(self, file: str) -> Source:
        return spool_source(file)


SCOPE = SpoolScope()


def spool_source(file: str) -> Source:
    """The source of a file's jobs: ``spool:<file>``."""
    return Source(KIND, file)


class Spool:
    """The spool source. ``run`` works until it is cancelled."""

    def __init__(self, settings: SpoolSettings, desired: DesiredJobs, *, clock: Clock) -> None:
        self._settings = settings
        self._desired = desired
        self._clock = clock
        self._errors = ErrorFiles(settings.status_directory, clock=clock)
        self._files: dict[str, _File] = {}
        self._follower = Follower(desired, SCOPE, client="root", place="the spool")
        self._unavailable = ""
        self._nudge = asyncio.Event()
        self._due: float | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._watched: tuple[int, int] | None = None
        self._synced_before = False
        self._undeleted = False  # a job whose deletion failed: tried again

    def nudge(self) -> None:
        """Look again soon: something outside may have changed."""
        self._nudge.set()

    def job_changed(self, name: JobName, view: JobView | None) -> None:
        """A name is free, or was handed to us."""
        if view is None or (view.source.kind == KIND and self._follower.waits_for(name)):
            self.nudge()

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        try:
            while True:
                self._nudge.clear()
                await self._ensure_watch()  # before looking: nothing can happen unseen between the two
                await self._sync_logged()
                await self._wait()
        finally:
            await _cancelled(self._watcher)

    async def sync(self) -> None:
        """Read the directory once and make the desired state follow it. Raises SpoolUnavailable, JobletError."""
        self._due = None
        try:
            seen = await asyncio.to_thread(self._look)
        except SpoolUnavailable as error:
            self._again_in(_REOPEN_SECONDS)
            await self._tell_unavailable(error)
            raise
        self._unavailable = ""
        reached("daemon.spool-looked-at")
        if not seen and self._synced_before:
            return
        self._synced_before = False
        await self._follow()
        self._synced_before = True

    # -- looking --

    def _look(self) -> bool:
        """Bring what is known of the files up to date, in a thread. True if anything has to be followed up."""
        with SpoolDirectory(self._settings.directory, owner=self._settings.owner) as directory:
            present = directory.scan()
            changed = self._note_missing(present)
            for name, stamp in sorted(present.items()):
                file = self._files.setdefault(name, _File())
                changed |= file.gone_since is not None
                file.gone_since = None
                if file.stamp != stamp or file.content in (Absent.BEING_WRITTEN, Absent.GONE):
                    self._read(directory, name, file)
                    changed = True
                changed |= isinstance(file.content, Refused) or file.fault is not None
        return changed or bool(self._follower.conflicts) or self._undeleted

    def _note_missing(self, present: Mapping[str, Stamp]) -> bool:
        changed = False
        now = self._clock.boot_seconds()
        for name, file in self._files.items():
            if name not in present:
                file.gone_since = now if file.gone_since is None else file.gone_since
                changed = True
        return changed

    def _read(self, directory: SpoolDirectory, name: str, file: _File) -> None:
        file.stamp, file.content = directory.read(name)
        if isinstance(file.content, Loaded):
            file.good, file.applied, file.fault = file.content.manifests, None, None
        if file.content is Absent.BEING_WRITTEN:
            file.busy_count += 1
            self._again_in(min(_WRITER_SECONDS * 1.5 ** min(file.busy_count, 20), _WRITER_MAX_SECONDS))
        else:
            file.busy_count = 0
        if file.content is Absent.GONE:
            self._again_in(_WRITER_SECONDS)

    def _again_in(self, seconds: float) -> None:
        due = self._clock.boot_seconds() + seconds
        self._due = due if self._due is None else min(self._due, due)

    # -- following --

    async def _follow(self) -> None:
        owners = await self._desired.owners()
        # A file owned in the inventory but never seen (it went away while nobody looked) is waited for all the same.
        now = self._clock.boot_seconds()
        for owner in owners.values():
            if owner.kind == KIND and owner.name not in self._files:
                self._files[owner.name] = _File(gone_since=now)
        leaving = frozenset(name for name, file in self._files.items() if self._is_leaving(file))
        gone = {name for name, file in self._files.items() if file.gone_since is not None} - leaving
        plan = make_plan(
            SCOPE,
            [_claim(name, file) for name, file in self._files.items() if file.gone_since is None and _is_good(file)],
            owners,
            unknown=frozenset(n for n, file in self._files.items() if file.gone_since is None and not _is_good(file)),
            leaving=leaving,
        )
        await self._follower.hand_over(plan.transfers)
        await self._apply_all(plan)
        self._undeleted = not await self._follower.delete(plan.deletes)
        if self._undeleted:
            self._again_in(_REOPEN_SECONDS)
        else:
            for name in gone:  # by now others may have been gone for long enough, and their jobs are still there
                del self._files[name]
        await self._follower.tell_conflicts(plan.conflicts)
        await self._tell_errors(owners, plan.conflicts)

    def _is_leaving(self, file: _File) -> bool:
        """Whether a file went away so short a time ago that it may come back or turn up under another name."""
        if file.gone_since is None:
            return False
        left = file.gone_since + _LEAVE_SECONDS - self._clock.boot_seconds()
        if left > 0:
            self._again_in(left + 0.001)
        return left > 0

    async def _apply_all(self, plan: Plan) -> None:
        todo = []
        for name, jobs in plan.owned.items():
            file = self._files[name]
            wanted = frozenset(jobs)
            if file.applied != wanted or file.fault is not None:
                todo.append((name, file, wanted))
        for start in range(0, len(todo), _APPLIES_AT_ONCE):
            await asyncio.gather(*(self._apply(*item) for item in todo[start : start + _APPLIES_AT_ONCE]))

    async def _apply(self, name: str, file: _File, wanted: frozenset[JobName]) -> None:
        manifests = [manifest for manifest in file.good or () if key_of(manifest) in wanted]
        try:
            await self._follower.apply(manifests, spool_source(name))
        except JobletError as error:
            file.fault = Refused("NotApplied", (ManifestError(name, 1, 1, 0, "", str(error)),))
        else:
            reached("daemon.spool-file-applied")
            file.applied, file.fault = wanted, None
            await self._warn_of_readers(name, file, manifests)

    async def _warn_of_readers(self, name: str, file: _File, manifests: Iterable[Manifest]) -> None:
        """The values of a secret are safe in the store, and lie open in a file that others can read."""
        mode = file.stamp.mode & 0o777 if file.stamp is not None else 0
        if mode & 0o077:
            path = os.path.join(self._settings.directory, name)
            message = f"{name} holds its values and can be read by others (mode {mode:04o}): chmod 600 {path}"
            for manifest in manifests:
                if isinstance(manifest, SecretManifest) and manifest.spec.values:
                    await self._desired.record_event(key_of(manifest), "", "Warning", "ReadableByOthers", message)

    # -- telling --

    async def _tell_errors(self, owners: Mapping[JobName, Source], conflicts: Iterable[Conflict]) -> None:
        faults = self._faults(conflicts)
        new, gone = self._errors.update({name: (fault.reason, fault.errors) for name, fault in faults.items()})
        for name in new:
            message = "; ".join(str(error) for error in faults[name].errors[:5])
            _log.warning(
                "spool file refused",
                source=str(spool_source(name)),
                file=name,
                reason=faults[name].reason,
                message=message,
            )
            jobs = [job for job, owner in owners.items() if owner == spool_source(name)]
            for job in jobs or [JobName("")]:
                await self._desired.record_event(job, "", "Warning", faults[name].reason, message)
        for name in gone:
            await self._desired.record_event("", "", "Normal", "FileAccepted", f"{name}: its errors are gone")
        await self._tell_validity(owners, faults)

    def _faults(self, conflicts: Iterable[Conflict]) -> dict[str, Refused]:
        faults: dict[str, Refused] = {}
        for conflict in conflicts:
            message = f"{conflict.job} belongs to {conflict.owner}, which keeps it; give one of them another name"
            found = ManifestError(conflict.file, 1, 1, 0, "metadata.name", message)
            earlier = faults[conflict.file].errors if conflict.file in faults else ()
            faults[conflict.file] = Refused("NameConflict", (*earlier, found))
        for name, file in self._files.items():
            if file.gone_since is None and isinstance(file.content, Refused) and self._is_settled(file):
                faults[name] = file.content
            elif file.content is Absent.BEING_WRITTEN and file.busy_count > _WRITER_PATIENCE:
                message = "some process still has it open for writing; it counts when that has closed it"
                faults[name] = Refused("BeingWritten", (ManifestError(name, 1, 1, 0, "", message),))
            elif file.fault is not None:
                faults[name] = file.fault
        return faults

    def _is_settled(self, file: _File) -> bool:
        """Whether a file has rested: one that is being written in several goes is not complained about meanwhile."""
        if file.stamp is None:
            return True
        left = _SETTLE_SECONDS - (self._clock.wall_ns() - max(file.stamp.mtime_ns, file.stamp.ctime_ns)) / 1e9
        if 0 < left <= _SETTLE_SECONDS:
            self._again_in(left + 0.001)
            return False
        return True

    async def _tell_validity(self, owners: Mapping[JobName, Source], faults: Mapping[str, Refused]) -> None:
        invalid: dict[JobName, str] = {}
        for job, owner in owners.items():
            fault = faults.get(owner.name) if owner.kind == KIND else None
            if fault is not None and fault.reason != "NameConflict":
                invalid[job] = str(fault.errors[0])
        await self._follower.tell_validity(invalid)

    async def _tell_unavailable(self, error: SpoolUnavailable) -> None:
        if self._unavailable != str(error):
            self._unavailable = str(error)
            await self._desired.record_event("", "", "Warning", "SpoolUnavailable", str(error))

    # -- waiting --

    async def _sync_logged(self) -> None:
        try:
            await self.sync()
        except SpoolUnavailable as error:
            _log.warning("spool unavailable", error=str(error))
        except (JobletError, OSError) as error:
            _log.error("spool not followed", error=str(error))
            self._again_in(_REOPEN_SECONDS)

    async def _wait(self) -> None:
        seconds = self._settings.rescan_seconds
        if self._due is not None:
            seconds = min(seconds, max(self._due - self._clock.boot_seconds(), 0.001))
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            return

    async def _ensure_watch(self) -> None:
        """Watch the directory that is at the path now; it may have been replaced by another."""
        try:
            status = os.stat(self._settings.directory)
        except OSError:
            self._watched = None  # ``sync`` says what is wrong with it
        else:
            identity = (status.st_dev, status.st_ino)
            if identity == self._watched and self._watcher is not None and not self._watcher.done():
                return
            self._watched = identity
        await _cancelled(self._watcher)
        self._watcher = None
        if self._watched is not None:
            self._watcher = asyncio.create_task(self._watch(), name="spool-watch")
            await asyncio.sleep(0)  # awatch sets the kernel's watch up before it first waits

    async def _watch(self) -> None:
        try:
            changes = awatch(
                self._settings.directory,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                recursive=False,
                rust_timeout=60_000,
            )
            async for _ in changes:
                self._nudge.set()
        except* OSError as errors:  # watchfiles raises in groups
            # No inotify left, or the directory went away: the rescans go on, and the watch is begun anew by ``run``.
            _log.warning("spool not watched, only rescanned", error="; ".join(map(str, errors.exceptions)))
        except* WatchfilesRustInternalError:
            self._nudge.set()  # an event with a name that is not UTF-8 ends the watch: ``run`` looks, and begins another


def _is_good(file: _File) -> bool:
    """Whether what a file says now is known and valid."""
    return isinstance(file.content, Loaded)


def _claim(name: str, file: _File) -> Claim:
    jobs = tuple(JobName(key_of(manifest)) for manifest in file.good or ())
    return Claim(name, jobs, (file.stamp.mtime_ns if file.stamp else 0, name))


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])

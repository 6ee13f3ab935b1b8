"""The spool: a directory whose files are the desired state.

Level-triggered: ``sync`` reads the directory, decides, and makes the desired state follow. What the kernel tells about
changes only nudges it to look again: at what was named, and some seconds later at everything. So a lost or doubled event does no
harm (an overflow of the kernel's queue nudges too, since what is left in the queue does), and a change costs no look at
ten thousand other files; a rescan now and then covers file systems that tell nothing. Nor does a change cost a decision about
what it does not touch: what is known of the files, what they declare and who owns it is kept with each change.

A file counts once nobody has it open for writing any more. One that cannot be acted upon (invalid, refused, still being
written) leaves its jobs as they are. A file that is gone is waited for a moment before its jobs are deleted, because a
rename or an editor's save may look like that. An unreadable directory means nothing at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from joblet.clock import Clock
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import Manifest, SecretManifest, key_of
from joblet.manifest.errors import ManifestError
from jobletd.model import JobName, JobView, Source
from jobletd.sources.declarations import Declarations, Standing
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.error_files import ErrorFiles
from jobletd.sources.following import Follower
from jobletd.sources.known_contents import KnownContents
from jobletd.sources.known_files import KnownFile, KnownFiles
from jobletd.sources.ownership import Conflict, Plan
from jobletd.sources.spool_faults import faults_of, place_of
from jobletd.sources.spool_files import (
    Absent,
    Refused,
    SpoolDirectory,
    SpoolUnavailable,
    Stamp,
    is_plain,
)
from jobletd.sources.spool_watch import SpoolWatch

_WRITER_SECONDS = 0.02  # how soon a file is looked at again that somebody has open for writing
_WRITER_MAX_SECONDS = 1.0
_SETTLE_SECONDS = 0.3  # how long an invalid file must have rested before its error is shown
_LEAVE_SECONDS = 0.25  # how long a file must be gone before its jobs are
_ALL_SECONDS = 5.0  # after a look at what was named, until the one at everything
_MOST_NAMED = 256  # then everything is looked at at once
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

    def __init__(
        self,
        settings: SpoolSettings,
        desired: DesiredJobs,
        *,
        clock: Clock,
        known: KnownContents | None = None,
        on_followed: Callable[[], None] = lambda: None,
    ) -> None:
        """known: contents that need not be parsed. on_followed: called once the first look was acted upon, or failed."""
        self._known = known
        self._on_followed: Callable[[], None] | None = on_followed
        self._settings = settings
        self._desired = desired
        self._clock = clock
        self._errors = ErrorFiles(settings.status_directory, clock=clock)
        self._files = KnownFiles()
        self._owner_changes = desired.owner_changes()
        self._declarations = Declarations(SCOPE)
        self._unapplied: set[str] = set()  # files that may have to be applied
        self._follower = Follower(desired, SCOPE, client="root", place="the spool")
        self._unavailable = ""
        self._nudge = asyncio.Event()
        self._all_due = 0.0  # when everything is to be looked at again, in seconds since boot
        self._due: float | None = None
        self._watch = SpoolWatch(settings.directory, told=self._nudge.set, lost=self.nudge)
        self._synced_before = False
        self._undeleted = False  # a job whose deletion failed: tried again
        self._delete_failures = 0  # in a row

    def nudge(self) -> None:
        """Look again soon, at everything: something outside may have changed."""
        self._all_due = 0.0
        self._nudge.set()

    def job_changed(self, name: JobName, view: JobView | None) -> None:
        """A name is free, or was handed to us; or what is to be deleted may be used no longer. If all is well, that is nothing
        to us: to look at everything takes as long as there are files."""
        is_ours = view is not None and view.source.kind == KIND and self._follower.waits_for(name)
        has_ended = view is not None and bool(view.runs) and view.runs[0].phase.is_final
        if is_ours or (self._undeleted and has_ended) or (view is None and self._is_troubled):
            self.nudge()

    @property
    def _is_troubled(self) -> bool:
        """Whether there is anything that could go better another time."""
        return self._undeleted or bool(self._follower.conflicts) or bool(self._files.ailing)

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        try:
            while True:
                self._nudge.clear()
                if await self._watch.ensure():  # before looking: nothing can happen unseen between the two
                    self._all_due = 0.0
                await self._sync_logged()
                await self._told_followed()
                await self._wait()
        finally:
            await self._watch.close()
            if self._known is not None:
                self._known.save(all_of_it=True)

    async def sync(self, names: frozenset[str] | None = None) -> None:
        """Read the directory once, or only these files of it, and make the desired state follow. Raises SpoolUnavailable,
        JobletError."""
        self._due = None
        self._take_owners()  # also while the directory cannot be read: there are never more than of one round
        try:
            seen = await asyncio.to_thread(self._look, names)
        except SpoolUnavailable as error:
            self._again_in(_REOPEN_SECONDS, everything=True)
            await self._tell_unavailable(error)
            raise
        self._unavailable = ""
        reached("daemon.spool-looked-at")
        if not seen and self._synced_before:
            return
        self._synced_before = False
        await self._follow(looked_at_all=names is None)
        self._synced_before = True

    # -- looking --

    def _names_to_look_at(self) -> frozenset[str] | None:
        """What the kernel named, and what is looked at until it is well; None: everything."""
        named = self._watch.take()
        now = self._clock.boot_seconds()
        names = frozenset(named | self._files.ailing)
        if now >= self._all_due or not self._synced_before or len(names) > _MOST_NAMED or not all(map(is_plain, names)):
            self._all_due = now + self._settings.rescan_seconds
            return None
        self._all_due = min(self._all_due, now + _ALL_SECONDS)
        return names

    def _look(self, names: frozenset[str] | None) -> bool:
        """Bring what is known of the files up to date, in a thread. True if anything has to be followed up."""
        read = self._known.read if self._known is not None else None
        with SpoolDirectory(self._settings.directory, owner=self._settings.owner, read=read) as directory:
            present = directory.scan(names)
            known = self._files.names()
            changed = self._note_missing(known if names is None else known & names, present)
            for name, stamp in sorted(present.items()):
                file = self._files.get(name) or self._files.put(name, KnownFile())
                if file.gone_since is not None:
                    file.gone_since = None
                    self._files.note(name)
                    changed = True
                if file.stamp != stamp or file.content in (Absent.BEING_WRITTEN, Absent.GONE):
                    self._read(directory, name, file)
                    changed = True
                changed |= isinstance(file.content, Refused) or file.fault is not None
        return changed or bool(self._follower.conflicts) or self._undeleted

    def _note_missing(self, wanted: Iterable[str], present: Mapping[str, Stamp]) -> bool:
        changed = False
        now = self._clock.boot_seconds()
        for name in wanted:
            if name not in present:
                file = self._files[name]
                if file.gone_since is None:
                    file.gone_since = now
                    self._files.note(name)
                changed = True
        return changed

    def _read(self, directory: SpoolDirectory, name: str, file: KnownFile) -> None:
        file.has_read(name, *directory.read(name))
        self._files.note(name)
        if file.content is Absent.BEING_WRITTEN:
            self._again_in(min(_WRITER_SECONDS * 1.5 ** min(file.busy_count, 20), _WRITER_MAX_SECONDS))
        elif file.content is Absent.GONE:
            self._again_in(_WRITER_SECONDS)

    def _again_in(self, seconds: float, *, everything: bool = False) -> None:
        due = self._clock.boot_seconds() + seconds
        self._due = due if self._due is None else min(self._due, due)
        if everything:
            self._all_due = min(self._all_due, due)

    # -- following --

    async def _follow(self, *, looked_at_all: bool) -> None:
        gone = self._declare()
        plan = self._declarations.plan()
        if not looked_at_all and (plan.deletes or not self._follower.conflicts.issuperset(plan.conflicts)):
            # The other half of a rename may not have been told yet, or never will.
            await asyncio.to_thread(self._look, None)
            await self._follow(looked_at_all=True)
            return
        self._unapplied |= self._declarations.take_changed()
        await self._follower.hand_over(plan.transfers)
        await self._apply_all(plan)
        self._undeleted = not await self._follower.delete(plan.deletes)
        self._delete_failures = self._delete_failures + 1 if self._undeleted else 0
        if self._undeleted:  # later each time: what uses it may do so for long
            self._again_in(
                min(_REOPEN_SECONDS * 2 ** min(self._delete_failures - 1, 20), self._settings.rescan_seconds)
            )
        else:
            for name in gone:  # by now others may have been gone for long enough, and their jobs are still there
                self._files.forget(name)
                if self._known is not None:
                    self._known.forget(name)
        await self._follower.tell_conflicts(plan.conflicts)
        await self._tell_errors(plan.conflicts)

    def _take_owners(self) -> None:
        """A file owned in the inventory but never seen (it went away while nobody looked) is waited for all the same."""
        for job, owner in self._owner_changes.take().items():
            self._declarations.put_owner(job, owner)
            if owner is not None and owner.kind == KIND and owner.name not in self._files:
                self._files.put(owner.name, KnownFile(gone_since=self._clock.boot_seconds()))

    def _declare(self) -> set[str]:
        """Bring what is decided from up to date. Returns the files that are gone for good."""
        self._take_owners()
        leaving = {name for name in self._files.absent if self._is_leaving(self._files[name])}
        gone = self._files.absent - leaving
        for name in leaving:
            self._declarations.put_file(name, Standing.LEAVING)
        for name in gone:
            self._declarations.put_file(name, Standing.GONE)
        for name in self._files.told - self._files.absent:
            file = self._files[name]
            self._declarations.put_file(name, file.claim if file.is_good and file.claim else Standing.UNKNOWN)
        self._files.told.clear()
        return gone

    def _is_leaving(self, file: KnownFile) -> bool:
        """Whether a file went away so short a time ago that it may come back or turn up under another name."""
        if file.gone_since is None:
            return False
        left = file.gone_since + _LEAVE_SECONDS - self._clock.boot_seconds()
        if left > 0:
            self._again_in(left + 0.001)
        return left > 0

    async def _apply_all(self, plan: Plan) -> None:
        """What could not be applied stays among what has to be."""
        todo = []
        for name in sorted(self._unapplied):
            file, wanted = self._files.get(name), plan.owned.get(name)
            if file is None or wanted is None or (file.applied == wanted and file.fault is None):
                self._unapplied.discard(name)
            else:
                todo.append((name, file, frozenset(wanted)))
        todo.sort(key=lambda item: item[1].claim.order if item[1].claim else (0, item[0]))
        for start in range(0, len(todo), _APPLIES_AT_ONCE):
            await asyncio.gather(*(self._apply(*item) for item in todo[start : start + _APPLIES_AT_ONCE]))

    async def _apply(self, name: str, file: KnownFile, wanted: frozenset[JobName]) -> None:
        manifests = [manifest for manifest in file.good or () if key_of(manifest) in wanted]
        try:
            await self._follower.apply(manifests, spool_source(name))
        except JobletError as error:
            line, column = place_of(error, file)
            file.fault = Refused("NotApplied", (ManifestError(name, line, column, 0, "", str(error)),))
            self._files.note(name)
        else:
            reached("daemon.spool-file-applied")
            file.applied, file.fault = wanted, None
            self._files.note(name)
            self._unapplied.discard(name)
            await self._warn_of_readers(name, file, manifests)

    async def _warn_of_readers(self, name: str, file: KnownFile, manifests: Iterable[Manifest]) -> None:
        """The values of a secret are safe in the store, and lie open in a file that others can read."""
        mode = file.stamp.mode & 0o777 if file.stamp is not None else 0
        if mode & 0o077:
            path = os.path.join(self._settings.directory, name)
            message = f"{name} holds its values and can be read by others (mode {mode:04o}): chmod 600 {path}"
            for manifest in manifests:
                if isinstance(manifest, SecretManifest) and manifest.spec.values:
                    await self._desired.record_event(key_of(manifest), "", "Warning", "ReadableByOthers", message)

    # -- telling --

    @property
    def files_refused(self) -> int:
        """As they are now."""
        return len(self._errors)

    async def _tell_errors(self, conflicts: Iterable[Conflict]) -> None:
        self._take_owners()  # as they are after what was just applied
        faults = faults_of(self._files, conflicts, self._is_settled)
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
            for job in sorted(self._declarations.jobs_of(name)) or [JobName("")]:
                await self._desired.record_event(job, "", "Warning", faults[name].reason, message)
        for name in gone:
            await self._desired.record_event("", "", "Normal", "FileAccepted", f"{name}: its errors are gone")
        await self._tell_validity(faults)

    def _is_settled(self, file: KnownFile) -> bool:
        """Whether a file has rested: one that is being written in several goes is not complained about meanwhile."""
        if file.stamp is None:
            return True
        left = _SETTLE_SECONDS - (self._clock.wall_ns() - max(file.stamp.mtime_ns, file.stamp.ctime_ns)) / 1e9
        if 0 < left <= _SETTLE_SECONDS:
            self._again_in(left + 0.001)
            return False
        return True

    async def _tell_validity(self, faults: Mapping[str, Refused]) -> None:
        invalid = {
            job: str(fault.errors[0])
            for name, fault in faults.items()
            if fault.reason != "NameConflict"
            for job in self._declarations.jobs_of(name)
        }
        await self._follower.tell_validity(invalid)

    async def _tell_unavailable(self, error: SpoolUnavailable) -> None:
        if self._unavailable != str(error):
            self._unavailable = str(error)
            await self._desired.record_event("", "", "Warning", "SpoolUnavailable", str(error))

    # -- waiting --

    async def _sync_logged(self) -> None:
        try:
            await self.sync(self._names_to_look_at())
        except SpoolUnavailable as error:
            _log.warning("spool unavailable", error=str(error))
        except (JobletError, OSError) as error:
            _log.error("spool not followed", error=str(error))
            self._again_in(_REOPEN_SECONDS, everything=True)

    async def _told_followed(self) -> None:
        if self._known is not None:
            await asyncio.to_thread(self._known.save, all_of_it=False)
        if self._on_followed is not None:
            self._on_followed()
            self._on_followed = None

    async def _wait(self) -> None:
        due = self._all_due if self._due is None else min(self._due, self._all_due)
        seconds = min(self._settings.rescan_seconds, max(due - self._clock.boot_seconds(), 0.001))
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            return

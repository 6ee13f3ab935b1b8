"""One GitSource at work: look at the repository, decide, and make the desired state follow one commit, whole or not at all.

Level-triggered as the spool is: each look compares what the commit declares with who owns what now, whatever happened in between.
A look that ends badly changes nothing: what runs goes on as the last good commit has it, and the fault says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from joblet.clock import Clock
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import Drift, GitSourceSpec, Manifest, key_of
from jobletd.errors import WrongState
from jobletd.model import JobName
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.git.access import NoCredentials, open_access
from jobletd.sources.git.applied import Applied, load_applied, save_applied
from jobletd.sources.git.contents import Contents
from jobletd.sources.git.drift import mend_drift
from jobletd.sources.git.faults import ERRORS_SHOWN, Fault, check_deletions, fault_of_conflicts
from jobletd.sources.git.repository import SHORT, Mirror, NoSuchRevision, NotSigned, Remote
from jobletd.sources.git.scope import GitScope, claims_of, follower_of, sources_of
from jobletd.sources.git.tree import Tree, read_tree
from jobletd.sources.ownership import Claim, Plan, make_plan

FIRST_RETRY_SECONDS = 5.0
SOON_SECONDS = 1.0  # after a removal that had to wait for what uses the thing
log = structlog.get_logger("git")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person lets through, once."""

    allow_delete: bool = False
    take_over: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """directory: of all mirrors. contents: takes what jobs name by ``from``. labels: of this host. secret: opens the values
    of a Secret; raises JobletError. changed: called after each change of what there is to say."""

    directory: str
    contents: Contents
    labels: Callable[[], Mapping[str, str]]
    secret: Callable[[str], Mapping[str, bytes]]
    changed: Callable[[], None]
    clock: Clock


class GitSource:
    """``run`` works until it is cancelled."""

    def __init__(self, name: str, spec: GitSourceSpec, settings: Settings, desired: DesiredJobs) -> None:
        self.name = name
        self.fault: Fault | None = None
        self.selected = True  # whether this host is one of those that it is for
        self.looked = False  # whether the first look is over
        self.synced_ns: int | None = None  # the last look that found everything in line
        self.drifted: frozenset[JobName] = frozenset()
        self.kept: frozenset[JobName] = frozenset()  # owned, declared no longer, and not removed
        self._spec = spec
        self._settings = settings
        self._desired = desired
        self._mirror = Mirror(f"{settings.directory}/{name}.git")
        self._state_file = f"{settings.directory}/{name}.json"
        self.applied = load_applied(self._state_file)
        self._follower = follower_of(name, desired)
        self._fetched: tuple[str, Remote, str] | None = None  # from where, what was seen, the object that came
        self._verified: tuple[object, ...] | None = None
        self._read: tuple[str, str, Tree] | None = None  # commit and path of the tree that is not applied yet
        self._claims: tuple[str, str, str, list[Claim]] | None = None  # of what is in force: commit, path, label
        self._rewritten = ""
        self._wishes: list[tuple[Wishes, asyncio.Future[None]]] = []
        self._nudge = asyncio.Event()
        self._failures = 0
        self._waits = 0  # looks in a row after which something could not be removed yet

    @property
    def conflicts(self) -> int:
        return len(self._follower.conflicts)

    def update(self, spec: GitSourceSpec) -> None:
        """Follow it as this says from now on."""
        if spec != self._spec:
            self._spec = spec
            self._failures = 0
            self._nudge.set()

    def look_soon(self) -> None:
        """Something that it goes by may have changed. Raises WrongState."""
        if self._spec.suspend:
            raise WrongState(f"gitsource {self.name!r} is suspended", todo="apply it with spec.suspend: false")
        self._nudge.set()

    def job_changed(self, name: JobName) -> None:
        """Look soon if that may end a conflict."""
        if self._follower.waits_for(name):
            self._nudge.set()

    async def sync(self, wishes: Wishes) -> None:
        """Look now, and return when that is over; ``fault`` says how it went. Raises WrongState."""
        if self._spec.suspend:
            raise WrongState(f"gitsource {self.name!r} is suspended", todo="apply it with spec.suspend: false")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wishes.append((wishes, done))
        self._nudge.set()
        await done

    async def run(self) -> None:
        """Look again and again until cancelled."""
        asked: list[tuple[Wishes, asyncio.Future[None]]] = []
        try:
            while True:
                self._nudge.clear()
                asked, self._wishes = self._wishes, []
                wishes = Wishes(any(one.allow_delete for one, _ in asked), any(one.take_over for one, _ in asked))
                began = self._settings.clock.boot_seconds()
                await self._look_and_tell(wishes)
                for _, done in asked:
                    if not done.done():
                        done.set_result(None)
                await self._wait(self._settings.clock.boot_seconds() - began)
        finally:
            for _, done in (*asked, *self._wishes):
                done.cancel()

    def discard(self) -> None:
        """Nothing of it stays on the disk."""
        self._mirror.discard()
        save_applied(self._state_file, None)

    # -- one look --

    async def _look_and_tell(self, wishes: Wishes) -> None:
        fault: Fault | None
        try:
            if self._spec.suspend:
                raise Fault("Suspended", "nobody looks; what runs goes on")
            await self._look(wishes)
            fault = fault_of_conflicts(self.name, self._follower.conflicts)
        except Fault as found:
            fault = found
        except (JobletError, OSError) as error:
            if isinstance(error, JobletError) and self._mirror.is_damaged(error):
                self._mirror.discard()
                self._fetched = None
            reason = (
                type(error).__name__ if isinstance(error, NotSigned | NoSuchRevision | NoCredentials) else "NotSynced"
            )
            fault = Fault(reason, f"{error}; {self._in_force()}")
        except Exception as error:  # one source's trouble, even a defect of ours, must not end the others
            log.exception("look failed", gitsource=self.name)
            fault = Fault("InternalError", f"{error!r}; {self._in_force()}")
        if not self._spec.suspend:  # whatever became of the look, what is in force shall run
            self.drifted = await mend_drift(self._desired, self.name, self._spec.drift)
        self._failures = 0 if fault is None else self._failures + 1
        if fault is None:
            self.synced_ns = self._settings.clock.wall_ns()
        if not self.looked or str(fault) != str(self.fault):
            self.looked, self.fault = True, fault
            if fault is not None:
                log.warning("git source not in line", gitsource=self.name, reason=fault.reason, error=str(fault))
            self._settings.changed()

    async def _look(self, wishes: Wishes) -> None:
        spec = self._spec
        self.selected = spec.node_selector.items() <= self._settings.labels().items()
        if not self.selected:
            await self._let_go(spec, wishes)
            return
        remote, commit = await self._arrive(spec)
        if not await self._is_in_line(spec, remote.label, commit, wishes):
            await asyncio.gather(self._tree(spec, commit), self._tell_rewritten(remote, commit))
            await self._follow(spec, remote, commit, wishes)

    async def _let_go(self, spec: GitSourceSpec, wishes: Wishes) -> None:
        """This host is none of those that it is for: as if a commit declared nothing. Raises Fault."""
        owners = await self._desired.owners()
        owned = [(job, owner) for job, owner in owners.items() if self._follower.scope.file_of(owner) is not None]
        if spec.prune.enabled:
            if not wishes.allow_delete:
                who, counts = "spec.nodeSelector, which does not name this host,", (len(owned), len(owned))
                check_deletions(self.name, spec, who, counts, self._in_force())
            self._waits = 0 if await self._follower.delete(owned) else self._waits + 1
        self.kept = frozenset() if spec.prune.enabled else frozenset(job for job, _ in owned)
        await self._follower.tell_conflicts(())
        if self.applied is not None:
            self.applied = self._claims = self._read = None
            save_applied(self._state_file, None)
            self._settings.changed()

    async def _arrive(self, spec: GitSourceSpec) -> tuple[Remote, str]:
        """Have what the repository has. Returns what was seen there, and its commit. Only this speaks to the network."""
        secret = f"secret/{spec.credentials}" if spec.credentials else ""
        values = self._settings.secret(spec.credentials) if spec.credentials else {}
        await self._mirror.ensure()
        end = self._settings.clock.boot_seconds() + spec.timeout_seconds
        with open_access(spec.url, secret, values) as access:
            remote = await self._mirror.look(spec.url, spec.ref, access, spec.timeout_seconds)
            if self._fetched is None or self._fetched[:2] != (spec.url, remote):
                left = max(end - self._settings.clock.boot_seconds(), 0.1)
                object_id = await self._mirror.fetch(spec.url, remote, access, left)
                reached("git.fetched")
                self._fetched = (spec.url, remote, object_id)
        object_id = self._fetched[2]
        commit = await self._mirror.commit_of(object_id) if remote.ref.startswith("refs/tags/") else object_id
        if spec.signature is not None and self._verified != (object_id, spec.signature):
            await self._mirror.verify(object_id, spec.signature)
            self._verified = (object_id, spec.signature)
        return remote, commit

    async def _tell_rewritten(self, remote: Remote, commit: str) -> None:
        """A branch whose history does not go on from what is in force is followed all the same, and that is said."""
        applied = self.applied
        if applied is None or commit in (applied.revision, self._rewritten) or remote.label != applied.label:
            return
        if remote.ref.startswith("refs/heads/") and await self._mirror.is_rewritten(applied.revision, commit):
            self._rewritten = commit
            what = f"{commit[:SHORT]} of {remote.label} does not go on from {applied.revision[:SHORT]}: its history was rewritten"
            await self._desired.record_event(self._key, "", "Warning", "HistoryRewritten", what)

    async def _is_in_line(self, spec: GitSourceSpec, label: str, commit: str, wishes: Wishes) -> bool:
        """Whether that commit is in force and everybody still owns what it gave them; costs no reading of files."""
        if self._claims is None or self._claims[:3] != (commit, spec.path, label):
            return False
        owners = await self._desired.owners()
        self._follower.scope = GitScope(self.name, commit)
        plan = make_plan(self._follower.scope, self._claims[3], owners, take_over=wishes.take_over)
        self._note_kept(spec, plan)
        if plan.transfers or (plan.deletes and spec.prune.enabled):
            return False
        missing = {job for jobs in plan.owned.values() for job in jobs if job not in owners}
        freed = {conflict.job for conflict in self._follower.conflicts}
        if freed - {conflict.job for conflict in plan.conflicts}:
            return False  # it was handed to us, and may differ from what the commit says
        if missing and spec.drift is Drift.CORRECT:
            return False
        await self._follower.tell_conflicts(plan.conflicts)
        return True

    async def _follow(self, spec: GitSourceSpec, remote: Remote, commit: str, wishes: Wishes) -> None:
        """Make the desired state what that commit says. Raises Fault, with nothing changed."""
        tree = await self._tree(spec, commit)
        if tree.errors:
            await self._refuse(commit, tree)
        if tree.missing and (self.applied is None or self.applied.path != spec.path):
            raise Fault("NoSuchRevision", f"{tree.missing}; {self._in_force()}")
        scope = GitScope(self.name, commit)
        claims = claims_of(tree)
        owners = await self._desired.owners()
        plan = make_plan(scope, claims, owners, take_over=wishes.take_over)
        self._note_kept(spec, plan)
        deletes = plan.deletes if spec.prune.enabled else []
        if not wishes.allow_delete:
            owned = sum(scope.file_of(owner) is not None for owner in owners.values())
            who, counts = f"commit {commit[:SHORT]}", (len(deletes), owned)
            check_deletions(self.name, spec, who, counts, self._in_force())
        chosen = {
            file: [one for one in manifests if JobName(key_of(one)) in plan.owned[file]]
            for file, manifests in tree.manifests.items()
        }
        await self._try_out(commit, chosen, scope, wishes)
        self._follower.scope = scope
        await self._follower.tell_validity({})
        together = [one for manifests in chosen.values() for one in manifests]
        try:
            await self._follower.apply(together, sources_of(chosen, scope), plan.transfers, take_over=wishes.take_over)
        except JobletError as error:  # what a dry run does not see: a content that is not here
            raise await self._not_applied(commit, "", error) from error
        reached("git.applied")
        self._waits = 0 if await self._follower.delete(deletes) else self._waits + 1
        await self._follower.tell_conflicts(plan.conflicts)
        await self._put_on_record(spec, remote, commit, tree, claims)

    async def _tree(self, spec: GitSourceSpec, commit: str) -> Tree:
        if self._read is None or self._read[:2] != (commit, spec.path):
            tree = await read_tree(self._mirror, commit, spec.path)
            if not tree.errors:
                tree = await self._settings.contents.resolved(self._mirror, tree)
                if tree.errors:
                    return tree  # there may be room at the next look
            self._read = (commit, spec.path, tree)
        return self._read[2]

    async def _refuse(self, commit: str, tree: Tree) -> None:
        """Raises Fault: what is wrong, where, and whose change it is."""
        broken = list(dict.fromkeys(error.file for error in tree.errors))
        facts = await self._mirror.facts(commit, broken[0])
        shown = "; ".join(str(error) for error in tree.errors[:ERRORS_SHOWN])
        more = f"; and {len(tree.errors) - ERRORS_SHOWN} more" if len(tree.errors) > ERRORS_SHOWN else ""
        owners = await self._desired.owners()
        scope = GitScope(self.name, commit)
        by_file = {error.file: str(error) for error in reversed(tree.errors)}
        files = {job: scope.file_of(owner) for job, owner in owners.items()}
        await self._follower.tell_validity({job: by_file[file] for job, file in files.items() if file in by_file})
        author = f"{broken[0]} was last changed in {facts}"
        what = f"commit {commit[:SHORT]} is not applied: {shown}{more}; {author}; {self._in_force()}"
        raise Fault("InvalidManifest", what)

    async def _try_out(
        self, commit: str, chosen: Mapping[str, list[Manifest]], scope: GitScope, wishes: Wishes
    ) -> None:
        """Whether everything can be had, before anything is changed. Raises Fault."""
        together = [one for manifests in chosen.values() for one in manifests]
        try:
            await self._desired.apply(together, sources_of(chosen, scope), dry_run=True, take_over=wishes.take_over)
        except JobletError as error:
            file, why = await self._culprit(chosen, scope, wishes, error)
            raise await self._not_applied(commit, file, why) from error

    async def _not_applied(self, commit: str, file: str, why: JobletError) -> Fault:
        """file: which is to blame; empty if it is not known."""
        at = f"{file}: " if file else ""
        author = f"; {file} was last changed in {await self._mirror.facts(commit, file)}" if file else ""
        return Fault("NotApplied", f"commit {commit[:SHORT]} is not applied: {at}{why}{author}; {self._in_force()}")

    async def _culprit(
        self, chosen: Mapping[str, list[Manifest]], scope: GitScope, wishes: Wishes, error: JobletError
    ) -> tuple[str, JobletError]:
        """The first file that cannot be had by itself, and why; an empty name if only all together cannot."""
        for file, manifests in chosen.items():
            try:
                source = scope.source_of(file)
                await self._desired.apply(manifests, source, dry_run=True, take_over=wishes.take_over)
            except JobletError as found:
                return file, found
        return "", error

    async def _put_on_record(
        self, spec: GitSourceSpec, remote: Remote, commit: str, tree: Tree, claims: list[Claim]
    ) -> None:
        before = self.applied
        self._claims = (commit, spec.path, remote.label, claims)
        self._read = None
        await self._mirror.keep(commit)
        reached("git.commit-kept")
        facts = await self._mirror.facts(commit)
        self.applied = Applied(commit, remote.label, spec.path, facts.author, facts.subject, tree.count)
        if before == self.applied:
            return
        save_applied(self._state_file, self.applied)
        reached("git.revision-stored")
        if before is None or before.revision != commit:
            what = f"{tree.count} manifests of {remote.label} as of {facts}"
            await self._desired.record_event(self._key, "", "Normal", "Applied", what)
        for passed in tree.passed_over:
            await self._desired.record_event(self._key, "", "Warning", "PassedOver", passed)
        self._settings.changed()

    # -- telling and waiting --

    @property
    def _key(self) -> str:
        return f"gitsource/{self.name}"

    def _in_force(self) -> str:
        return f"{self.applied.revision[:SHORT]} stays in force" if self.applied else "nothing of it was ever applied"

    def _note_kept(self, spec: GitSourceSpec, plan: Plan) -> None:
        self.kept = frozenset() if spec.prune.enabled else frozenset(job for job, _ in plan.deletes)

    async def _wait(self, took_seconds: float) -> None:
        """From the beginning of one look to that of the next is an interval; one that takes long rests as long as it took."""
        interval = self._spec.interval_seconds
        seconds: float | None = max(interval - took_seconds, min(took_seconds, interval))
        if self._spec.suspend:
            seconds = None
        elif self._waits:
            seconds = min(SOON_SECONDS * 2 ** min(self._waits - 1, 20), interval)
        elif self._failures:
            seconds = min(FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, 20), interval)
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            return

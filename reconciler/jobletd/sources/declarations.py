"""What a source's files declare and who owns it, with the decisions of ``ownership`` about it, kept with each change.

A job is decided about anew when a file that declares it or that it belongs to changed, or its owner did: so a change costs what
it touches, however many other files there are. What comes out is what ``make_plan`` makes of the same from nothing; a property
test holds that.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from enum import Enum

from jobletd.model import JobName, Source
from jobletd.sources.ownership import Claim, Conflict, Fate, Plan, Scope, decide_claimed, decide_unclaimed

_NONE: frozenset[JobName] = frozenset()


class Standing(Enum):
    """What a file without a claim stands for."""

    UNKNOWN = "unknown"  # it is there, and cannot be acted upon
    LEAVING = "leaving"  # it went away a moment ago
    GONE = "gone"


class Declarations:
    """All of one source. It starts without a file and without an owner."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._claims: dict[str, Claim] = {}  # of the good files
        self._unknown: set[str] = set()
        self._leaving: set[str] = set()
        self._claimants: dict[JobName, tuple[str, ...]] = {}  # in order
        self._owners: dict[JobName, Source] = {}
        self._jobs_of: dict[str, set[JobName]] = {}  # by file, as owners have it
        self._undecided: set[JobName] = set()
        # What was decided, by job:
        self._winners: dict[JobName, str] = {}
        self._transfers: dict[JobName, tuple[Source, Source]] = {}
        self._conflicts: dict[JobName, tuple[Conflict, ...]] = {}
        self._waiting: set[JobName] = set()
        self._deletes: dict[JobName, Source] = {}
        self._owned: dict[str, frozenset[JobName]] = {}  # by good file
        self._told: set[str] = set()  # files, since the last plan
        self._changed: set[str] = set()

    def put_file(self, file: str, what: Claim | Standing) -> None:
        """A file is like this now: good, with what it claims, or not."""
        self._told.add(file)
        self._put_claim(file, what if isinstance(what, Claim) else None)
        for files, belongs in ((self._unknown, what is Standing.UNKNOWN), (self._leaving, what is Standing.LEAVING)):
            if (file in files) != belongs:
                files.symmetric_difference_update((file,))
                self._undecided |= self.jobs_of(file)

    def put_owner(self, job: JobName, owner: Source | None) -> None:
        """A job, or whatever else, belongs to that one now; None: to nobody."""
        before = self._owners.get(job)
        files = {self._scope.file_of(one) for one in (before, owner) if one is not None} - {None}
        if owner is None:
            self._owners.pop(job, None)
        else:
            self._owners[job] = owner
        for file in files:
            assert file is not None
            self._jobs_of.setdefault(file, set()).discard(job)
            if owner is not None and self._scope.file_of(owner) == file:
                self._jobs_of[file].add(job)
            elif not self._jobs_of[file]:
                del self._jobs_of[file]
        if files or job in self._claimants:
            self._undecided.add(job)

    def jobs_of(self, file: str) -> AbstractSet[JobName]:
        """What belongs to a file now, whether it declares it or not."""
        return self._jobs_of.get(file, _NONE)

    def plan(self) -> Plan:
        """All that is to be done as things stand."""
        self._decide()
        transfers = [(job, old, new) for job, (old, new) in sorted(self._transfers.items(), key=lambda item: item[0])]
        return Plan(
            transfers=transfers,
            owned=self._owned,
            deletes=sorted(self._deletes.items(), key=lambda item: item[0]),
            conflicts=[conflict for job in sorted(self._conflicts) for conflict in self._conflicts[job]],
            waiting=sorted(self._waiting),
        )

    def take_changed(self) -> set[str]:
        """The files that were told of, or for which something else was decided than before, since this was last asked."""
        changed, self._changed = self._changed, set()
        return changed

    def _put_claim(self, file: str, claim: Claim | None) -> None:
        before = self._claims.get(file)
        if claim == before:
            return
        if before is not None:
            del self._claims[file]
            for job in before.jobs:
                left = tuple(other for other in self._claimants.get(job, ()) if other != file)
                if left:
                    self._claimants[job] = left
                else:
                    self._claimants.pop(job, None)
            self._undecided.update(before.jobs)
        if claim is None:
            return
        self._claims[file] = claim
        for job in dict.fromkeys(claim.jobs):
            others = self._claimants.get(job, ())
            self._claimants[job] = (
                tuple(sorted((*others, file), key=lambda one: self._claims[one].order)) if others else (file,)
            )
        self._undecided.update(claim.jobs)

    def _decide(self) -> None:
        gained: dict[str, set[JobName]] = {}
        lost: dict[str, set[JobName]] = {}
        for job in self._undecided:
            before = self._winners.pop(job, None)
            winner = self._decide_about(job)
            if winner is not None:
                self._winners[job] = winner
            if winner != before:
                if before is not None:
                    lost.setdefault(before, set()).add(job)
                if winner is not None:
                    gained.setdefault(winner, set()).add(job)
        self._undecided = set()
        changed = self._told | gained.keys() | lost.keys()
        for file in changed:
            if file in self._claims:
                owned = self._owned.get(file, _NONE)
                self._owned[file] = (owned - lost.get(file, _NONE)) | gained.get(file, _NONE)
            else:  # what it won was decided about just now, and lost
                self._owned.pop(file, None)
        self._changed |= changed
        self._told = set()

    def _decide_about(self, job: JobName) -> str | None:
        """Returns the file that it is to belong to."""
        for decided in (self._transfers, self._conflicts, self._deletes):
            decided.pop(job, None)
        self._waiting.discard(job)
        owner, files = self._owners.get(job), self._claimants.get(job)
        if files is None:
            if owner is not None:
                self._decide_fate(job, owner)
            return None
        decision = decide_claimed(self._scope, job, files, owner, unknown=self._unknown)
        if decision.conflicts:
            self._conflicts[job] = decision.conflicts
        if decision.winner is not None and decision.takes_from is not None:
            self._transfers[job] = (decision.takes_from, self._scope.source_of(decision.winner))
        return decision.winner

    def _decide_fate(self, job: JobName, owner: Source) -> None:
        match decide_unclaimed(self._scope, owner, unknown=self._unknown, leaving=self._leaving):
            case Fate.WAITS:
                self._waiting.add(job)
            case Fate.GOES:
                self._deletes[job] = owner

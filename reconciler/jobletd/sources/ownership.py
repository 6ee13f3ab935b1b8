"""Who owns which job, decided from what a source's files say and who owns what now. Pure: no files, no clock.

One meaning for all that has files: each file of the spool, and each of a git repository, declares jobs; what is owned and no
longer declared is to go; what belongs to somebody else is a conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from jobletd.model import JobName, Source


class Scope(Protocol):
    """Which owners are files of one source."""

    def file_of(self, owner: Source) -> str | None:
        """The file that an owner is; None if it is none of this source's."""

    def source_of(self, file: str) -> Source:
        """What a file's jobs belong to."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A file declares a job that belongs to another source."""

    file: str
    job: JobName
    owner: Source


@dataclass(frozen=True, slots=True)
class Claim:
    """What a good file declares. order: sorts files that come at the same time; the lowest wins."""

    file: str
    jobs: tuple[JobName, ...]
    order: tuple[int, str]


@dataclass(slots=True)
class Plan:
    """What to do. owned: for each good file the jobs that are its own."""

    transfers: list[tuple[JobName, Source, Source]] = field(default_factory=list)
    owned: Mapping[str, AbstractSet[JobName]] = field(default_factory=dict)
    deletes: list[tuple[JobName, Source]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    waiting: list[JobName] = field(default_factory=list)


class Fate(Enum):
    """What becomes of a job that no good file declares."""

    STAYS = "stays"
    WAITS = "waits"  # its file may come back in a moment
    GOES = "goes"


@dataclass(slots=True)
class Decision:
    """About a job that is declared.

    winner: the file that it is to belong to; None: none of ours. takes_from: who has it until then.
    """

    winner: str | None = None
    takes_from: Source | None = None
    conflicts: tuple[Conflict, ...] = ()


def make_plan(
    scope: Scope,
    claims: Iterable[Claim],
    owners: Mapping[JobName, Source],
    *,
    unknown: AbstractSet[str] = frozenset(),
    leaving: AbstractSet[str] = frozenset(),
    take_over: bool = False,
) -> Plan:
    """Decide about everything at once; ``Declarations`` does it bit by bit.

    unknown: files that are there but cannot be acted upon; what they own stays as it is. leaving: files that went away
    a moment ago; their jobs can be taken over but are not deleted yet, since a rename looks like that. take_over: what
    belongs to another source is no conflict but transferred.
    """
    sorted_claims = sorted(claims, key=lambda claim: claim.order)
    owned: dict[str, set[JobName]] = {claim.file: set() for claim in sorted_claims}
    plan = Plan(owned=owned)
    claimants: dict[JobName, list[str]] = {}
    for claim in sorted_claims:
        for job in claim.jobs:
            claimants.setdefault(job, []).append(claim.file)
    for job, files in claimants.items():
        owner = owners.get(job)
        decision = decide_claimed(scope, job, files, owner, unknown=unknown, take_over=take_over)
        if decision.winner is not None:
            owned[decision.winner].add(job)
            if decision.takes_from is not None:
                plan.transfers.append((job, decision.takes_from, scope.source_of(decision.winner)))
        plan.conflicts.extend(decision.conflicts)
    for job, owner in owners.items():
        if job in claimants:
            continue
        match decide_unclaimed(scope, owner, unknown=unknown, leaving=leaving):
            case Fate.WAITS:
                plan.waiting.append(job)
            case Fate.GOES:
                plan.deletes.append((job, owner))
    return plan


def decide_claimed(
    scope: Scope,
    job: JobName,
    files: Sequence[str],
    owner: Source | None,
    *,
    unknown: AbstractSet[str],
    take_over: bool = False,
) -> Decision:
    """About a job that these good files declare, the one that comes first in order first."""
    decision = Decision()
    file = None if owner is None else scope.file_of(owner)
    if owner is None:
        decision.winner = files[0]
    elif (file is None and not take_over) or file in unknown:
        pass
    elif file in files:
        decision.winner = file
    else:
        decision.winner = files[0]  # the file that had it no longer declares it, or is gone
        decision.takes_from = owner
    if len(files) > 1 or decision.winner is None:
        owner = owner if decision.winner is None else scope.source_of(decision.winner)
        assert owner is not None
        decision.conflicts = tuple(Conflict(file, job, owner) for file in files if file != decision.winner)
    return decision


def decide_unclaimed(scope: Scope, owner: Source, *, unknown: AbstractSet[str], leaving: AbstractSet[str]) -> Fate:
    """About a job that no good file declares."""
    file = scope.file_of(owner)
    if file is None or file in unknown:
        return Fate.STAYS
    return Fate.WAITS if file in leaving else Fate.GOES

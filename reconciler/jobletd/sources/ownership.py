"""Who owns which job, decided from what a source's files say and who owns what now. Pure: no files, no clock.

One meaning for all that has files: each file of the spool, and each of a git repository, declares jobs; what is owned and no
longer declared is to go; what belongs to somebody else is a conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    owned: dict[str, set[JobName]] = field(default_factory=dict)
    deletes: list[tuple[JobName, Source]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    waiting: list[JobName] = field(default_factory=list)


def make_plan(
    scope: Scope,
    claims: Iterable[Claim],
    owners: Mapping[JobName, Source],
    *,
    unknown: frozenset[str] = frozenset(),
    leaving: frozenset[str] = frozenset(),
    take_over: bool = False,
) -> Plan:
    """Decide.

    unknown: files that are there but cannot be acted upon; what they own stays as it is. leaving: files that went away
    a moment ago; their jobs can be taken over but are not deleted yet, since a rename looks like that. take_over: what
    belongs to another source is no conflict but transferred.
    """
    sorted_claims = sorted(claims, key=lambda claim: claim.order)
    plan = Plan(owned={claim.file: set() for claim in sorted_claims})
    claimants: dict[JobName, list[str]] = {}
    for claim in sorted_claims:
        for job in claim.jobs:
            claimants.setdefault(job, []).append(claim.file)
    for job, files in claimants.items():
        _decide(plan, scope, job, files, owners.get(job), unknown, take_over)
    for job, owner in owners.items():
        file = scope.file_of(owner)
        if file is None or job in claimants or file in unknown:
            continue
        if file in leaving:
            plan.waiting.append(job)
        else:
            plan.deletes.append((job, owner))
    return plan


def _decide(
    plan: Plan,
    scope: Scope,
    job: JobName,
    files: list[str],
    owner: Source | None,
    unknown: frozenset[str],
    take_over: bool,
) -> None:
    winner: str | None
    file = None if owner is None else scope.file_of(owner)
    if owner is None:
        winner = files[0]
    elif (file is None and not take_over) or file in unknown:
        winner = None
    elif file in files:
        winner = file
    else:
        winner = files[0]  # the file that had it no longer declares it, or is gone
        plan.transfers.append((job, owner, scope.source_of(winner)))
    if winner is not None:
        plan.owned[winner].add(job)
        owner = scope.source_of(winner)
    assert owner is not None
    plan.conflicts.extend(Conflict(file, job, owner) for file in files if file != winner)

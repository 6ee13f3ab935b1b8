"""Who owns which job, decided from what the files say and who owns what now. Pure: no files, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jobletd.model import JobName, Source

KIND = "spool"


def spool_source(file: str) -> Source:
    """The source of a file's jobs: ``spool:<file>``."""
    return Source(KIND, file)


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
    claims: Iterable[Claim], owners: Mapping[JobName, Source], *, unknown: frozenset[str], leaving: frozenset[str]
) -> Plan:
    """Decide.

    unknown: files that are there but cannot be acted upon; what they own stays as it is. leaving: files that went away
    a moment ago; their jobs can be taken over but are not deleted yet, since a rename looks like that.
    """
    sorted_claims = sorted(claims, key=lambda claim: claim.order)
    plan = Plan(owned={claim.file: set() for claim in sorted_claims})
    claimants: dict[JobName, list[str]] = {}
    for claim in sorted_claims:
        for job in claim.jobs:
            claimants.setdefault(job, []).append(claim.file)
    for job, files in claimants.items():
        _decide(plan, job, files, owners.get(job), unknown)
    for job, owner in owners.items():
        if owner.kind != KIND or job in claimants or owner.name in unknown:
            continue
        if owner.name in leaving:
            plan.waiting.append(job)
        else:
            plan.deletes.append((job, owner))
    return plan


def _decide(plan: Plan, job: JobName, files: list[str], owner: Source | None, unknown: frozenset[str]) -> None:
    winner: str | None
    if owner is None:
        winner = files[0]
    elif owner.kind != KIND or owner.name in unknown:
        winner = None
    elif owner.name in files:
        winner = owner.name
    else:
        winner = files[0]  # the file that had it no longer declares it, or is gone
        plan.transfers.append((job, owner, spool_source(winner)))
    if winner is not None:
        plan.owned[winner].add(job)
        owner = spool_source(winner)
    assert owner is not None
    plan.conflicts.extend(Conflict(file, job, owner) for file in files if file != winner)

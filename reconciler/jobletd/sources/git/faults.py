"""Why a GitSource is not in line, in words."""

from __future__ import annotations

from collections.abc import Iterable

from joblet.errors import JobletError
from joblet.manifest import GitSourceSpec
from jobletd.sources.ownership import Conflict

ERRORS_SHOWN = 5


class Fault(JobletError):
    """Why a source is not in line. reason: CamelCase, for the condition."""

    def __init__(self, reason: str, what: str, *, todo: str = "") -> None:
        self.reason = reason
        super().__init__(what, todo=todo)


def check_deletions(name: str, spec: GitSourceSpec, who: str, counts: tuple[int, int], in_force: str) -> None:
    """Whether something takes so much away that it may be a mistake; one thing alone may always go.

    counts: how many would go, and of how many. Raises Fault.
    """
    (deletes, owned), most = counts, spec.prune.max_delete_percent
    if deletes > 1 and deletes * 100 > most * owned:
        what = f"{who} removes {deletes} of {owned}, more than {most} % at once; {in_force}"
        raise Fault("DeletionGuard", what, todo=f"rnx sync {name} --allow-delete lets it through")


def fault_of_conflicts(name: str, conflicts: Iterable[Conflict]) -> Fault | None:
    """What belongs to others, if anything does."""
    found = sorted(conflicts, key=lambda one: (one.job, one.file))
    if not found:
        return None
    shown = "; ".join(f"{one.job} in {one.file} belongs to {one.owner}" for one in found[:ERRORS_SHOWN])
    more = f"; and {len(found) - ERRORS_SHOWN} more" if len(found) > ERRORS_SHOWN else ""
    todo = f"rename it, delete it there, or rnx sync {name} --take-over"
    return Fault("Conflict", f"everything else is applied: {shown}{more}", todo=todo)

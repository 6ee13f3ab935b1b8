"""The daemon's answers to requests that cannot be met, which gRPC services turn into status codes; and why it cannot start."""

from __future__ import annotations

from collections.abc import Sequence

from joblet.errors import JobletError
from jobletd.model import Source


class ServeError(JobletError):
    """The daemon cannot start."""


class NoSuchJob(JobletError):
    """Nothing has that name or run id. nearest: names that may have been meant."""

    def __init__(self, ref: str, nearest: Sequence[str] = ()) -> None:
        self.ref = ref
        self.nearest = tuple(nearest)
        todo = f"did you mean {' or '.join(self.nearest)}?" if nearest else "rnx list shows all jobs"
        super().__init__(f"no job or run {ref!r}", todo=todo)


class NoSuchResource(NoSuchJob):
    """Nothing of that kind has that name."""

    def __init__(self, kind: str, name: str, nearest: Sequence[str] = ()) -> None:
        super().__init__(name, nearest)
        self.what = f"no {kind} {name!r}"
        if not nearest:
            self.todo = f"rnx get {kind}s shows all"


class AmbiguousRef(JobletError):
    """A beginning that several run ids have."""


class OwnershipConflict(JobletError):
    """Another source owns the job."""

    def __init__(self, name: str, owner: Source) -> None:
        self.name = name
        self.owner = owner
        other = "delete it there first, or choose another name"
        todo = f"change it in {owner.file}" if owner.file else other
        if owner.kind != "deleted":
            todo += "; rnx apply --take-over takes it away from there"
        super().__init__(f"job {name!r} belongs to {owner}", todo=todo)


class DuplicateName(JobletError):
    """Two manifests of one request have the same name."""


class WrongState(JobletError):
    """What was asked for makes no sense for the job as it is."""


class WatcherTooSlow(JobletError):
    """A watcher did not read for so long that changes had to be dropped."""

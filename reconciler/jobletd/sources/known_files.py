"""What is known of the spool's files, and which of them want a look: kept with each change, so that nobody goes through all."""

from __future__ import annotations

from collections.abc import KeysView
from dataclasses import dataclass

from joblet.manifest import Manifest, key_of
from jobletd.model import JobName
from jobletd.sources.ownership import Claim
from jobletd.sources.spool_files import Absent, Content, Loaded, Refused, Stamp


@dataclass(slots=True)
class KnownFile:
    """What is known of one file. good: what it said last that was valid; None: nothing yet."""

    stamp: Stamp | None = None
    content: Content = Absent.GONE
    good: tuple[Manifest, ...] | None = None
    claim: Claim | None = None  # that it makes while its content is good
    applied: frozenset[JobName] | None = None  # None: has to be applied
    fault: Refused | None = None  # why an apply was refused
    gone_since: float | None = None
    busy_count: int = 0

    @property
    def is_good(self) -> bool:
        """Whether what it says now is known and valid."""
        return isinstance(self.content, Loaded)

    @property
    def is_well(self) -> bool:
        """Whether nothing has to be done about it until it changes."""
        return self.is_good and self.fault is None and self.gone_since is None

    def has_read(self, name: str, stamp: Stamp | None, content: Content) -> None:
        """It was looked into."""
        self.stamp, self.content = stamp, content
        if isinstance(content, Loaded):
            self.good, self.applied, self.fault = content.manifests, None, None
            jobs = tuple(JobName(key_of(manifest)) for manifest in content.manifests)
            self.claim = Claim(name, jobs, (stamp.mtime_ns if stamp else 0, name))
        self.busy_count = self.busy_count + 1 if content is Absent.BEING_WRITTEN else 0


class KnownFiles:
    """The files by name. Whoever changes one says so by ``note``.

    ailing: those that are not well. absent: those of them that are gone. told: those noted since it was last emptied.
    """

    def __init__(self) -> None:
        self._files: dict[str, KnownFile] = {}
        self.ailing: set[str] = set()
        self.absent: set[str] = set()
        self.told: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> KnownFile:
        return self._files[name]

    def get(self, name: str) -> KnownFile | None:
        return self._files.get(name)

    def names(self) -> KeysView[str]:
        return self._files.keys()

    def put(self, name: str, file: KnownFile) -> KnownFile:
        """One that was not known."""
        self._files[name] = file
        self.note(name)
        return file

    def note(self, name: str) -> None:
        """A file is another one than before."""
        file = self._files[name]
        _put(self.ailing, name, not file.is_well)
        _put(self.absent, name, file.gone_since is not None)
        self.told.add(name)

    def forget(self, name: str) -> None:
        """It is gone for good."""
        del self._files[name]
        for names in (self.ailing, self.absent, self.told):
            names.discard(name)


def _put(names: set[str], name: str, belongs: bool) -> None:
    if belongs:
        names.add(name)
    else:
        names.discard(name)

"""What differs between two manifests of one job, and what that means for what runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from joblet.manifest.canonical import plain
from joblet.manifest.document import path_text
from joblet.manifest.models import JobManifest


class ChangeKind(StrEnum):
    """The consequence of a change, from the mildest to the hardest."""

    NONE = "none"
    METADATA = "metadata"  # labels or annotations alone: no new generation
    IN_PLACE = "in-place"  # a new generation that goes on with the same run
    RESTART = "restart"  # a new generation with a run of its own
    NEW = "new"


_CONSEQUENCES = {
    ChangeKind.NONE: "nothing changes",
    ChangeKind.METADATA: "labels and annotations change; nothing restarts",
    ChangeKind.IN_PLACE: "changes in place; nothing restarts",
    ChangeKind.RESTART: "the current run is stopped and a new one starts",
    ChangeKind.NEW: "a new job starts",
}

# What the kernel changes for a running cgroup, and what only the daemon's own book-keeping needs.
_IN_PLACE = (
    "spec.limits.cpu",
    "spec.limits.cpus",
    "spec.limits.memory",
    "spec.limits.swap",
    "spec.limits.pids",
    "spec.limits.io",
    "spec.limits.enforcement",
    "spec.priority",
    "spec.dependsOn",
    "spec.notify",
    "spec.probe",
    "spec.update",
    "spec.history",
    "spec.suspend",
    "spec.schedule",
    "spec.array.parallel",
    "spec.array.success",
    "spec.array.failFast",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One differing field. before and after: as a manifest spells them, defaults filled in; None: not set."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differing fields, sorted by path, and their consequence."""

    changes: tuple[Change, ...]
    kind: ChangeKind

    @property
    def consequence(self) -> str:
        """One sentence for people."""
        suspend = next((change for change in self.changes if change.path == "spec.suspend"), None)
        if self.kind is ChangeKind.IN_PLACE and suspend is not None:
            return "what runs is stopped" if suspend.after else "the job may run again"
        return _CONSEQUENCES[self.kind]


def compare(current: JobManifest | None, desired: JobManifest) -> Comparison:
    """Compare what is with what is asked for. Spelling, key order and explicit defaults make no difference."""
    if current is None:
        given = _flat(plain(desired))
        return Comparison(tuple(Change(path, None, given[path]) for path in sorted(given)), ChangeKind.NEW)
    before, after = _flat(_full(current)), _flat(_full(desired))
    changes = tuple(
        Change(path, before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    )
    return Comparison(changes, _kind(changes))


def _kind(changes: tuple[Change, ...]) -> ChangeKind:
    if not changes:
        return ChangeKind.NONE
    if all(change.path.startswith("metadata.") for change in changes):
        return ChangeKind.METADATA
    if all(change.path.startswith("metadata.") or _is_in_place(change.path) for change in changes):
        return ChangeKind.IN_PLACE
    return ChangeKind.RESTART


def _is_in_place(path: str) -> bool:
    return any(path == field or path.startswith(field + ".") for field in _IN_PLACE)


def _full(manifest: JobManifest) -> dict[str, Any]:
    # Fields that are not set have no spelling (their serialisers know numbers only): exclude_none keeps them out.
    data: dict[str, Any] = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return data


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_leaves((), data))


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves((*path, key), item)
    elif path == ("spec", "files"):
        for file in value:
            for key in ("content", "from", "link", "mode", "sha256", "size"):
                if key in file:
                    yield path_text((*path, file["path"], key)), file[key]
    else:
        yield path_text(path), value

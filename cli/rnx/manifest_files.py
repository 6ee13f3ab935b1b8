"""What ``-f`` names: files, directories, standard input; read and checked as a whole before anything is sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnx.failures import InvalidRequest

if TYPE_CHECKING:
    from joblet.manifest import Manifest

SUFFIXES = (".yml", ".yaml", ".json")
STDIN = "-"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file and the manifests in it. name: as it stands in messages."""

    name: str
    data: bytes
    manifests: tuple[Manifest, ...]


class ManifestFileErrors(InvalidRequest):
    """Every fault of every file. ``str()`` gives one line a fault: ``file:line:column: path: message``."""

    def __init__(
        self, errors: Sequence[str], *, todo: str = "nothing was changed: correct the places named and try again"
    ) -> None:
        self.errors = tuple(errors)
        super().__init__(f"{len(errors)} errors", todo=todo)

    def __str__(self) -> str:
        return "\n".join(self.errors)


def read_files(paths: Sequence[str], *, recursive: bool = False) -> list[ManifestFile]:
    """Every file, checked. Raises ManifestFileErrors with all faults of all files, InvalidRequest if there are none."""
    from joblet.manifest import ManifestErrors, read_manifests

    found: list[ManifestFile] = []
    errors: list[str] = []
    for name, data in _contents(paths, recursive, errors):
        try:
            found.append(ManifestFile(name, data, read_manifests(data, filename=name)))
        except ManifestErrors as error:
            errors += [str(one) for one in error.errors]
    errors += _declared_twice(found)
    errors += _waiting_for_each_other(found)
    if errors:
        raise ManifestFileErrors(errors)
    return found


def _contents(paths: Sequence[str], recursive: bool, errors: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file. What cannot be read becomes an error like any other."""
    for path in paths:
        if path == STDIN:
            yield "stdin", sys.stdin.buffer.read()
            continue
        if not os.path.isdir(path):
            names: Iterable[str] = [path]
        elif not (names := list(_in_directory(path, recursive))):
            errors.append(f"{path}: holds no *.yml, *.yaml or *.json{'' if recursive else ' (-R looks further down)'}")
        for name in names:
            try:
                yield name, Path(name).read_bytes()
            except OSError as error:
                errors.append(f"{name}: {error.strerror}")


def _in_directory(path: str, recursive: bool) -> Iterator[str]:
    """Manifests below a directory, in the order of their names; hidden files and directories are not looked at."""
    for directory, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith(".")) if recursive else []
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(directory, name)


def _declared_twice(files: Sequence[ManifestFile]) -> Iterator[str]:
    """A name may stand in one file only; within one the reader has looked already."""
    from joblet.manifest import key_of

    first: dict[str, str] = {}
    for file in files:
        for manifest in file.manifests:
            key = key_of(manifest)
            if first.setdefault(key, file.name) != file.name:
                what = f"{manifest.kind.lower()} {manifest.metadata.name}"
                yield f"{file.name}: the {what} is declared in {first[key]} too"


def _waiting_for_each_other(files: Iterable[ManifestFile]) -> list[str]:
    """The daemon says so too, but of several files only when it has taken the first ones."""
    from joblet.manifest import find_cycle, jobs_of

    of = {job.metadata.name: (file, job) for file in files for job in jobs_of(file.manifests)}
    cycle = find_cycle({name: [one.job for one in job.spec.depends_on] for name, (_, job) in of.items()})
    if not cycle:
        return []
    what = f"jobs would wait for each other for ever: {' -> '.join(cycle)}; take one of these out of dependsOn"
    return [f"{of[cycle[0]][0].name}: job {cycle[0]}: spec.dependsOn: {what}"]

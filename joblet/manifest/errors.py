"""What is wrong with a manifest, and where: the one error type that reading raises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from joblet.errors import JobletError


@dataclass(frozen=True, slots=True, order=True)
class ManifestError:
    """One fault. line and column count from 1, document from 0. path: as in ``spec.limits.memory``, may be empty."""

    file: str
    line: int
    column: int
    document: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ManifestErrors(JobletError):
    """All faults of one file, in the order in which they stand there. ``str()`` gives one line a fault."""

    def __init__(self, errors: Iterable[ManifestError]) -> None:
        self.errors = tuple(sorted(set(errors)))
        count = len(self.errors)
        first = self.errors[0]
        super().__init__(
            "1 error in the manifest" if count == 1 else f"{count} errors in the manifests",
            where=first.file,
            todo="correct the places named; nothing was changed",
        )

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

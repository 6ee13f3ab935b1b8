"""What a rendering could not keep. What nobody has dealt with counts as lost, so that no field is ever dropped in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_KNOWN = "has no counterpart that is known here"


@dataclass(frozen=True, slots=True)
class Finding:
    """path: as in ``spec.limits.pids``. lost: it does not hold there; else it holds in another way."""

    path: str
    what: str
    lost: bool

    def __str__(self) -> str:
        return f"{'lost' if self.lost else 'differs'}: {self.path}: {self.what}"


@dataclass(slots=True)
class Ledger:
    """The fields that a manifest has set, and what became of each. given: its spec without defaults."""

    given: Mapping[str, Any]
    findings: list[Finding] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)

    def has(self, path: str) -> bool:
        """Whether the manifest sets it. path: below spec, ``limits.cpu``."""
        here: Any = self.given
        for part in path.split("."):
            if not isinstance(here, Mapping) or part not in here:
                return False
            here = here[part]
        return True

    def keep(self, *paths: str) -> None:
        """They are in the rendering, as they are."""
        self._done.update(paths)

    def differs(self, path: str, what: str) -> None:
        """Whether it is set or not: what is said of a default is said of it, too."""
        self._done.add(path)
        self.findings.append(Finding(f"spec.{path}", what, lost=False))

    def lost(self, path: str, what: str) -> None:
        self._done.add(path)
        self.findings.append(Finding(f"spec.{path}", what, lost=True))

    def lost_if_set(self, path: str, what: str) -> None:
        if self.has(path):
            self.lost(path, what)

    def close(self) -> list[Finding]:
        """All findings, those that are lost first, with what nobody has dealt with."""
        for path in _leaves(self.given):
            if not any(path == done or path.startswith(f"{done}.") for done in self._done):
                self.lost(path, NOT_KNOWN)
        return sorted(self.findings, key=lambda finding: not finding.lost)


def _leaves(given: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in given.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path

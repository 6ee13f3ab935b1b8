"""A spool directory for each test, and what is looked at in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobletd.sources.spool_files import SpoolDirectory, Stamp
from tests.unit.spool.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "spool")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str] | None]:
    """What was looked at, in order; None: everything."""
    looked: list[frozenset[str] | None] = []
    scan = SpoolDirectory.scan

    def noted(self: SpoolDirectory, names: frozenset[str] | None = None) -> dict[str, Stamp]:
        looked.append(names)
        return scan(self, names)

    monkeypatch.setattr(SpoolDirectory, "scan", noted)
    return looked

"""Manifests in refused/ that are hostile in themselves: names, paths, YAML. None may be accepted.

The first comment says what stops it, ``# refused: TEXT`` what the error must name: the place, most often.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

DIRECTORY = Path(__file__).parent / "refused"


@dataclass(frozen=True)
class Refusal:
    """One manifest, as the file has it."""

    name: str
    stopped_by: str
    named: str
    text: str


def read(path: Path) -> Refusal:
    text = path.read_text()
    first, second = text.splitlines()[:2]
    assert second.startswith("# refused: "), f"{path.name} does not say what the error must name"
    return Refusal(path.stem, first.removeprefix("# "), second.removeprefix("# refused: "), text)


@cache
def refusals() -> tuple[Refusal, ...]:
    return tuple(read(path) for path in sorted(DIRECTORY.glob("*.yml")))

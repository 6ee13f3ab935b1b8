"""docs/DEPLOYMENT.md and docs/SLURM.md as their tests take them: sections in order, with the commands that a reader types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs/DEPLOYMENT.md"
HEADING = re.compile(r"(##+) (?:\d+\. )?(.+)")
FENCE = re.compile(r"```(.*)")


@dataclass(frozen=True, slots=True)
class Block:
    """Commands. kind: "sh" ends by itself, "sh follow" is to be interrupted, "sh client" and the like are for another machine."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Section:
    """What stands below one heading. level: 2 or 3. chapter: the heading of level 2 that it is below."""

    level: int
    chapter: str
    title: str
    blocks: tuple[Block, ...]


def sections(text: str | None = None) -> list[Section]:
    """All of the page."""
    found: list[Section] = []
    for level, title, blocks in parts(PAGE.read_text(encoding="utf-8") if text is None else text):
        chapter = title if level == 2 else found[-1].chapter
        found.append(Section(level, chapter, title, tuple(blocks)))
    return found


def parts(text: str) -> Iterator[tuple[int, str, list[Block]]]:
    heading: tuple[int, str] | None = None
    blocks: list[Block] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if match := HEADING.fullmatch(line):
            if heading:
                yield *heading, blocks
            heading, blocks = (len(match[1]), match[2]), []
        elif match := FENCE.fullmatch(line):
            inside = []
            for _, one in lines:
                if one == "```":
                    break
                inside.append(one)
            if match[1].startswith("sh"):
                blocks.append(Block(match[1], "\n".join(inside), number))
    if heading:
        yield *heading, blocks

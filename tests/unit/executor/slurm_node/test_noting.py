"""What a node notes of usage: seldom, and read back or refused whatever is in the file."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from joblet.clock import SystemClock
from jobletd.executor.slurm_node.noting import FIRST_SECONDS, PAUSE_SECONDS, UsageNotes
from jobletd.executor.slurm_node.place import USAGE, Place
from jobletd.executor.slurm_node.records import DamagedRecord, usage_document, usage_of
from jobletd.model import Usage


@dataclass
class SetClock(SystemClock):
    """One that stands still until it is set."""

    seconds: float = 1000.0

    def boot_seconds(self) -> float:
        return self.seconds


def test_usage_is_noted_once_in_a_pause(tmp_path: Path) -> None:
    clock = SetClock()
    place = Place(str(tmp_path))

    def noted() -> int | None:
        document = place.read(USAGE)
        return None if document is None else usage_of(document)[0].memory_bytes

    async def note(notes: UsageNotes, memory_bytes: int) -> int | None:
        notes.note(Usage(memory_bytes=memory_bytes))
        if notes._writing is not None:
            await notes._writing
        return noted()

    async def scene() -> None:
        notes = UsageNotes(place, clock)
        assert notes.due_in_seconds() == FIRST_SECONDS
        assert await note(notes, 1) is None
        clock.seconds += FIRST_SECONDS
        assert await note(notes, 2) == 2
        clock.seconds += PAUSE_SECONDS / 2
        assert (await note(notes, 3), notes.due_in_seconds()) == (2, PAUSE_SECONDS / 2)
        clock.seconds += PAUSE_SECONDS / 2
        assert await note(notes, 4) == 4

    asyncio.run(scene())


def test_a_directory_that_is_away_does_no_harm(tmp_path: Path) -> None:
    clock = SetClock()

    async def scene() -> None:
        notes = UsageNotes(Place(str(tmp_path / "away")), clock)
        clock.seconds += FIRST_SECONDS
        notes.note(Usage(memory_bytes=1))
        assert notes._writing is not None
        await notes._writing
        assert notes.due_in_seconds() == PAUSE_SECONDS

    asyncio.run(scene())


def test_a_note_is_read_back() -> None:
    usage = Usage(1, 2, 0.5, 0.0, 3, None, 4, 0)
    assert usage_of(json.loads(json.dumps(usage_document(usage, 7)))) == (usage, 7)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"read_ns": 1},
        {"read_ns": 1, "usage": []},
        {"read_ns": "1", "usage": {}},
        {"read_ns": 1, "usage": {"memory_bytes": -1}},
        {"read_ns": 1, "usage": {"memory_bytes": True}},
        {"read_ns": 1, "usage": {"cpu_seconds": float("nan")}},
        {"read_ns": 1, "usage": {"cpu_seconds": 10**400}},
        {"read_ns": 1, "usage": {"pids": "many"}},
    ],
)
def test_a_note_that_makes_no_sense_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(DamagedRecord):
        usage_of(document)

"""What a running attempt uses, noted beside its state for the daemon on another host: seldom, and never in anybody's way.

Whoever runs there reads its own cgroup; nobody is asked for it, and without a shared directory the note comes with what is
asked anyway. A write may hang for as long as the shared directory does, so it happens in a thread, one at a time: meanwhile stops
and the end of the command are seen as ever.
"""

from __future__ import annotations

import asyncio

from joblet.clock import Clock
from jobletd.executor.slurm_node.place import USAGE, Place
from jobletd.executor.slurm_node.records import usage_document
from jobletd.model import Usage

FIRST_SECONDS = 1.0  # after the command's start: what is over by then is told by its exit record alone
PAUSE_SECONDS = 10.0


class UsageNotes:
    """Of one attempt, from its command's start on."""

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._due = clock.boot_seconds() + FIRST_SECONDS
        self._writing: asyncio.Future[None] | None = None

    def due_in_seconds(self) -> float:
        return max(self._due - self._clock.boot_seconds(), 0.0)

    def note(self, usage: Usage) -> None:
        """Write it down if it is time to; without the last one still on its way."""
        now = self._clock.boot_seconds()
        if now < self._due:
            return
        self._due = now + PAUSE_SECONDS
        if self._writing is None or self._writing.done():
            document = usage_document(usage, self._clock.wall_ns())
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, document)

    def _write(self, document: dict[str, object]) -> None:
        try:
            self._place.write(USAGE, document, durable=False)
        except OSError:
            return  # the shared directory is away, or full: the next note is as good

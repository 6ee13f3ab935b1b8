"""When an attempt is handed over again whose init ended before its command was started: at once, then later each time.

In memory alone: the next daemon begins at once again.
"""

from __future__ import annotations

from joblet.clock import Clock
from jobletd.model import AttemptId

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 60.0


class Relaunches:
    """Counts what this daemon has handed over, until it is known what became of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tries: dict[AttemptId, tuple[int, float]] = {}  # how often, and when last, in seconds since boot

    def count(self, attempt_id: AttemptId) -> int:
        return self._tries.get(attempt_id, (0, 0.0))[0]

    def handed_over(self, attempt_id: AttemptId) -> None:
        self._tries[attempt_id] = (self.count(attempt_id) + 1, self._clock.boot_seconds())

    def wait_seconds(self, attempt_id: AttemptId) -> float:
        """Until it may be handed over again; 0 or less: now."""
        count, last = self._tries.get(attempt_id, (0, 0.0))
        if count < 2:
            return 0.0
        pause: float = min(FIRST_SECONDS * 2 ** min(count - 2, 20), LONGEST_SECONDS)
        return last + pause - self._clock.boot_seconds()

    def over(self, attempt_id: AttemptId) -> None:
        """It runs, or has ended."""
        self._tries.pop(attempt_id, None)

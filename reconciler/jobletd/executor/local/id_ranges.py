"""The pool of host user ids: each attempt gets a range of its own, so that two jobs can't touch each other's files."""

from __future__ import annotations

from joblet.errors import JobletError


class IdRangesExhausted(JobletError):
    """As many attempts hold a range as there are ranges."""


class IdRanges:
    """Hands out the lowest free range. Who holds which is on record in the attempts' directories."""

    def __init__(self, *, base: int, count: int, slots: int) -> None:
        self._base, self._count, self._slots = base, count, slots
        self._held: dict[int, str] = {}
        self._slots_of: dict[str, list[int]] = {}  # the same by attempt
        self._lowest_free = 0

    def take(self, attempt_id: str) -> int:
        """A free range for the attempt; returns its first id. Raises IdRangesExhausted."""
        for slot in range(self._lowest_free, self._slots):
            if slot not in self._held:
                self._hold(slot, attempt_id)
                self._lowest_free = slot + 1
                return self._base + slot * self._count
        raise IdRangesExhausted(
            f"all {self._slots} user id ranges are in use",
            todo="raise isolation.idSlots, or lower joblet.maxConcurrentJobs",
        )

    def adopt(self, first_id: int, attempt_id: str) -> None:
        """Note what an attempt of a previous daemon holds, whose pool may have begun elsewhere: then that lies in two ranges."""
        for id_ in (first_id, first_id + self._count - 1):
            self._hold((id_ - self._base) // self._count, attempt_id)

    def free(self, attempt_id: str) -> None:
        for slot in self._slots_of.pop(attempt_id, ()):
            if self._held.get(slot) != attempt_id:
                continue  # another one was adopted with it
            del self._held[slot]
            if slot >= 0:
                self._lowest_free = min(self._lowest_free, slot)

    def _hold(self, slot: int, attempt_id: str) -> None:
        self._held[slot] = attempt_id
        self._slots_of.setdefault(attempt_id, []).append(slot)

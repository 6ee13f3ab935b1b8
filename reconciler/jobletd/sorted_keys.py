"""Keys in order, in blocks: adding, removing and asking for a place never move more than one block, however many there are."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=tuple[object, ...])
BLOCK = 256


class SortedKeys(Generic[K]):
    """Different keys, the lowest first."""

    def __init__(self) -> None:
        self._blocks: list[list[K]] = []  # none is empty, each key of one is below all keys of the next
        self._lows: list[K] = []  # the first of each
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        for block in self._blocks:
            yield from block

    def add(self, key: K) -> None:
        if not self._blocks:
            self._blocks.append([key])
            self._lows.append(key)
        else:
            place = self._block_of(key)
            block = self._blocks[place]
            insort(block, key)
            self._lows[place] = block[0]
            if len(block) > 2 * BLOCK:
                self._blocks[place : place + 1] = [block[:BLOCK], block[BLOCK:]]
                self._lows.insert(place + 1, block[BLOCK])
        self._count += 1

    def remove(self, key: K) -> None:
        """Raises KeyError if it is not there."""
        place = self._block_of(key)
        block = self._blocks[place] if self._blocks else []
        index = bisect_left(block, key)
        if index == len(block) or block[index] != key:
            raise KeyError(key)
        del block[index]
        self._count -= 1
        if block:
            self._lows[place] = block[0]
        else:
            del self._blocks[place], self._lows[place]

    def first(self) -> K:
        """Raises IndexError if there is none."""
        return self._lows[0]

    def before(self, key: K) -> int:
        """How many come before the key, which need not be there."""
        place = self._block_of(key)
        return sum(map(len, self._blocks[:place])) + (bisect_left(self._blocks[place], key) if self._blocks else 0)

    def _block_of(self, key: K) -> int:
        """Where the key is, or belongs."""
        place = bisect_left(self._lows, key)
        exact = place < len(self._lows) and self._lows[place] == key
        return place if exact else max(place - 1, 0)

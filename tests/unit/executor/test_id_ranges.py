"""Each attempt has user ids of its own."""

from __future__ import annotations

import pytest

from jobletd.executor.local.id_ranges import IdRanges, IdRangesExhausted


def test_the_lowest_free_slot_is_given_and_comes_back() -> None:
    ranges = IdRanges(base=1000, count=10, slots=3)
    assert [ranges.take(name) for name in ("a", "b")] == [0, 1]
    ranges.free("a")
    assert ranges.take("c") == 0
    assert ranges.first_id(1) == 1010


def test_slots_of_earlier_attempts_are_not_given_again() -> None:
    ranges = IdRanges(base=1000, count=10, slots=3)
    ranges.adopt(0, "old")
    assert ranges.take("new") == 1
    ranges.free("old")
    assert ranges.take("next") == 0


def test_none_left_is_an_error_that_says_what_to_do() -> None:
    ranges = IdRanges(base=1000, count=10, slots=1)
    ranges.take("a")
    with pytest.raises(IdRangesExhausted, match=r"isolation\.idSlots"):
        ranges.take("b")

"""Each attempt has user ids of its own."""

from __future__ import annotations

import pytest

from jobletd.executor.local.id_ranges import IdRanges, IdRangesExhausted


def test_the_lowest_free_slot_is_given_and_comes_back() -> None:
    ranges = IdRanges(base=1000, count=10, slots=3)
    assert [ranges.take(name) for name in ("a", "b")] == [1000, 1010]
    ranges.free("a")
    assert ranges.take("c") == 1000


def test_slots_of_earlier_attempts_are_not_given_again() -> None:
    ranges = IdRanges(base=1000, count=10, slots=3)
    ranges.adopt(1000, "old")
    assert ranges.take("new") == 1010
    ranges.free("old")
    assert ranges.take("next") == 1000


@pytest.mark.parametrize(("first", "given"), [(995, [1010, 1020]), (1005, [1020]), (1025, [1000, 1010]), (500, [1000])])
def test_ranges_of_a_pool_that_began_elsewhere_are_not_given_again(first: int, given: list[int]) -> None:
    ranges = IdRanges(base=1000, count=10, slots=3)
    ranges.adopt(first, "old")
    assert [ranges.take(str(number)) for number in range(len(given))] == given
    ranges.free("old")
    assert ranges.take("next") >= 1000


def test_none_left_is_an_error_that_says_what_to_do() -> None:
    ranges = IdRanges(base=1000, count=10, slots=1)
    ranges.take("a")
    with pytest.raises(IdRangesExhausted, match=r"isolation\.idSlots"):
        ranges.take("b")

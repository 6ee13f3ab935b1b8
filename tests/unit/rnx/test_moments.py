"""Times that people and programs write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnx.failures import InvalidRequest
from rnx.moments import since_ns
from rnx.output.words import exact_moment


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_what_was_shown_is_no_later_than_it_was_and_no_microsecond_earlier(ns: int) -> None:
    assert 0 <= ns - since_ns(exact_moment(ns)) < 1000


@pytest.mark.parametrize("text", ["2026-13-01T00:00:00Z", "yesterday", "10"])
def test_what_is_no_time_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(InvalidRequest, match="2026-01-02T03:04:05Z"):
        since_ns(text)

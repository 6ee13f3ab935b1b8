"""Each reader takes or refuses whatever it is given: no crash, no hang, no other error than our own, bounded memory."""

from __future__ import annotations

import pytest

from tests.faults.fuzz.reader import NAMES
from tests.faults.fuzz.trying import try_reader

SECONDS = 1.0


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_takes_or_refuses_whatever_it_is_given(name: str) -> None:
    tried = try_reader(name, seed="ci", seconds=SECONDS)
    assert not tried.finding, tried.finding
    assert tried.accepted and tried.refused, tried

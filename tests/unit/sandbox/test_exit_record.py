"""The exit record is JSON whatever is in it, and is replaced as a whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.sandbox import exit_record

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_what_is_written_by_hand_is_what_json_reads(value: object) -> None:
    assert json.loads(exit_record.to_json(value)) == value


def test_what_has_no_place_in_a_record_is_refused() -> None:
    with pytest.raises(TypeError, match="set has no place"):
        exit_record.to_json({"pids": {1}})


@pytest.mark.parametrize("durable", [True, False])
def test_a_record_is_there_whole_and_nothing_else_is(tmp_path: Path, durable: bool) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for code in (1, 2):
            exit_record.write(fd, {"outcome": exit_record.exited(code)}, durable=durable)
        exit_record.make_durable(fd)
    finally:
        os.close(fd)
    assert [path.name for path in tmp_path.iterdir()] == [exit_record.EXIT]
    assert json.loads((tmp_path / exit_record.EXIT).read_text()) == {
        "version": exit_record.VERSION,
        "outcome": {"type": "exited", "code": 2},
    }


def test_a_record_that_is_gone_already_need_not_be_made_durable(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    exit_record.make_durable(fd)
    os.close(fd)

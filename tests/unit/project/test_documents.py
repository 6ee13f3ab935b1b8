"""What the documents promise names what holds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
AS_ABOVE = ("the same", "the soaks", "LOAD.md#promises")


@pytest.mark.parametrize(("document", "column"), [("docs/RELIABILITY.md", 2), ("docs/LOAD.md", 1)])
def test_every_promise_names_a_test_that_is_there(document: str, column: int) -> None:
    text = (ROOT / document).read_text()
    table = text[text.index("promise |") :].partition("\n\n")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines()[2:]]
    promises = [row for row in rows if row[column].strip()]
    assert len(promises) > 5
    for row in promises:
        tests = re.findall(r"`((?:tests/|test_)[\w/.-]+)`", row[column])
        assert tests or any(words in row[column] for words in AS_ABOVE), row
        for test in tests:
            assert (ROOT / test).exists() or list((ROOT / "tests").rglob(test)), f"{document} names {test}"

"""One street for all attacks: what one of them leaves behind, the next test finds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.street import Street, street


@pytest.fixture(scope="package", name="street")
def _street() -> Iterator[Street]:
    with street() as made:
        yield made

"""The daemon dies at each crash point around volumes, networks, secrets, uploads, images, git sources, reloads and history."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.crash_ground import Ground, made_ground, take
from tests.faults.surroundings_walk import NETWORKS, SURROUNDINGS

pytestmark = pytest.mark.native_only(reason="it has nothing to do with cgroups, and a daemon takes long to start there")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with made_ground(tmp_path_factory.mktemp("points")) as ground:
        yield ground


@pytest.mark.parametrize("point", [*SURROUNDINGS, *NETWORKS])
def test_everything_holds_after_a_death_at(ground: Ground, point: str) -> None:
    take(ground, point, {**SURROUNDINGS, **NETWORKS}[point])

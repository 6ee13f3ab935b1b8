"""A repository of a test's own, and a source that follows it into a desired state in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.git_repository import Repository
from tests.unit.git.followed import Followed


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "clone")


@pytest.fixture
def followed(repository: Repository, tmp_path: Path) -> Followed:
    return Followed(tmp_path / "mirrors", repository.url)

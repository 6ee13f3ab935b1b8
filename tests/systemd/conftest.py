"""Joblet installed under /opt/joblet on a machine that systemd has booted: once for all tests here, in a guest of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.systemd.installed import ROOT, UNIT, Installed


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if items and (os.environ.get("JOBLET_TEST_GUEST") != "1" or not os.path.isdir("/run/systemd/system")):
        raise pytest.UsageError("tests/systemd installs Joblet into the machine: make guest-test T=tests/systemd")
    # It installs all by itself, and removes it before the others' fixture.
    items.sort(key=lambda item: item.path.name != "test_deployment.py")


@pytest.fixture(scope="session")
def machine() -> Iterator[Installed]:
    installed = Installed(ROOT)
    installed.install()
    yield installed
    installed.remove()


@pytest.fixture
def daemon(machine: Installed) -> Installed:
    """The unit runs, and no job is declared."""
    machine.systemctl("start", UNIT)
    return machine

"""A small soak: nodes, slurmctld and the daemon are lost, and each run ends once. ``make slurm-soak`` is the whole."""

from __future__ import annotations

import pytest

from tests.slurm.soak import soak
from tests.timing import PATIENCE


@pytest.mark.timeout(400 * PATIENCE)  # most of it is Slurm's own wait for nodes that do not answer
def test_each_run_ends_once_whatever_is_lost() -> None:
    figures = soak(20)
    assert figures.faults() == [], "\n".join(figures.lines())

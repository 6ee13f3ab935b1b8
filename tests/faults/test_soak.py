"""A short soak: jobs from all sources while daemon, launcher and inits are killed at random. The long one: ``make soak``."""

from __future__ import annotations

import pytest

from tests.faults.soak import soak
from tests.timing import PATIENCE

SEED = 4
SECONDS = 40.0


@pytest.mark.native_only(reason="the guest's kernel has no nf_tables, and its one processor is too slow for a load")
@pytest.mark.timeout(400)
def test_everything_adds_up_after_daemon_launcher_and_inits_were_killed_at_random() -> None:
    with soak(SEED) as under:
        under.round(SECONDS * PATIENCE)
    report = under.report(SECONDS)
    print(report)
    assert not under.wrong, report
    assert under.counts["commands launched"] > 100 and under.killer.counts.total() > 10, report

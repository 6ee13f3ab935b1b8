"""A short soak: jobs from all sources while daemon, launcher and inits are killed at random.

``.ci/run`` makes one of two minutes beside this, ``make soak MINUTES=60`` one as long as one likes.
"""

from __future__ import annotations

import pytest

from tests.faults.soak import soak

SEED = 4
SECONDS = 20.0


@pytest.mark.native_only(reason="the guest's kernel has no nf_tables, and its one processor is too slow for a load")
@pytest.mark.timeout(400)
def test_everything_adds_up_after_daemon_launcher_and_inits_were_killed_at_random() -> None:
    with soak(SEED) as under:
        under.round(SECONDS)
    report = under.report(SECONDS)
    print(report)
    assert not under.wrong, report
    assert under.counts["commands launched"] > 50 and under.killer.counts.total() > 5, report

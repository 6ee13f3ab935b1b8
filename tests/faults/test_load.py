"""A small part of what ``make load`` does in full: the same promises, nothing about speed."""

from __future__ import annotations

import pytest

from tests.faults.load import many_jobs
from tests.faults.storm import spool_storm
from tests.faults.watchers import many_watchers


@pytest.mark.timeout(240)
def test_jobs_of_several_sources_share_the_places_keep_their_order_and_all_end() -> None:
    report = many_jobs(120, 20, 0.3, held=True)
    assert report.wrong == [], report.figures


@pytest.mark.timeout(240)
def test_who_reads_gets_all_beside_those_who_never_read() -> None:
    report = many_watchers(40, 12, changes=10, see_them_dropped=False)
    assert report.wrong == [], report.figures


@pytest.mark.timeout(240)
def test_a_storm_in_the_spool_converges() -> None:
    report = spool_storm(500)
    assert report.wrong == [], report.figures

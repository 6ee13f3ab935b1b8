"""CPU shares as quota and period."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joblet.cgroup.quota import LEAST_PERCENT, MAX_PERIOD_US, MIN_QUOTA_US, cpu_bandwidth, cpu_percent


def test_a_usual_share_has_the_usual_period() -> None:
    assert cpu_bandwidth(20) == (20_000, 100_000)
    assert cpu_bandwidth(150) == (150_000, 100_000)


def test_a_small_share_gets_a_longer_period_so_that_its_quota_is_a_whole_slice() -> None:
    assert cpu_bandwidth(1) == (5_000, 500_000)
    assert cpu_bandwidth(0.5) == (5_000, 1_000_000)


def test_a_share_below_the_kernels_least_gets_the_least() -> None:
    assert cpu_bandwidth(0.01) == (MIN_QUOTA_US, MAX_PERIOD_US)


@given(st.floats(min_value=LEAST_PERCENT, max_value=100_000))
def test_any_share_is_within_the_kernels_bounds_and_a_thousandth_of_what_was_asked(percent: float) -> None:
    quota, period = cpu_bandwidth(percent)
    assert quota >= MIN_QUOTA_US
    assert 1_000 <= period <= MAX_PERIOD_US
    effective = cpu_percent(str(quota), str(period))
    assert effective is not None
    assert abs(effective - percent) <= max(percent, 1) * 0.001


def test_no_quota_is_no_share() -> None:
    assert cpu_percent("max", "100000") is None
    assert cpu_percent("-1", "100000") is None
    assert cpu_percent(None, None) is None

"""CPU bandwidth: which quota in which period gives a share that the kernel can keep precisely."""

from __future__ import annotations

import math

PERIOD_US = 100_000
MAX_PERIOD_US = 1_000_000
MIN_QUOTA_US = 1_000
# The kernel hands quota out to the CPUs in slices of 5 ms (sched_cfs_bandwidth_slice_us); below one slice a period the
# share gets coarse.
PRECISE_QUOTA_US = 5_000
LEAST_PERCENT = MIN_QUOTA_US * 100 / MAX_PERIOD_US


def cpu_bandwidth(percent: float) -> tuple[int, int]:
    """(quota, period) in microseconds for so many percent of one core.

    The period is 100 ms, which keeps pauses short, and grows up to the kernel's longest, 1 s, where a small share would else
    be less than a slice. The kernel's least quota, 1 ms, makes 0.1 % the least share.
    """
    period = PERIOD_US
    if percent * period / 100 < PRECISE_QUOTA_US:
        period = MAX_PERIOD_US if percent <= 0 else min(math.ceil(PRECISE_QUOTA_US * 100 / percent), MAX_PERIOD_US)
    return max(round(period * percent / 100), MIN_QUOTA_US), period


def cpu_percent(quota: str | None, period: str | None) -> float | None:
    """The share of a quota and a period as the kernel shows them; None: unlimited (``max`` or -1) or not told."""
    if not quota or not period or quota in ("max", "-1"):
        return None
    return int(quota) * 100 / int(period)

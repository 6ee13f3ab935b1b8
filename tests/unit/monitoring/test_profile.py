"""The course of what an attempt uses: bounded in samples and bytes, whatever it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobletd.model import Usage
from jobletd.monitoring.profile import MOST_BYTES, MOST_SAMPLES, Profile, Sample

SECOND_NS = 10**9
BEGAN_NS = 1_700_000_000 * SECOND_NS


def usage(memory: int, cpu: float = 0.0) -> Usage:
    return Usage(memory_bytes=memory, cpu_seconds=cpu, io_read_bytes=memory * 3)


def sampled(memories: list[int]) -> Profile:
    """As the profiler does it: a sample each interval."""
    profile, now_ns = Profile(BEGAN_NS), BEGAN_NS
    for number, memory in enumerate(memories):
        now_ns += profile.interval_ns
        profile.add(now_ns, usage(memory, number / 3))
    return profile


def test_it_never_has_more_samples_than_it_may_and_keeps_the_peak_and_the_end() -> None:
    memories = [1000] * 700
    memories[333] = 99_999
    profile = sampled(memories)
    assert MOST_SAMPLES / 2 <= len(profile.samples) <= MOST_SAMPLES
    assert max(sample.memory_bytes for sample in profile.samples) == 99_999
    assert profile.samples[-1].cpu_us == round(699 / 3 * 1e6)
    assert [sample.at_ms for sample in profile.samples] == sorted({sample.at_ms for sample in profile.samples})


def test_the_longer_it_runs_the_seldomer_it_is_looked_at() -> None:
    profile = sampled([1] * 500)
    hours = profile.samples[-1].at_ms / 3.6e6
    assert profile.interval_ns >= 8 * SECOND_NS and hours > 0.3


@given(st.lists(st.integers(0, 2**60), min_size=1, max_size=400))
def test_however_wild_it_is_it_fits_and_comes_back(memories: list[int]) -> None:
    profile = sampled(memories)
    packed = profile.encoded()
    assert len(packed) <= MOST_BYTES
    again = Profile.decoded(packed)
    assert (again.samples, again.started_ns, again.interval_ns) == (profile.samples, BEGAN_NS, profile.interval_ns)


def test_a_clock_that_was_set_back_spoils_nothing() -> None:
    profile = Profile(BEGAN_NS)
    profile.add(BEGAN_NS + 5 * SECOND_NS, usage(1))
    profile.add(BEGAN_NS + 2 * SECOND_NS, usage(2))
    profile.add(BEGAN_NS - 2 * SECOND_NS, usage(3))
    profile.add(BEGAN_NS + 6 * SECOND_NS, usage(4))
    assert [sample.memory_bytes for sample in profile.samples] == [1, 4]


@pytest.mark.parametrize(
    "damaged", [b"", b"x", b"\x78\x9c\x03\x00\x00\x00\x00\x01", Profile(1, [Sample(1)]).encoded()[:-5]]
)
def test_damaged_bytes_are_an_error_of_ours(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="is no profile"):
        Profile.decoded(damaged)


def test_what_stays_the_same_is_two_samples_however_long_it_lasts() -> None:
    profile = Profile(BEGAN_NS)
    for second in range(1, 1001):
        profile.add(BEGAN_NS + second * SECOND_NS, usage(7 if second <= 990 else second, 0.1))
    assert [sample.at_ms // 1000 for sample in profile.samples] == [1, 990, *range(991, 1001)]
    assert profile.interval_ns == SECOND_NS


def test_a_long_rest_is_not_drowned_by_what_comes_after_it() -> None:
    profile = Profile(BEGAN_NS)
    profile.add(BEGAN_NS + SECOND_NS, usage(1))
    profile.add(BEGAN_NS + 3600 * SECOND_NS, usage(1))
    for second in range(3601, 4201):
        profile.add(BEGAN_NS + second * SECOND_NS, usage(second))
    rest = next(sample for sample in reversed(profile.samples) if sample.memory_bytes == 1)
    assert rest.at_ms == 3600 * 1000
    assert len(profile.samples) <= MOST_SAMPLES and profile.samples[-1].memory_bytes == 4200


def test_one_that_rests_is_looked_at_seldomer_and_one_that_works_is_not() -> None:
    profile = Profile(BEGAN_NS)
    for second in (1, 3600):
        profile.add(BEGAN_NS + second * SECOND_NS, usage(1))
    assert profile.pause_ns == pytest.approx(3600 / MOST_SAMPLES * SECOND_NS, rel=0.01)
    profile.add(BEGAN_NS + 3601 * SECOND_NS, usage(2))
    assert profile.pause_ns == SECOND_NS

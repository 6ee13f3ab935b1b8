"""The drawing of a run's course, and what is said of limits that do not fit it."""

from __future__ import annotations

import pytest

from joblet.api.v1 import job_pb2, monitor_pb2
from rnx.output.advice import advice
from rnx.output.bars import bars
from rnx.output.profile import profile_lines

MIB = 1 << 20


def attempt(
    limits: dict[str, str],
    *,
    seconds: int = 600,
    peak: int = 0,
    cpu: float = 0.0,
    throttled: float = 0.0,
    oom: int = 0,
    phase: str = "FAILED",
) -> job_pb2.Attempt:
    made = job_pb2.Attempt(
        number=1,
        phase=phase,
        usage=job_pb2.Usage(memory_peak_bytes=peak, cpu_seconds=cpu, throttled_seconds=throttled, oom_kills=oom),
        limits=[job_pb2.Limit(name=name, asked=asked) for name, asked in limits.items()],
    )
    made.started.FromSeconds(1_000_000)
    made.ended.FromSeconds(1_000_000 + seconds)
    return made


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (attempt({"memory": "2Gi"}, peak=90 * MIB), "memory limit 2Gi, peak 90.0 MiB: 192Mi would do"),
        (attempt({"memory": "2Gi"}, peak=90 * MIB, seconds=5, phase="COMPLETED"), "192Mi would do"),
        (attempt({"memory": "64Mi"}, peak=63 * MIB), "memory limit 64Mi, peak 63.0 MiB: close to it"),
        (attempt({"memory": "64Mi"}, peak=64 * MIB, oom=1), "it was killed for memory; 128Mi may do"),
        (attempt({"cpu": "50%"}, cpu=300, throttled=300), "cpu limit 50%, used 50%: held back 50% of the time"),
        (attempt({"cpu": "400%"}, cpu=60), "cpu limit 400%, used 10% in the mean: it hardly needs that much"),
    ],
)
def test_a_limit_that_does_not_fit_is_told_with_its_figures(one: job_pb2.Attempt, said: str) -> None:
    (told,) = advice(one)
    assert said in told


@pytest.mark.parametrize(
    "one",
    [
        attempt({"memory": "64Mi"}, peak=40 * MIB),
        attempt({"memory": "2Gi"}, peak=90 * MIB, seconds=5),  # too short to say, as it was not done
        attempt({"memory": "16Mi"}, peak=1 * MIB),  # little is little enough
        attempt({"cpu": "50%"}, cpu=250, throttled=20),
        attempt({}, peak=900 * MIB, cpu=600),
        attempt({"cpu": "200%"}, cpu=600),  # a whole core all the time
    ],
)
def test_a_limit_that_fits_is_not_spoken_of(one: job_pb2.Attempt) -> None:
    assert advice(one) == []


def profile(*samples: tuple[float, int, float]) -> monitor_pb2.Profile:
    return monitor_pb2.Profile(
        samples=[
            monitor_pb2.ProfileSample(at_seconds=at, memory_bytes=memory, cpu_seconds=cpu)
            for at, memory, cpu in samples
        ]
    )


def test_a_course_is_drawn_with_its_peaks() -> None:
    cpu, memory, over = profile_lines(
        profile((1, 10 * MIB, 0.5), (2, 40 * MIB, 1.5), (3, 20 * MIB, 1.5)), attempt({"memory": "64Mi"})
    )
    assert cpu == "CPU     █▁  mean 50%, most 100%"
    assert memory == "Memory  ▃█▅  most 40.0 MiB of 64Mi"
    assert over == "over 3.00s, 3 samples"


def test_what_stayed_the_same_for_long_takes_its_room_though_it_is_two_samples() -> None:
    cpu, memory, over = profile_lines(
        profile((1, MIB, 0), (30, MIB, 0), (31, 8 * MIB, 1), (40, MIB, 1)), attempt({"memory": "64Mi"})
    )
    assert cpu == f"CPU     {'▁' * 29}█{'▁' * 9}  mean 2%, most 100%"
    assert memory == f"Memory  {'▂' * 30}█{'▂' * 9}  most 8.0 MiB of 64Mi"
    assert over == "over 40.00s, 4 samples"


def test_one_sample_is_no_course() -> None:
    assert profile_lines(profile((1, 1, 1)), attempt({})) == []


def test_a_long_course_keeps_its_highest_bars() -> None:
    values = [1.0] * 600
    values[300] = 8.0
    drawn = bars(values, width=60)
    assert len(drawn) == 60 and drawn.count("█") == 1


def test_the_highest_value_is_a_full_bar_unless_it_is_next_to_nothing() -> None:
    assert bars([0.0, 50.0, 100.0], width=9) == "▁▅█"
    assert bars([0.1, 0.2], width=9, least_full=10) == "▁▁"
    assert bars([0.0, -1.0], width=9) == "▁▁"
    assert bars([], width=9) == ""

"""The exponent that is named for a benchmark's growth."""

from __future__ import annotations

import pytest

from tests.bench.growth import exponent, exponent_at_the_end
from tests.bench.report import Series


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_a_power_law_is_found_whatever_its_factor(power: float) -> None:
    assert exponent([(x, 7.5 * x**power) for x in (100, 1000, 10_000, 50_000)]) == pytest.approx(power)


def test_what_all_points_have_in_common_hides_growth_but_not_at_the_end() -> None:
    points = [(x, 1000 + x**1.5) for x in (1, 10, 100, 1000, 10_000, 100_000)]
    assert exponent(points) < 1
    assert exponent_at_the_end(points) == pytest.approx(1.5, abs=0.01)


def test_noise_on_both_sides_cancels_out() -> None:
    assert exponent([(1, 1.1), (10, 10 / 1.1), (100, 100 / 1.1), (1000, 1100)]) == pytest.approx(1)


@pytest.mark.parametrize("points", [[], [(10, 1)], [(10, 1), (10, 2)]])
def test_one_x_is_no_growth(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="no growth"):
        exponent(points)


@pytest.mark.parametrize("point", [(0, 1), (1, 0), (-1, 1)])
def test_a_power_law_has_no_zero(point: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        exponent([(10, 1), point])


def test_a_fitted_series_carries_its_exponent() -> None:
    fitted = Series.fitted("start", ((10, 3), (100, 30), (1000, 3000)))
    assert fitted.exponent == pytest.approx(1.5)
    assert fitted.at_the_end == pytest.approx(2)

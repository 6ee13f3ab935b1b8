"""Sizes, durations and CPU amounts: values, spellings, and that one gives the other back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.manifest import nearest, quantities


@pytest.mark.parametrize(
    ("text", "number", "shortest"),
    [
        ("512Mi", 512 << 20, "512Mi"),
        ("1024Mi", 1 << 30, "1Gi"),
        ("1.5Gi", 1536 << 20, "1536Mi"),
        ("1000K", 10**6, "1M"),
        ("2T", 2 * 10**12, "2T"),
        (1048576, 1 << 20, "1Mi"),
        ("123", 123, 123),
        (1000, 1000, "1K"),
        (0, 0, 0),
        (1025, 1025, 1025),
    ],
)
def test_sizes(text: object, number: int, shortest: object) -> None:
    assert quantities.parse_size(text) == number
    assert quantities.format_size(number) == shortest


@pytest.mark.parametrize(
    ("text", "seconds", "shortest"),
    [
        ("90s", 90.0, "1m30s"),
        ("1h30m", 5400.0, "1h30m"),
        ("500ms", 0.5, "500ms"),
        ("0.5s", 0.5, "500ms"),
        ("1d", 86400.0, "1d"),
        ("48h", 172800.0, "2d"),
        ("1d2h3m4.5s6ms", 93784.506, "1d2h3m4s506ms"),
        ("0s", 0.0, "0s"),
    ],
)
def test_durations(text: str, seconds: float, shortest: str) -> None:
    assert quantities.parse_duration(text) == seconds
    assert quantities.format_duration(seconds) == shortest


@pytest.mark.parametrize(
    ("given_value", "percent", "text"),
    [
        ("150%", 150.0, "150%"),
        (1.5, 150.0, "150%"),
        ("1.5", 150.0, "150%"),
        (2, 200.0, "200%"),
        (0.015, 1.5, "1.5%"),
        (0.1, 10.0, "10%"),
    ],
)
def test_cpu_amounts(given_value: object, percent: float, text: str) -> None:
    assert quantities.parse_cpu(given_value) == percent
    assert quantities.format_cpu(percent) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300, 10**400])
def test_a_cpu_amount_beyond_all_bounds_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="out of range"):
        quantities.parse_cpu(value)


@pytest.mark.parametrize(("text", "canonical"), [("1,0", "0-1"), ("3,0-1,1", "0-1,3"), ("7", "7"), ("0-2,1-4", "0-4")])
def test_cpu_lists_are_sorted_and_merged(text: str, canonical: str) -> None:
    assert quantities.parse_cpus(text) == canonical


@given(st.integers(0, quantities.MAX_BYTES))
def test_a_size_s_spelling_means_the_same_size(number: int) -> None:
    text = quantities.format_size(number)
    assert quantities.parse_size(text) == number
    assert isinstance(text, int) or re.search(quantities.SIZE_PATTERN, text)


@given(st.integers(0, int(quantities.MAX_SECONDS) * 1000))
def test_a_duration_s_spelling_means_the_same_duration(milliseconds: int) -> None:
    text = quantities.format_duration(milliseconds / 1000)
    assert quantities.parse_duration(text) == milliseconds / 1000
    assert re.search(quantities.DURATION_PATTERN, text)


@given(st.integers(1000, 819_200_000))
def test_a_cpu_amount_s_spelling_means_the_same_amount(thousandths: int) -> None:
    text = quantities.format_cpu(thousandths / 1000)
    assert quantities.parse_cpu(text) == thousandths / 1000
    assert re.search(quantities.CPU_PATTERN, text)


@given(st.lists(st.integers(0, 300), min_size=1))
def test_a_canonical_cpu_list_is_its_own_canonical_form(cores: list[int]) -> None:
    text = quantities.parse_cpus(",".join(map(str, cores[:500])))
    assert quantities.parse_cpus(text) == text
    assert re.search(quantities.CPUS_PATTERN, text)


@pytest.mark.parametrize(
    ("word", "choice"),
    [
        ("memroy", "memory"),
        ("Memory", "memory"),
        ("mem", None),
        ("ommand", "command"),
        ("read_ops", "readOps"),
        ("x", None),
    ],
)
def test_the_nearest_word(word: str, choice: str | None) -> None:
    assert nearest(word, ["command", "memory", "readOps", "cpu"]) == choice

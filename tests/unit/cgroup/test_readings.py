"""What was asked compared with what the kernel has."""

from __future__ import annotations

import pytest

from joblet.cgroup import readable_percent, readable_size
from joblet.cgroup.model import LimitReading
from joblet.cgroup.readings import (
    OTHER_VALUE,
    count_reading,
    cpus_reading,
    io_reading,
    parse_cpus,
    percent_reading,
    size_reading,
    swap_reading,
)


@pytest.mark.parametrize(("text", "cpus"), [("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("", set()), ("1, 3-4", {1, 3, 4})])
def test_a_list_of_cpus_is_read_as_the_kernel_writes_it(text: str, cpus: set[int]) -> None:
    assert parse_cpus(text) == cpus


def test_sizes_are_shown_in_the_largest_exact_unit() -> None:
    assert [readable_size(value) for value in (0, 1, 1024, 64 << 20, 3 << 40, None)] == [
        *("0", "1", "1Ki", "64Mi", "3Ti", "max")
    ]
    assert readable_percent(33.3333333) == "33.33%"


def test_a_size_rounded_down_to_a_page_is_enforced_and_one_rounded_up_is_not() -> None:
    assert size_reading("memory", 8193, 8192) == LimitReading("memory", "8193", "8Ki", True)
    assert size_reading("memory", 8192, 12288) == LimitReading("memory", "8Ki", "12Ki", False, OTHER_VALUE)
    assert size_reading("memory", 8192, None) == LimitReading("memory", "8Ki", "max", False, OTHER_VALUE)


def test_a_list_of_cpus_written_another_way_is_the_same() -> None:
    assert cpus_reading("0,1", "0-1", "").enforced
    assert not cpus_reading("0-7", "0-1", "").enforced


def test_what_is_missing_on_the_host_is_the_message() -> None:
    assert count_reading("pids", 8, None, "no pids here") == LimitReading("pids", "8", "max", False, "no pids here")
    assert percent_reading(20, None, "no cpu here").message == "no cpu here"
    assert swap_reading(0, None, missing="no memory here") == LimitReading("swap", "0", "max", False, "no memory here")


def test_a_share_below_the_kernels_least_says_so() -> None:
    assert percent_reading(0.01, 0.1, "") == LimitReading("cpu", "0.01%", "0.1%", True, "the kernel's least is 0.1%")


def test_io_is_shown_in_sizes_and_counts_with_what_to_know_about_it() -> None:
    assert io_reading("io.write", 1 << 20, 1 << 20, "", "direct only") == LimitReading(
        "io.write", "1Mi", "1Mi", True, "direct only"
    )
    assert io_reading("io.readOps", 2048, None, "") == LimitReading("io.readOps", "2048", "max", False, OTHER_VALUE)

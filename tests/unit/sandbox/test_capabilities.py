"""Capability names have the kernel's numbers."""

from __future__ import annotations

import pytest

from joblet.sandbox.capabilities import NAMES, last_capability, mask_of


def test_numbers_are_those_of_the_kernels_header() -> None:
    numbers = {"CHOWN": 0, "KILL": 5, "NET_BIND_SERVICE": 10, "SYS_ADMIN": 21, "SETFCAP": 31, "CHECKPOINT_RESTORE": 40}
    assert {name: mask_of([name]) for name in numbers} == {name: 1 << number for name, number in numbers.items()}


def test_a_mask_is_the_union_and_the_prefix_is_optional() -> None:
    assert mask_of([]) == 0
    assert mask_of(["CAP_CHOWN", "KILL"]) == 1 | 1 << 5


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        mask_of(["EVERYTHING"])


def test_this_kernel_has_no_capability_without_a_name() -> None:
    assert last_capability() < len(NAMES)

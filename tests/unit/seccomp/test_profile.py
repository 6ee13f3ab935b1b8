"""The filter lets ordinary programs run and refuses what a job has no business with, in real processes."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.sandbox import seccomp
from tests.unit.seccomp.filtered import under_the_filter

CLONE_NEWUSER = 0x10000000


def outcome(name: str, *arguments: int | str, capabilities: frozenset[str] = frozenset()) -> int:
    """Of one call under the filter: 0, or the errno it got."""
    return under_the_filter(seccomp.compile_default(capabilities), name, *arguments)


NUMBERS = {
    "x86_64": {
        **{"mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "reboot": 169, "sethostname": 170},
        **{"init_module": 175, "kexec_load": 246, "add_key": 248, "keyctl": 250, "unshare": 272, "setns": 308},
        **{"perf_event_open": 298, "open_by_handle_at": 304, "bpf": 321, "userfaultfd": 323, "swapon": 167},
        **{"settimeofday": 164, "acct": 163, "iopl": 172, "quotactl": 179, "syslog": 103, "ioctl": 16, "clone": 56},
        "personality": 135,
    },
    "aarch64": {
        **{"mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "reboot": 142, "sethostname": 161},
        **{"init_module": 105, "kexec_load": 104, "add_key": 217, "keyctl": 219, "unshare": 97, "setns": 268},
        **{"perf_event_open": 241, "open_by_handle_at": 265, "bpf": 280, "userfaultfd": 282, "swapon": 224},
        **{"settimeofday": 170, "acct": 89, "quotactl": 60, "syslog": 116, "ioctl": 29, "clone": 220},
        "personality": 92,
    },
}[os.uname().machine]
NUMBERS |= {"io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "mount_setattr": 442}
WITH_ARGUMENTS = ("ioctl", "clone", "personality", "unshare")


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in WITH_ARGUMENTS])
def test_what_changes_the_kernel_or_the_host_is_refused(name: str) -> None:
    assert outcome("raw", NUMBERS[name], 0, 0, 0, 0, 0) == errno.EPERM


def test_new_namespaces_are_refused_and_threads_are_not() -> None:
    assert outcome("raw", NUMBERS["unshare"], CLONE_NEWUSER) == errno.EPERM
    assert outcome("raw", NUMBERS["clone"], CLONE_NEWUSER | 17, 0, 0, 0, 0) == errno.EPERM
    assert outcome("fork") == 0


def test_clone3_looks_absent_so_that_programs_fall_back() -> None:
    assert outcome("raw", 435, 0, 0) == errno.ENOSYS


@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 0x1_0000_5412, 0x7FFF_0000_541C])
def test_terminal_injection_is_refused_whatever_the_high_bits(request_number: int) -> None:
    assert outcome("raw", NUMBERS["ioctl"], 0, request_number, 0) == errno.EPERM


def test_other_terminal_requests_are_not() -> None:
    # TCGETS on what is no terminal: the kernel answers, not the filter.
    assert outcome("raw", NUMBERS["ioctl"], 0, 0x5401, 0) == errno.ENOTTY


@pytest.mark.parametrize(("family", "answer"), [(1, 0), (2, 0), (10, 0), (17, 1), (38, 1), (40, 1)])
def test_only_families_with_a_use_can_be_opened(family: int, answer: int) -> None:
    kind = socket.SOCK_STREAM if family in (1, 2, 10) else socket.SOCK_RAW
    assert outcome("open_socket", family, kind) == answer


def test_personalities_that_loosen_protections_are_refused() -> None:
    assert outcome("raw", NUMBERS["personality"], 0xFFFFFFFF) == 0
    assert outcome("raw", NUMBERS["personality"], 0x0400000) == errno.EPERM  # READ_IMPLIES_EXEC


def test_a_capability_brings_its_calls() -> None:
    # With the capability's profile the kernel itself answers: a missing path, not a refusal.
    assert outcome("raw", NUMBERS["chroot"], 0) == errno.EPERM
    assert outcome("raw", NUMBERS["chroot"], 0, capabilities=frozenset({"SYS_CHROOT"})) == errno.EFAULT


@pytest.mark.parametrize(
    "command",
    [["/bin/sh", "-c", "ls / | sort | head -1 && date && id"], [sys.executable, "-c", "import threading, json"]],
)
def test_ordinary_programs_run(command: list[str]) -> None:
    assert outcome("become", *command) == 0
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@given(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_all_but_matches_everything_else_once(excluded: set[int], number: int) -> None:
    pairs = seccomp.all_but(tuple(excluded))
    for value in (*excluded, number):
        matches = sum(value & mask == wanted for mask, wanted in pairs)
        assert matches == (0 if value in excluded else 1)

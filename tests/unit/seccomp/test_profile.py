"""The filter lets ordinary programs run and refuses what a job has no business with, in real processes."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.sandbox import seccomp, syscalls

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000


def under_the_filter(call: Callable[[], object], capabilities: frozenset[str] = frozenset()) -> int:
    """Call in a forked child under the filter: 0, or the errno it got."""
    program = seccomp.compile_default(capabilities)
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.set_seccomp_filter(program)
            call()
        except OSError as error:
            os._exit(error.errno or 255)
        except BaseException:
            os._exit(254)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def raw(number: int, *arguments: int) -> Callable[[], object]:
    """A raw system call that raises OSError."""

    def call() -> None:
        ctypes.set_errno(0)
        if LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments)) == -1:
            raise OSError(ctypes.get_errno(), "syscall")

    return call


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
    assert under_the_filter(raw(NUMBERS[name], 0, 0, 0, 0, 0)) == errno.EPERM


def test_new_namespaces_are_refused_and_threads_are_not() -> None:
    assert under_the_filter(raw(NUMBERS["unshare"], CLONE_NEWUSER)) == errno.EPERM
    assert under_the_filter(raw(NUMBERS["clone"], CLONE_NEWUSER | 17, 0, 0, 0, 0)) == errno.EPERM
    assert under_the_filter(lambda: os.waitpid(os.fork() or os._exit(0), 0)) == 0


def test_clone3_looks_absent_so_that_programs_fall_back() -> None:
    assert under_the_filter(raw(435, 0, 0)) == errno.ENOSYS


@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 0x1_0000_5412, 0x7FFF_0000_541C])
def test_terminal_injection_is_refused_whatever_the_high_bits(request_number: int) -> None:
    assert under_the_filter(raw(NUMBERS["ioctl"], 0, request_number, 0)) == errno.EPERM


def test_other_terminal_requests_are_not() -> None:
    # TCGETS on what is no terminal: the kernel answers, not the filter.
    assert under_the_filter(raw(NUMBERS["ioctl"], os.open("/dev/null", os.O_RDONLY), 0x5401, 0)) == errno.ENOTTY


@pytest.mark.parametrize(("family", "answer"), [(1, 0), (2, 0), (10, 0), (17, 1), (38, 1), (40, 1)])
def test_only_families_with_a_use_can_be_opened(family: int, answer: int) -> None:
    kind = socket.SOCK_STREAM if family in (1, 2, 10) else socket.SOCK_RAW

    def call() -> None:
        socket.socket(family, kind).close()

    assert under_the_filter(call) == answer


def test_personalities_that_loosen_protections_are_refused() -> None:
    assert under_the_filter(raw(NUMBERS["personality"], 0xFFFFFFFF)) == 0
    assert under_the_filter(raw(NUMBERS["personality"], 0x0400000)) == errno.EPERM  # READ_IMPLIES_EXEC


def test_a_capability_brings_its_calls() -> None:
    # With the capability's profile the kernel itself answers: a missing path, not a refusal.
    call = raw(NUMBERS["chroot"], 0)
    assert under_the_filter(call) == errno.EPERM
    assert under_the_filter(call, frozenset({"SYS_CHROOT"})) == errno.EFAULT


@pytest.mark.parametrize(
    "command",
    [["/bin/sh", "-c", "ls / | sort | head -1 && date && id"], [sys.executable, "-c", "import threading, json"]],
)
def test_ordinary_programs_run(command: list[str]) -> None:
    def call() -> None:
        os.execv(command[0], command)

    with open(os.devnull, "w") as sink:
        saved = os.dup(1)
        os.dup2(sink.fileno(), 1)
        try:
            assert under_the_filter(call) == 0
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@given(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_all_but_matches_everything_else_once(excluded: set[int], number: int) -> None:
    pairs = seccomp.all_but(tuple(excluded))
    for value in (*excluded, number):
        matches = sum(value & mask == wanted for mask, wanted in pairs)
        assert matches == (0 if value in excluded else 1)

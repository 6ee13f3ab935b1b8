"""default and strict on every architecture that they are made for, asked instruction by instruction."""

from __future__ import annotations

import errno

import pytest

from joblet.sandbox.seccomp import compile_default, compile_strict
from tests.unit.seccomp.filter_machine import ALLOW, KILL, X32_BIT, denied, verdict

EPERM = denied(errno.EPERM)
# From each architecture's own table.
TABLES = {
    "x86_64": {"read": 0, "mount": 165, "socket": 41, "clone": 56, "ptrace": 101, "bpf": 321, "keyctl": 250},
    "x86": {"read": 3, "mount": 21, "socket": 359, "clone": 120, "ptrace": 26, "bpf": 357, "keyctl": 288},
    "aarch64": {"read": 63, "mount": 40, "socket": 198, "clone": 220, "ptrace": 117, "bpf": 280, "keyctl": 219},
    "arm": {"read": 3, "mount": 21, "socket": 281, "clone": 120, "ptrace": 26, "bpf": 386, "keyctl": 311},
}
MACHINES = {"x86_64": "x86_64", "x86": "x86_64", "aarch64": "aarch64", "arm": "aarch64"}
CLONE3, IO_URING_SETUP = 435, 425  # the same everywhere
SOCKETCALL = 102  # on x86


@pytest.mark.parametrize("architecture", TABLES)
def test_default_is_the_same_for_compat_programs(architecture: str) -> None:
    program = compile_default(machine=MACHINES[architecture])
    numbers = TABLES[architecture]
    assert verdict(program, architecture, numbers["read"]) == ALLOW
    assert verdict(program, architecture, numbers["ptrace"]) == ALLOW
    for name in ("mount", "bpf", "keyctl"):
        assert verdict(program, architecture, numbers[name]) == EPERM, name
    assert verdict(program, architecture, IO_URING_SETUP) == EPERM
    assert verdict(program, architecture, CLONE3) == denied(errno.ENOSYS)
    assert verdict(program, architecture, numbers["clone"], [17]) == ALLOW
    assert verdict(program, architecture, numbers["clone"], [0x10000000 | 17]) == EPERM
    for family, wanted in ((1, ALLOW), (2, ALLOW), (10, ALLOW), (16, ALLOW), (17, EPERM), (38, EPERM), (40, EPERM)):
        assert verdict(program, architecture, numbers["socket"], [family]) == wanted, family


def test_sockets_that_a_32_bit_program_multiplexes_are_refused() -> None:
    program = compile_default(machine="x86_64")
    for call in range(1, 21):  # SYS_SOCKET to SYS_SENDMMSG
        assert verdict(program, "x86", SOCKETCALL, [call]) == denied(errno.ENOSYS)


def test_what_the_c_library_of_32_bit_arm_starts_with_is_allowed() -> None:
    program = compile_default(machine="aarch64")
    for number in (
        0xF0005,
        0xF0002,
        270,
        341,
        289,
        291,
    ):  # set_tls, cacheflush, fadvise64_64, sync_file_range2, send, recv
        assert verdict(program, "arm", number) == ALLOW, hex(number)


def test_x32_calls_are_judged_by_their_own_numbers() -> None:
    program = compile_default(machine="x86_64")
    assert verdict(program, "x86_64", X32_BIT | TABLES["x86_64"]["mount"]) == EPERM
    assert verdict(program, "x86_64", X32_BIT | TABLES["x86_64"]["read"]) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_strict_knows_unix_sockets_alone_and_no_compat_program(machine: str) -> None:
    program = compile_strict(machine=machine)
    numbers = TABLES[machine]
    assert verdict(program, machine, numbers["read"]) == ALLOW
    for family in (2, 10, 16, 17, 40):
        assert verdict(program, machine, numbers["socket"], [family]) == EPERM
    assert verdict(program, machine, numbers["socket"], [1]) == ALLOW
    assert verdict(program, machine, numbers["ptrace"]) == EPERM
    compat = {"x86_64": "x86", "aarch64": "arm"}[machine]
    assert verdict(program, compat, TABLES[compat]["read"]) == KILL
    if machine == "x86_64":
        assert verdict(program, machine, X32_BIT | numbers["read"]) == KILL


def test_raw_packets_come_with_their_capability() -> None:
    program = compile_default(frozenset({"NET_RAW"}), machine="x86_64")
    assert verdict(program, "x86_64", TABLES["x86_64"]["socket"], [17]) == ALLOW


@pytest.mark.parametrize("capability", ["SYS_PTRACE", "SYS_NICE", "SYS_RESOURCE"])
def test_calls_that_come_with_a_capability_alone(capability: str) -> None:
    number = {"SYS_PTRACE": 312, "SYS_NICE": 237, "SYS_RESOURCE": 206}[capability]  # kcmp, mbind, io_setup
    assert verdict(compile_default(machine="x86_64"), "x86_64", number) == EPERM
    assert verdict(compile_default(frozenset({capability}), machine="x86_64"), "x86_64", number) == ALLOW


def test_socket_pairs_are_of_the_unix_family() -> None:
    program = compile_default(machine="x86_64")
    assert verdict(program, "x86_64", 53, [1]) == ALLOW
    assert verdict(program, "x86_64", 53, [30]) == EPERM  # AF_TIPC

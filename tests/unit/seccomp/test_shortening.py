"""Shortened programs against what libseccomp wrote, call by call."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joblet.sandbox import libseccomp
from joblet.sandbox.bpf import shortened
from joblet.sandbox.libseccomp import (
    SCMP_ACT_ALLOW,
    SCMP_ACT_KILL_PROCESS,
    SCMP_CMP_EQ,
    SCMP_CMP_GT,
    SCMP_CMP_MASKED_EQ,
    Rule,
    compile_rules,
    errno_action,
)
from joblet.sandbox.seccomp import compile_default, compile_strict
from tests.unit.seccomp.filter_machine import AUDIT_ARCH, X32_BIT, verdict

NUMBERS = (*range(480), *range(X32_BIT, X32_BIT + 600), (1 << 31) - 1)
ARGUMENTS = (
    [0] * 6,
    [0x5412, 0x5412, 0, 0, 0, 0],
    [17, 0xFFFF_FFFF_0000_5412],
    [0x1000_0011],
    [0xFFFF_FFFF_FFFF_FFFF] * 6,
)
NAMES = (
    "read",
    "write",
    "open",
    "socket",
    "ioctl",
    "clone",
    "prctl",
    "personality",
    "execve",
    "futex",
    "mount",
    "kcmp",
)
COMPARISONS = st.tuples(
    st.integers(0, 5),
    st.sampled_from((SCMP_CMP_EQ, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ)),
    st.sampled_from((0, 1, 17, 0x5412, 1 << 40)),
    st.sampled_from((0, 1, 17, 0x5412)),
)
RULES = st.builds(
    Rule,
    st.sampled_from(NAMES),
    st.sampled_from((SCMP_ACT_ALLOW, SCMP_ACT_KILL_PROCESS, errno_action(38))),
    st.lists(COMPARISONS, max_size=1).map(tuple),
)


def as_libseccomp_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libseccomp, "shortened", lambda program: program)


def same_answers(first: bytes, second: bytes) -> None:
    for architecture in AUDIT_ARCH:
        for number in NUMBERS:
            for arguments in ARGUMENTS:
                found = (
                    verdict(first, architecture, number, arguments),
                    verdict(second, architecture, number, arguments),
                )
                assert found[0] == found[1], (architecture, number, arguments)


@pytest.mark.parametrize("compiler", [compile_default, compile_strict])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_profiles_decide_as_before(compiler: object, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_libseccomp_wrote(monkeypatch)
    written = compiler.__wrapped__(machine=machine)  # type: ignore[attr-defined]  # not the cached one
    short = shortened(written)
    assert len(short) < 0.6 * len(written)
    same_answers(written, short)


@settings(max_examples=6, deadline=None)
@given(st.lists(RULES, max_size=8), st.sampled_from([("x86_64",), ("x86_64", "x86", "x32"), ("aarch64", "arm")]))
def test_any_rules_decide_as_before(rules: list[Rule], architectures: tuple[str, ...]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        as_libseccomp_wrote(patch)
        written = compile_rules(errno_action(1), architectures, rules)
    same_answers(written, shortened(written))


@pytest.mark.parametrize(
    "instructions",
    [
        [
            (0x20, 0, 0, 0),
            (0x54, 0, 0, 0xFF),
            (0x15, 0, 1, 3),
            (0x06, 0, 0, 0x7FFF_0000),
            (0x06, 0, 0, 0),
        ],  # number & 0xff
        [(0x20, 0, 0, 0), (0x45, 0, 1, 3), (0x06, 0, 0, 0x7FFF_0000), (0x06, 0, 0, 0)],  # a bit of the number
        [(0x20, 0, 0, 4), (0x35, 0, 1, 3), (0x06, 0, 0, 0x7FFF_0000), (0x06, 0, 0, 0)],  # architectures by their order
        [(0x30, 0, 0, 0), (0x06, 0, 0, 0)],  # ld of one byte
    ],
)
def test_what_is_not_in_its_manner_stays_as_it_is(instructions: list[tuple[int, int, int, int]]) -> None:
    program = b"".join(struct.pack("<HBBI", *fields) for fields in instructions)
    assert shortened(program) == program

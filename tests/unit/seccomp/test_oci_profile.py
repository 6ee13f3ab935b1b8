"""Profiles as container engines read them: what is understood has its effect, all else is an error with its place."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from joblet.sandbox.oci_seccomp import InvalidProfile, compile_oci
from tests.unit.seccomp.filter_machine import ALLOW, KILL, denied, verdict

READ, WRITE, OPEN, CLONE, SOCKET, PTRACE, CHROOT, BDFLUSH = 0, 1, 2, 56, 41, 101, 161, 134
ALLOW_READ = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}
ARCH_MAP = [
    {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
]


def compiled(
    *syscalls: dict[str, Any], capabilities: frozenset[str] = frozenset(), kernel: str = "6.1.0", **top: Any
) -> bytes:
    content = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls, **top}
    return compile_oci("p.json", json.dumps(content).encode(), capabilities, machine="x86_64", kernel=kernel)


def asked(program: bytes, number: int, *arguments: int, architecture: str = "x86_64") -> int:
    return verdict(program, architecture, number, arguments)


def test_what_is_not_named_fails_with_the_default() -> None:
    program = compiled(ALLOW_READ)
    assert (asked(program, READ), asked(program, WRITE)) == (ALLOW, denied(errno.EPERM))
    assert asked(compiled(ALLOW_READ, defaultErrnoRet=38), WRITE) == denied(38)
    assert asked(compiled(ALLOW_READ, defaultAction="SCMP_ACT_KILL"), WRITE) == KILL


def test_a_rule_has_its_own_errno_or_the_default() -> None:
    program = compiled(
        {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["open"], "action": "SCMP_ACT_ERRNO"},
        defaultAction="SCMP_ACT_ALLOW",
        defaultErrnoRet=1,
    )
    assert (asked(program, WRITE), asked(program, OPEN), asked(program, READ)) == (denied(13), denied(1), ALLOW)


def test_architectures_come_from_the_map_or_the_list() -> None:
    mapped = compiled(ALLOW_READ, archMap=ARCH_MAP)
    assert asked(mapped, 3, architecture="x86") == ALLOW
    assert asked(compiled(ALLOW_READ), 3, architecture="x86") == KILL
    listed = compiled(ALLOW_READ, architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    assert asked(listed, 3, architecture="x86") == ALLOW


def test_arguments_are_compared() -> None:
    masked = {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    program = compiled(
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [masked]},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
    )
    assert (asked(program, CLONE, 17), asked(program, CLONE, 0x10000000)) == (ALLOW, denied(1))
    assert (asked(program, SOCKET, 2), asked(program, SOCKET, 40)) == (ALLOW, denied(1))


def test_one_argument_compared_twice_means_either() -> None:
    either = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    program = compiled({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": either})
    assert [asked(program, SOCKET, family) == ALLOW for family in (1, 2, 10)] == [True, True, False]


def test_rules_depend_on_capabilities_architecture_and_kernel() -> None:
    def rule(**conditions: Any) -> dict[str, Any]:
        return {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", **conditions}

    by_capability = rule(includes={"caps": ["CAP_SYS_CHROOT"]})
    assert asked(compiled(ALLOW_READ, by_capability), CHROOT) == denied(1)
    assert asked(compiled(ALLOW_READ, by_capability, capabilities=frozenset({"SYS_CHROOT"})), CHROOT) == ALLOW
    without = rule(excludes={"caps": ["CAP_SYS_CHROOT"]})
    assert asked(compiled(ALLOW_READ, without), CHROOT) == ALLOW
    assert asked(compiled(ALLOW_READ, without, capabilities=frozenset({"SYS_CHROOT"})), CHROOT) == denied(1)
    assert asked(compiled(ALLOW_READ, rule(includes={"arches": ["s390"]})), CHROOT) == denied(1)
    assert asked(compiled(ALLOW_READ, rule(includes={"arches": ["amd64", "x32"]})), CHROOT) == ALLOW
    assert asked(compiled(ALLOW_READ, rule(includes={"minKernel": "4.8"})), CHROOT) == ALLOW
    assert asked(compiled(ALLOW_READ, rule(includes={"minKernel": "4.8"}), kernel="4.4.1"), CHROOT) == denied(1)


def test_a_call_that_nobody_knows_is_left_to_the_default() -> None:
    unknown = {"names": ["no_such_call", "read"], "action": "SCMP_ACT_ALLOW"}
    assert asked(compiled(unknown), READ) == ALLOW


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({}, "p.json: defaultAction: is missing"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "p.json: defaultAction: 'SCMP_ACT_NOTIFY' cannot be carried out"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}, "p.json: listenerPath: is not supported"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}, "p.json: syscalls[0].action: is missing"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, "p.json: syscalls: is not a list"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_KILL"}]},
            "p.json: syscalls[0].names: names no system call",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 6}]}],
            },
            "p.json: syscalls[0].args[0].index: 6 is no whole number from 0 to 5",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"op": "EQ"}]}],
            },
            "p.json: syscalls[0].args[0].op: 'EQ' is no comparison",
        ),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}, "p.json: flags[0]: "),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}, "p.json: architectures: this host"),
        ([], "p.json: is not an object"),
    ],
)
def test_what_cannot_be_carried_out_is_an_error_with_its_place(content: object, place: str) -> None:
    with pytest.raises(InvalidProfile) as caught:
        compile_oci("p.json", json.dumps(content).encode(), frozenset(), machine="x86_64")
    assert str(caught.value).startswith(place)
    assert caught.value.todo


def test_what_is_no_json_is_an_error() -> None:
    with pytest.raises(InvalidProfile, match=r"p\.json: is not JSON"):
        compile_oci("p.json", b"{", frozenset())

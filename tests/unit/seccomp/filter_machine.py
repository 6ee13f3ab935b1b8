"""A machine for classic BPF as the kernel runs it on seccomp data: so that a filter for another architecture can be asked too."""

from __future__ import annotations

import struct
from collections.abc import Sequence

AUDIT_ARCH = {"x86_64": 0xC000003E, "x86": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
ALLOW = 0x7FFF0000
KILL = 0x00000000
X32_BIT = 0x40000000


def denied(number: int) -> int:
    """SECCOMP_RET_ERRNO with that errno."""
    return 0x00050000 | number


def verdict(program: bytes, architecture: str, number: int, arguments: Sequence[int] = ()) -> int:
    """What the filter returns for one system call. <linux/filter.h>, <linux/seccomp.h>."""
    padded = [value & 0xFFFFFFFFFFFFFFFF for value in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<iIQ6Q", number, AUDIT_ARCH[architecture], 0, *padded)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= operand
            case 0x05:  # BPF_JMP | BPF_JA
                at += operand
            case 0x15:  # BPF_JEQ
                at += if_true if accumulator == operand else if_false
            case 0x25:  # BPF_JGT
                at += if_true if accumulator > operand else if_false
            case 0x35:  # BPF_JGE
                at += if_true if accumulator >= operand else if_false
            case 0x45:  # BPF_JSET
                at += if_true if accumulator & operand else if_false
            case 0x06:  # BPF_RET | BPF_K
                return int(operand)
            case _:
                raise AssertionError(f"no such instruction: {operation:#x}")

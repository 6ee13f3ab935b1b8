"""Asks the kernel, not an interpreter of ours, what a filter says of a system call, without carrying it out.

Two filters are installed. The older one refuses, with an errno of its own, every call whose sixth argument is GUARD. Of two
refusals the kernel takes the newer filter's, and a refusal wins over an allowance: so of a guarded call the answer is the
tested filter's errno if that refuses, and the guard's if it allows. Nothing is done in either case. All other calls,
those of the asking program itself, are left to the tested filter.

The asking program may be another interpreter than ours, one of 32 bits.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from joblet.sandbox import syscalls
from tests.unit.seccomp.filter_machine import ALLOW, denied

REPOSITORY = Path(__file__).parents[3]
GUARD = 0x6A6F626C
GUARD_ERRNO = 133  # EHWPOISON, which no profile uses
SIXTH_ARGUMENT = 16 + 5 * 8  # in struct seccomp_data, its low half
GUARD_PROGRAM = b"".join(
    struct.pack("<HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, SIXTH_ARGUMENT),  # BPF_LD | BPF_W | BPF_ABS
        (0x15, 0, 1, GUARD),  # BPF_JEQ: the next one, or the one after it
        (0x06, 0, 0, denied(GUARD_ERRNO)),  # BPF_RET
        (0x06, 0, 0, ALLOW),
    )
)
# On the standard library alone, for any Python. In: a list of [number, argument...]. Out: the errno of each.
ASKING = f"""
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
answers = []
for number, *arguments in json.load(sys.stdin):
    passed = [ctypes.c_ulong(value) for value in (number, *(arguments + [0] * 5)[:5], {GUARD})]
    ctypes.set_errno(0)
    libc.syscall(*passed)
    answers.append(ctypes.get_errno())
print(json.dumps(answers))
"""


def ask(program: bytes, calls: Sequence[Sequence[int]], *, python: str = sys.executable, root: str = "/") -> list[int]:
    """What the kernel says of each call ([number, argument...]) under this filter: ALLOW or denied(errno).

    python: the interpreter that asks, below root. Raises CalledProcessError, with returncode -SIGSYS where it was killed.
    """
    # By a process of its own: one of ours may have threads (of gRPC, of the test runner) that a fork leaves in the middle.
    command = [sys.executable, "-m", __name__, program.hex(), root, python]
    given = json.dumps([list(call) for call in calls])
    try:
        done = subprocess.run(command, input=given, cwd=REPOSITORY, capture_output=True, check=True, text=True)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
    return [ALLOW if number == GUARD_ERRNO else denied(number) for number in json.loads(done.stdout)]


def main(program: str, root: str, python: str) -> None:
    """Become the asking program, under the filter."""
    if root != "/":
        os.chroot(root)
        os.chdir("/")
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.set_seccomp_filter(GUARD_PROGRAM)
    syscalls.set_seccomp_filter(bytes.fromhex(program))
    os.execv(python, [python, "-I", "-S", "-c", ASKING])


if __name__ == "__main__":
    main(*sys.argv[1:])

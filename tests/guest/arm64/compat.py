"""32-bit programs of arm on an arm64 kernel, under the profiles: run by ``make machine-test ARCH=arm64`` alone, as no other
machine can. So it is no test_ file, which all others would collect."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from joblet.sandbox import syscalls
from joblet.sandbox.seccomp import compile_default, compile_strict
from tests.guest.arm64_root import ARMHF
from tests.unit.seccomp.asker import ask
from tests.unit.seccomp.filter_machine import ALLOW, verdict
from tests.unit.seccomp.questions import questions
from tests.unit.seccomp.test_architectures import EPERM

PYTHON = "/usr/bin/python3.11"
ROOT = f"/{ARMHF}"
THREADS_AND_FILES = """
import threading, struct, os, socket, signal, tempfile
assert struct.calcsize("P") == 4
thread = threading.Thread(target=print, args=("from a thread",)); thread.start(); thread.join()
with tempfile.TemporaryFile() as file:
    os.posix_fadvise(file.fileno(), 0, 1 << 33, os.POSIX_FADV_DONTNEED)
    os.fdatasync(file.fileno())
one, other = socket.socketpair(); one.send(b"x"); assert other.recv(1) == b"x"
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    client.send(b"over loopback"); print(server.accept()[0].recv(99).decode())
assert os.waitpid(os.fork() or os._exit(7), 0)[1] == 7 << 8
"""


def run_under(program: bytes, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of the 32-bit root, under this filter."""
    return subprocess.run(list(command), preexec_fn=partial(enter, program), capture_output=True, text=True)


def enter(program: bytes) -> None:
    os.chroot(ROOT)
    os.chdir("/")
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.set_seccomp_filter(program)


def test_this_is_a_kernel_of_arm64_and_a_program_of_32_bits() -> None:
    assert os.uname().machine == "aarch64"
    header = Path(ROOT + PYTHON).read_bytes()[:20]
    assert (header[4], int.from_bytes(header[18:20], "little")) == (1, 40)  # ELFCLASS32, EM_ARM


@pytest.mark.parametrize("capabilities", [frozenset(), frozenset({"SYS_PTRACE", "SYS_TIME", "NET_RAW"})])
def test_the_kernel_and_the_interpreter_agree_on_every_call_of_a_32_bit_program(capabilities: frozenset[str]) -> None:
    program = compile_default(capabilities)
    asked = questions("arm")
    answers = ask(program, asked, python=PYTHON, root=ROOT)
    assert answers == [verdict(program, "arm", number, arguments) for number, *arguments in asked]
    assert {ALLOW, EPERM} <= set(answers)


def test_ordinary_programs_of_32_bits_run_under_default() -> None:
    done = run_under(compile_default(), "/bin/sh", "-c", "ls / | sort | head -n 1; date +%s | wc -l && echo done")
    assert (done.returncode, done.stdout.split()) == (0, ["bin", "1", "done"]), done.stderr
    done = run_under(compile_default(), PYTHON, "-I", "-S", "-c", THREADS_AND_FILES)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["from a thread", "over loopback"]), done.stderr


def test_strict_ends_a_32_bit_program_at_its_first_call() -> None:
    assert run_under(compile_strict(), "/bin/true").returncode == -signal.SIGSYS

"""The kernel says of every system call what the interpreter in filter_machine.py says: so what is shown of other
architectures by that one is not shown of a mistake in it. ``make machine-test ARCH=arm64`` runs this on aarch64."""

from __future__ import annotations

import os

import pytest

from joblet.sandbox.seccomp import compile_default, compile_strict
from tests.unit.seccomp.asker import ask
from tests.unit.seccomp.filter_machine import ALLOW, verdict
from tests.unit.seccomp.questions import questions, x32_questions
from tests.unit.seccomp.test_architectures import EPERM

MACHINE = os.uname().machine


PROFILES = {"default": compile_default, "strict": compile_strict}
GRANTED = frozenset({"SYS_PTRACE", "SYS_NICE", "SYS_TIME", "SYS_CHROOT", "NET_RAW"})


@pytest.mark.parametrize("capabilities", [frozenset(), GRANTED], ids=["no capability", "granted ones"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_kernel_and_the_interpreter_agree_on_every_call(profile: str, capabilities: frozenset[str]) -> None:
    program = PROFILES[profile](capabilities)
    asked = questions(MACHINE)
    if (MACHINE, profile) == ("x86_64", "default"):  # strict ends a process that makes an x32 call
        asked += x32_questions()
    answers = ask(program, asked)
    assert answers == [verdict(program, MACHINE, number, arguments) for number, *arguments in asked]
    assert {ALLOW, EPERM} <= set(answers)


def test_an_allowed_call_is_not_carried_out_when_it_is_asked_for() -> None:
    exit_group = {"x86_64": 231, "aarch64": 94}[MACHINE]
    assert ask(compile_default(), [[exit_group]]) == [ALLOW]

"""Rules to BPF, by libseccomp through ctypes: its Python bindings on the package index have had no release for years, and ten
functions are all we need. Used by the daemon alone; launcher and init get the finished program."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

from joblet.errors import JobletError
from joblet.sandbox.bpf import shortened

SCMP_ACT_KILL_PROCESS = 0x80000000
SCMP_ACT_KILL_THREAD = 0x00000000
SCMP_ACT_TRAP = 0x00030000
SCMP_ACT_LOG = 0x7FFC0000
SCMP_ACT_ALLOW = 0x7FFF0000
SCMP_CMP_NE = 1
SCMP_CMP_LT = 2
SCMP_CMP_LE = 3
SCMP_CMP_EQ = 4
SCMP_CMP_GE = 5
SCMP_CMP_GT = 6
SCMP_CMP_MASKED_EQ = 7
SCMP_FLTATR_CTL_OPTIMIZE = 8
ARGUMENTS = 6  # that a system call has at most
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
INSTRUCTION_BYTES = 8

Comparison = tuple[int, int, int, int]  # argument, SCMP_CMP_, and its one or two values


class SeccompUnavailable(JobletError):
    """libseccomp is missing or refused the profile."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a call whose arguments are as compared, all of them. No comparison: whatever they are."""

    name: str
    action: int
    comparisons: tuple[Comparison, ...] = ()


class scmp_arg_cmp(ctypes.Structure):
    """struct scmp_arg_cmp of <seccomp.h>."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def errno_action(number: int) -> int:
    """SCMP_ACT_ERRNO(number)."""
    return 0x00050000 | number


def compile_rules(default_action: int, architectures: Iterable[str], rules: Iterable[Rule]) -> bytes:
    """The rules as BPF, ``struct sock_filter`` after ``struct sock_filter``.

    default_action: of a call without a rule. architectures: by libseccomp's names; a process of any other one is killed when
    it makes a call. A call that this libseccomp does not know, or an architecture does not have, is left to the default.
    Raises SeccompUnavailable.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise SeccompUnavailable(
            "libseccomp cannot be loaded", where=str(error), todo="apt-get install libseccomp2"
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_native.restype = ctypes.c_uint32
    context = ctypes.c_void_p(library.seccomp_init(default_action))
    if context.value is None:
        raise SeccompUnavailable("seccomp_init failed")
    try:
        filter_ = _Filter(library, context)
        filter_.set_architectures(architectures)
        for rule in rules:
            if rule.action != default_action:  # libseccomp takes such a rule for a mistake
                filter_.add(rule)
        return filter_.export()
    finally:
        library.seccomp_release(context)


class _Filter:
    """One filter in the making."""

    def __init__(self, library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
        self._library = library
        self._context = context

    def set_architectures(self, names: Iterable[str]) -> None:
        native = self._library.seccomp_arch_native()
        tokens = [self._library.seccomp_arch_resolve_name(name.encode()) for name in names]
        wanted = [token for token in tokens if token]  # 0: a newer one than this libseccomp
        if not wanted:
            raise SeccompUnavailable("the profile names no architecture that this libseccomp knows")
        for token in wanted:
            self._check(self._library.seccomp_arch_add(self._context, ctypes.c_uint32(token)), errno.EEXIST)
        if native not in wanted:
            self._check(self._library.seccomp_arch_remove(self._context, ctypes.c_uint32(native)))

    def add(self, rule: Rule) -> None:
        number = self._library.seccomp_syscall_resolve_name(rule.name.encode())
        if number == -1:  # __NR_SCMP_ERROR
            return
        compared = rule.comparisons
        array = (scmp_arg_cmp * max(len(compared), 1))(*(scmp_arg_cmp(*comparison) for comparison in compared))
        result = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(rule.action), ctypes.c_int(number), ctypes.c_uint(len(compared)), array
        )
        # A call that does not exist on an architecture; a rule that an earlier one made needless.
        self._check(result, errno.EDOM, errno.EOPNOTSUPP, errno.EEXIST)

    def export(self) -> bytes:
        # A binary tree over the numbers: a hot call costs the logarithm of the list. Absent before libseccomp 2.5.
        self._check(
            self._library.seccomp_attr_set(self._context, SCMP_FLTATR_CTL_OPTIMIZE, ctypes.c_uint32(2)), errno.EEXIST
        )
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            self._check(self._library.seccomp_export_bpf(self._context, fd))
            os.lseek(fd, 0, os.SEEK_SET)
            with open(fd, "rb", closefd=False) as file:
                program = shortened(file.read())
        finally:
            os.close(fd)
        if len(program) > MAX_INSTRUCTIONS * INSTRUCTION_BYTES:
            raise SeccompUnavailable(
                f"the profile has {len(program) // INSTRUCTION_BYTES} instructions; the kernel takes {MAX_INSTRUCTIONS}",
                todo="compare fewer arguments, or name fewer architectures",
            )
        return program

    def _check(self, result: int, *harmless: int) -> None:
        if result < 0 and -result not in harmless:
            raise SeccompUnavailable(f"libseccomp refused a rule: {os.strerror(-result)}")

"""From ``isolation.seccomp`` to the program that a job runs under. See decision 0010 for who compiles, and when."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from joblet.manifest import Isolation, Seccomp
from joblet.sandbox.oci_seccomp import MAX_BYTES, InvalidProfile, compile_oci
from joblet.sandbox.seccomp import WITH_CAPABILITY, compile_default, compile_strict

_COMPILERS = {Seccomp.DEFAULT: compile_default, Seccomp.STRICT: compile_strict}


def shared_profiles() -> Mapping[str, bytes]:
    """What the launcher has by name, because most jobs use it. Raises SeccompUnavailable."""
    return {name.value: compiler() for name, compiler in _COMPILERS.items()}


def seccomp_of(isolation: Isolation) -> dict[str, str | bytes]:
    """The profile by its name, as the launcher has it; or its program: where a capability needs calls of its own, where a file
    says so; empty where there is none. Raises InvalidProfile, SeccompUnavailable, OSError."""
    if isolation.seccomp == Seccomp.UNCONFINED:
        return {"program": b""}
    compiler = next((compiler for name, compiler in _COMPILERS.items() if isolation.seccomp == name), None)
    if compiler is None:
        path = os.path.realpath(isolation.seccomp)
        return {"program": compile_oci(path, read_profile(path), frozenset(isolation.capabilities))}
    more = frozenset(isolation.capabilities) & frozenset(WITH_CAPABILITY)
    return {"program": compiler(more)} if more else {"name": str(isolation.seccomp)}


def read_profile(path: str) -> bytes:
    """Raises InvalidProfile for what is no regular file, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidProfile("is not a regular file", where=path, todo="name a profile in the OCI format")
        return file.read(MAX_BYTES + 1)

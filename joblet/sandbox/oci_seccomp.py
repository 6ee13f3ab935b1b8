"""A seccomp profile in the JSON that container engines read, as rules for libseccomp.

Two spellings of one format: the OCI runtime specification's ``linux.seccomp`` (``architectures``), and the engines' own, which
adds ``archMap`` and per-rule ``includes`` and ``excludes`` by capability, architecture and kernel version. What would need a
listener or a tracer is refused, and so is every key that is not known: a rule that is not understood protects from nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from joblet.errors import JobletError
from joblet.sandbox import libseccomp
from joblet.sandbox.libseccomp import ARGUMENTS, Comparison, Rule, SeccompUnavailable, compile_rules, errno_action

MAX_BYTES = 1 << 20
# As libseccomp names them; of others (a profile names all it knows) nothing is needed here.
ARCHITECTURES = {
    **{"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "x86", "SCMP_ARCH_X32": "x32"},
    **{"SCMP_ARCH_AARCH64": "aarch64", "SCMP_ARCH_ARM": "arm"},
}
# In includes and excludes the engines use Go's names.
GO_ARCHITECTURES = {"x86_64": "amd64", "x86": "386", "x32": "x32", "aarch64": "arm64", "arm": "arm"}
ACTIONS = {
    "SCMP_ACT_ALLOW": libseccomp.SCMP_ACT_ALLOW,
    "SCMP_ACT_LOG": libseccomp.SCMP_ACT_LOG,
    "SCMP_ACT_KILL": libseccomp.SCMP_ACT_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": libseccomp.SCMP_ACT_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": libseccomp.SCMP_ACT_KILL_PROCESS,
    "SCMP_ACT_TRAP": libseccomp.SCMP_ACT_TRAP,
}
ERRNO = "SCMP_ACT_ERRNO"
OPERATORS = {
    f"SCMP_CMP_{name}": getattr(libseccomp, f"SCMP_CMP_{name}")
    for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
}
FLAGS = frozenset({"SECCOMP_FILTER_FLAG_TSYNC"})  # of one thread that makes no difference
TOP_KEYS = frozenset({"defaultAction", "defaultErrnoRet", "architectures", "archMap", "flags", "syscalls"})
RULE_KEYS = frozenset({"name", "names", "action", "errnoRet", "args", "comment", "includes", "excludes"})
ARGUMENT_KEYS = frozenset({"index", "value", "valueTwo", "op"})
CONDITION_KEYS = frozenset({"caps", "arches", "minKernel"})
_KERNEL = re.compile(r"([0-9]+)\.([0-9]+)")


class InvalidProfile(JobletError):
    """The file is no profile that can be carried out."""


def compile_oci(path: str, data: bytes, capabilities: frozenset[str], *, machine: str = "", kernel: str = "") -> bytes:
    """The profile as BPF. path: for messages. capabilities: those of the job, without CAP_. machine and kernel: as uname(1)
    names them; empty: of this host. Raises InvalidProfile, SeccompUnavailable."""
    if len(data) > MAX_BYTES:
        raise InvalidProfile(f"is larger than {MAX_BYTES >> 20} MiB", where=path)
    try:
        content = json.loads(data)
    except ValueError as error:
        raise InvalidProfile(f"is not JSON: {error}", where=path, todo="mend it") from error
    reader = _Reader(path, capabilities, machine or os.uname().machine, kernel or os.uname().release)
    default, architectures, rules = reader.profile(content)
    try:
        return compile_rules(default, architectures, rules)
    except SeccompUnavailable as error:
        raise SeccompUnavailable(error.what, where=error.where or path, todo=error.todo) from error


class _Reader:
    """Reads one profile for one job on one host. Every method names the place where it stands in the file."""

    def __init__(self, path: str, capabilities: frozenset[str], machine: str, kernel: str) -> None:
        self._path = path
        self._capabilities = frozenset(f"CAP_{name}" for name in capabilities)
        self._machine = machine
        self._kernel = _version(kernel)

    def profile(self, content: object) -> tuple[int, tuple[str, ...], list[Rule]]:
        top = self.mapping(content, "", TOP_KEYS)
        default = self.action(top, "defaultAction", "defaultErrnoRet", "", errno.EPERM)
        for number, flag in enumerate(self.list_of(top, "flags", "")):
            if flag not in FLAGS:
                raise self.fault(f"flags[{number}]", f"{flag!r} is not supported", "leave it out")
        fallback = top.get("defaultErrnoRet", errno.EPERM)
        rules: list[Rule] = []
        for number, item in enumerate(self.list_of(top, "syscalls", "")):
            rules += self.rules(item, f"syscalls[{number}]", fallback)
        return default, self.architectures(top), rules

    def architectures(self, top: Mapping[str, Any]) -> tuple[str, ...]:
        """This machine's, with the compat ones that the profile allows beside it."""
        named = [str(name) for name in self.list_of(top, "architectures", "")]
        for number, item in enumerate(self.list_of(top, "archMap", "")):
            place = f"archMap[{number}]"
            entry = self.mapping(item, place, frozenset({"architecture", "subArchitectures"}))
            if ARCHITECTURES.get(entry.get("architecture", "")) == self._machine:
                named += [entry["architecture"], *self.list_of(entry, "subArchitectures", place)]
        if not named and not top.get("archMap"):
            return (self._machine,)
        for name in named:
            if not re.fullmatch(r"SCMP_ARCH_[A-Z0-9_]+", str(name)):
                raise self.fault("architectures", f"{name!r} is no architecture", "use names as SCMP_ARCH_X86_64")
        known = tuple(dict.fromkeys(ARCHITECTURES[name] for name in named if name in ARCHITECTURES))
        if self._machine not in known:
            raise self.fault("architectures", f"this host's, {self._machine}, is not among them", "add it")
        return known

    def rules(self, item: object, place: str, fallback: object) -> Iterator[Rule]:
        entry = self.mapping(item, place, RULE_KEYS)
        action = self.action(entry, "action", "errnoRet", place, fallback)
        names = self.list_of(entry, "names", place) or ([entry["name"]] if "name" in entry else [])
        if not names:
            raise self.fault(f"{place}.names", "names no system call", "name one, or leave the rule out")
        comparisons = [
            self.comparison(argument, f"{place}.args[{number}]")
            for number, argument in enumerate(self.list_of(entry, "args", place))
        ]
        if not self.applies(entry, place):
            return
        indices = [comparison[0] for comparison in comparisons]
        for name in names:
            if not isinstance(name, str):
                raise self.fault(f"{place}.names", f"{name!r} is no name", "use names as in syscalls(2)")
            if len(set(indices)) < len(
                indices
            ):  # one argument compared twice: any of them may hold, as the engines do it
                for comparison in comparisons:
                    yield Rule(name, action, (comparison,))
            else:
                yield Rule(name, action, tuple(comparisons))

    def applies(self, entry: Mapping[str, Any], place: str) -> bool:
        """Whether includes and excludes leave the rule in for this job on this host."""
        wanted = self.conditions(entry, "includes", place)
        unwanted = self.conditions(entry, "excludes", place)
        go_name = GO_ARCHITECTURES.get(self._machine, "")
        return (
            self._capabilities.issuperset(wanted["caps"])
            and (not wanted["arches"] or go_name in wanted["arches"])
            and self._kernel >= wanted["minKernel"]
            and self._capabilities.isdisjoint(unwanted["caps"])
            and go_name not in unwanted["arches"]
            and not (unwanted["minKernel"] > (0, 0) and self._kernel >= unwanted["minKernel"])
        )

    def conditions(self, entry: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
        place = f"{place}.{key}"
        given = self.mapping(entry.get(key) or {}, place, CONDITION_KEYS)
        least = given.get("minKernel") or "0.0"
        if not isinstance(least, str) or not _KERNEL.match(least):
            raise self.fault(f"{place}.minKernel", f"{least!r} is no version", "write it as 4.8")
        return {
            "caps": self.list_of(given, "caps", place),
            "arches": self.list_of(given, "arches", place),
            "minKernel": _version(least),
        }

    def comparison(self, item: object, place: str) -> Comparison:
        argument = self.mapping(item, place, ARGUMENT_KEYS)
        index = self.number(argument, "index", place, ARGUMENTS - 1)
        operator = OPERATORS.get(argument.get("op", ""))
        if operator is None:
            use = f"use {', '.join(OPERATORS)}"
            raise self.fault(f"{place}.op", f"{argument.get('op')!r} is no comparison", use)
        return index, operator, self.number(argument, "value", place), self.number(argument, "valueTwo", place)

    def action(self, entry: Mapping[str, Any], key: str, number_key: str, place: str, fallback: object) -> int:
        where = f"{place}.{key}".lstrip(".")
        name = entry.get(key)
        if name == ERRNO:
            given = {number_key: fallback if entry.get(number_key) is None else entry[number_key]}
            return errno_action(self.number(given, number_key, place, 4095))
        if not isinstance(name, str) or name not in ACTIONS:
            use = f"use {', '.join((*ACTIONS, ERRNO))}"
            raise self.fault(where, "is missing" if name is None else f"{name!r} cannot be carried out", use)
        return ACTIONS[name]

    def number(self, entry: Mapping[str, Any], key: str, place: str, highest: int = 2**64 - 1) -> int:
        value = entry.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
            where = f"{place}.{key}".lstrip(".")
            raise self.fault(where, f"{value!r} is no whole number from 0 to {highest}", "correct it")
        return value

    def mapping(self, item: object, place: str, allowed: frozenset[str]) -> Mapping[str, Any]:
        if not isinstance(item, dict):
            raise self.fault(place, "is not an object", "see the OCI runtime specification, linux.seccomp")
        for key in item:
            if key not in allowed:
                raise self.fault(f"{place}.{key}".lstrip("."), "is not supported", f"use {', '.join(sorted(allowed))}")
        return item

    def list_of(self, entry: Mapping[str, Any], key: str, place: str) -> list[Any]:
        value = entry.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.fault(f"{place}.{key}".lstrip("."), "is not a list", "write it in [ ]")
        return value

    def fault(self, place: str, what: str, todo: str) -> InvalidProfile:
        return InvalidProfile(what, where=f"{self._path}: {place}" if place else self._path, todo=todo)


def _version(text: str) -> tuple[int, int]:
    """Major and minor of a kernel's version."""
    match = _KERNEL.match(text)
    return (int(match[1]), int(match[2])) if match else (0, 0)

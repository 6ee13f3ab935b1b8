"""What tests may not leave on the machine: processes, cgroups, mounts, loop devices, files.

Everything the tests make carries their session's name: cgroups, directories and loop images by ``joblet-test-<our pid>``,
processes by that cgroup, by a mount of such a directory, or by an environment variable. So another session on the same
machine does not disturb, and is not disturbed. What has no such name (/run/joblet, a slice named joblet) counts if it was
not there at the start.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SESSION = f"joblet-test-{os.getpid()}"
VARIABLE = "JOBLET_TEST_SESSION"
SETTLE_SECONDS = 20.0
_OURS = re.compile(rf"{SESSION}(?!\d)")
_OTHERS = re.compile(r"joblet-(test|bench|demo|guest)-")


class LeakCheck:
    """Made at the start of a session; ``leaks()`` at its end says what is left."""

    def __init__(self) -> None:
        os.environ[VARIABLE] = SESSION
        self._before = frozenset(_things())

    def leaks(self, *, patience: float) -> list[str]:
        """What is left, in words. Waits a little for what is ending just now."""
        deadline = time.monotonic() + SETTLE_SECONDS * patience
        while (found := self._look()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _look(self) -> list[str]:
        named = [thing for thing in _things() if _OURS.search(thing)]
        unnamed = [thing for thing in _things() if thing not in self._before and not _OTHERS.search(thing)]
        return sorted({*named, *unnamed, *_processes()})


def _things() -> Iterator[str]:
    """All that carries our name in one way or another, except processes."""
    yield from _cgroups()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if "joblet" in (target := line.split()[4]):
            yield f"mount {target}"
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            image = backing.read_text().strip()
        except OSError:
            continue  # it was detached just now
        if "joblet" in image:
            yield f"loop device /dev/{backing.parts[3]} of {image}"
    for _, name in socket.if_nameindex():
        if name.startswith("jb"):
            with suppress(OSError):  # it is gone just now
                yield f"interface {name} {Path(f'/sys/class/net/{name}/ifalias').read_text().strip()}"
    for path in (*Path("/run/joblet").rglob("*"), *Path(tempfile.gettempdir()).glob("joblet-*")):
        yield f"file {path}"


def _cgroups() -> Iterator[str]:
    """Cgroups at most two levels down, so directly below the root of a v1 or a v2 hierarchy."""
    for path in (*Path("/sys/fs/cgroup").glob("joblet*"), *Path("/sys/fs/cgroup").glob("*/joblet*")):
        if path.is_dir():
            yield f"cgroup {path}"


def _processes() -> Iterator[str]:
    """Processes that inherited this session's variable, sit in one of its cgroups, or see one of its directories mounted."""
    marker = f"{VARIABLE}={SESSION}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            # os.environ is not what /proc shows of ourselves, so only what was started since has the variable.
            ours = marker in (entry / "environ").read_bytes().split(b"\0")
            ours = ours or any(_OURS.search((entry / name).read_text()) for name in ("cgroup", "mountinfo"))
            ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            name = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it has ended just now
        if ours and not ended:
            yield f"process {entry.name} {name[:100]}"

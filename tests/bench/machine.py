"""The machine that was measured on, and the versions of everything measured: without them a figure says nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import joblet
from joblet.cgroup import CgroupError, open_hierarchy

# How each peer tells its version. One that is not installed is left out here, and says in its benchmark why it was not run.
VERSIONS = {
    "bubblewrap": ["bwrap", "--version"],
    "runc": ["runc", "--version"],
    "crun": ["crun", "--version"],
    "podman": ["podman", "--version"],
    "conmon": ["conmon", "--version"],
    "unshare": ["unshare", "--version"],
    "systemd": ["systemctl", "--version"],
    "supervisord": [str(Path(sys.executable).parent / "supervisord"), "--version"],
    "gcc": ["gcc", "--version"],
}
# These have no option for it; the distribution knows.
PACKAGES = ("nq", "task-spooler")


@dataclass(frozen=True)
class Machine:
    """Facts in pairs, in the order in which they are shown."""

    date: str
    busy: bool  # with other work, before anything was measured
    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def this_machine() -> Machine:
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = (
        ("processor", processor()),
        ("cores", str(cores)),
        ("memory", f"{memory_bytes / 2**30:.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("cgroups", cgroup_mode()),
        ("distribution", platform.freedesktop_os_release().get("PRETTY_NAME", "")),
        ("load before", f"{load:.2f} processes"),
    )
    return Machine(datetime.now(UTC).strftime("%Y-%m-%d"), load > cores / 2, facts, versions())


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    return found[1] if found else platform.machine()


def cgroup_mode() -> str:
    try:
        return str(open_hierarchy().mode)
    except CgroupError as error:
        return str(error)


def versions() -> tuple[tuple[str, str], ...]:
    found = [("Joblet", joblet.__version__), ("Python", platform.python_version())]
    commands = VERSIONS | {name: ["dpkg-query", "--show", "--showformat=${Version}", name] for name in PACKAGES}
    found += [(name, told) for name, command in commands.items() if (told := first_line(command))]
    return tuple(found)


def first_line(command: list[str]) -> str:
    """Empty if there is no such program, or it does not say."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return ended.stdout.partition("\n")[0]

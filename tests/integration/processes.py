"""Processes of a host as the kernel shows them, which may end while they are looked at."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """Of all its threads."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def command_name(pid: int) -> str:
    """As the kernel has it; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def launcher_of(daemon: int) -> int:
    """The daemon's one child that launches."""
    (pid,) = (pid for pid in children(daemon) if command_name(pid) == "joblet-launch")
    return pid

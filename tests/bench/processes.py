"""What processes use, as the kernel counts it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path


def pss_kib(pids: Iterable[int]) -> int:
    """Proportional set size of them all, proc_pid_smaps(5): what several share is spread over them."""
    return sum(_kib(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids)


def rss_megabytes(pid: int) -> float:
    return _kib(f"/proc/{pid}/status", "VmRSS") / 1024


def cpu_seconds(pid: int) -> float:
    """Of the process itself, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_share(pid: int, seconds: float) -> float:
    """The share of a core that a process uses while that time goes by."""
    before, begin = cpu_ns(pid), time.perf_counter()
    time.sleep(seconds)
    return (cpu_ns(pid) - before) / 1e9 / (time.perf_counter() - begin)


def cpu_ns(pid: int) -> int:
    """Of its threads that are there: finer than ``cpu_seconds``."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def children_of(pids: Iterable[int]) -> list[int]:
    found: list[int] = []
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


def _kib(path: str, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path(path).read_text(), flags=re.MULTILINE)
    assert match is not None, (path, name)
    return int(match[1])

"""Memory of one running idle job, all our processes, PSS; beside bubblewrap with the same command.

The job's own ``sleep`` counts on both sides.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.bench import peers
from tests.bench.sandbox import Sandbox

JOBS = 50
SLEEP = ["/bin/sleep", "600"]


def main() -> None:
    with Sandbox() as sandbox:
        empty = pss_of([sandbox.process.pid])
        started = [sandbox.start(SLEEP) for _ in range(JOBS)]
        for _, _, status in started:
            os.read(status, 256)
        inits = [pid for _, pid, _ in started]
        ours = (pss_of([sandbox.process.pid, *inits, *children_of(inits)]) - empty) / JOBS
        launched = [start_bubblewrap() for _ in range(JOBS)]
        try:
            tops = [process.pid for process in launched]
            below = children_of(tops)
            theirs = pss_of([*tops, *below, *children_of(below)]) / JOBS
        finally:
            for process in launched:
                process.kill()
                process.wait()
    print(f"joblet: {ours / 1024:.2f} MB a job with its command (launcher alone: {empty / 1024:.2f} MB)")
    print(f"ratio to bubblewrap: {ours / theirs:.2f}   (bubblewrap: {theirs / 1024:.2f} MB)")


def start_bubblewrap() -> subprocess.Popen[bytes]:
    """A bubblewrap that has got as far as its command."""
    arguments = ["bwrap", "--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev"]
    for name in peers._SYSTEM:
        link = f"/{name}"
        arguments += ["--symlink", os.readlink(link), link] if os.path.islink(link) else ["--ro-bind", link, link]
    command = ["/bin/sh", "-c", "echo up; exec /bin/sleep 600"]
    process = subprocess.Popen([*arguments, *command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def children_of(pids: list[int]) -> list[int]:
    found: list[int] = []
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


def pss_of(pids: list[int]) -> int:
    """KiB, proportional set size, proc_pid_smaps(5)."""
    total = 0
    for pid in pids:
        match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), flags=re.MULTILINE)
        assert match is not None
        total += int(match[1])
    return total

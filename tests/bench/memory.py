"""Memory of one running idle job, PSS: what its processes beside the command cost, in Joblet, bubblewrap and runc.

The command, ``sleep``, is the same for all and does not count. What we share among jobs (the interpreter's pages in the
launcher) is spread over them, as PSS does.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.bench import peers
from tests.bench.peers import Runc
from tests.bench.sandbox import Sandbox

JOBS = 50
RUNC_JOBS = 10
SLEEP = ["/bin/sleep", "600"]


def main() -> None:
    with Sandbox() as sandbox:
        empty = pss_of([sandbox.process.pid])
        started = [sandbox.start(SLEEP) for _ in range(JOBS)]
        for _, _, status in started:
            os.read(status, 256)
        inits = [pid for _, pid, _ in started]
        ours = (pss_of([sandbox.process.pid, *inits]) - empty) / JOBS
        launched = [start_bubblewrap() for _ in range(JOBS)]
        try:
            tops = [process.pid for process in launched]
            theirs = pss_of([*tops, *children_of(tops)]) / JOBS  # one waits outside, one is pid 1 inside
        finally:
            for process in launched:
                process.kill()
                process.wait()
    runc = runc_alone()
    print(f"joblet: {ours / 1024:.2f} MB a job (budget: 1 MB; launcher with a spare: {empty / 1024:.2f} MB)")
    print(
        f"ratio to bubblewrap: {ours / theirs:.2f}   (bubblewrap: {theirs / 1024:.2f} MB, keeps neither log nor record)"
    )
    print(f"ratio to runc: {ours / runc:.2f}   (runc: {runc / 1024:.2f} MB, which waits for its job)")


def runc_alone() -> float:
    """PSS of a ``runc run`` without its command, which is its grandchild or child."""
    with Runc() as runc:
        started = [runc.start(["/bin/sh", "-c", "echo up; exec /bin/sleep 600"]) for _ in range(RUNC_JOBS)]
        try:
            return pss_of([process.pid for process in started]) / RUNC_JOBS
        finally:
            for number, process in enumerate(started, 1):
                runc.kill(number)
                process.wait()


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

"""System calls of a launch, from the request to the last of the init, counted by strace.

Counted is what each process does in its life: the launcher between two requests; the init, the process that sets up, and the one
that becomes the command from their birth on, since they are born before there is work. Rehearsals are left out, as they are in
any process that has crash points: whether one happens depends on how long there is nothing to do. Nor do calls count that only
tell how long somebody waited, or how memory was handed out, and nothing of the program that is executed.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from joblet.crash_points import VARIABLE
from tests.integration.host import eventually
from tests.integration.processes import children
from tests.integration.sandbox_attempts import sandboxes
from tests.timing import PATIENCE

LAUNCHES = 7
# How late it is and how long somebody waited, and what the allocator does.
UNCOUNTED = frozenset(
    {
        *("clock_gettime", "poll", "ppoll", "futex", "restart_syscall", "rt_sigreturn", "wait4", "sched_yield"),
        *("mmap", "munmap", "mprotect", "mremap", "madvise", "brk"),
    }
)
_CALL = re.compile(r"(?:\d+ )?([a-z]\w*)\(")
_EXECUTED = re.compile(r"execve\(.*\) = 0")
_NO_POINT = re.compile(r"unlinkat\(.* = -1 ENOENT")
_RELEASES = re.compile(r'write\(\d+, "exec ')
_REQUEST = re.compile(r'recvmsg\(.*iov_base="request"')


def calls_per_launch(**changes: Any) -> tuple[str, Mapping[str, int]]:
    """This host's kind of hierarchy, and calls by ``<who> <system call>``. changes: of the launch spec, for all launches."""
    with tempfile.TemporaryDirectory() as directory:
        points = Path(directory, "points")
        points.mkdir()
        with sandboxes(environment={VARIABLE: str(points)}) as box:
            assert box.process is not None
            launcher = box.process.pid
            (nursery,) = children(launcher)  # whose children the inits are
            with traced([launcher, nursery], Path(directory)):
                for _ in range(LAUNCHES):
                    before = children(nursery)
                    attempt = box.run(["/bin/true"], **changes)
                    assert attempt.record()["outcome"] == {"type": "exited", "code": 0}, attempt.record()
                    eventually(partial(another_child, nursery, before), what="the next spare")
                box.stop_launcher()
        lives = {int(path.suffix[1:]): path.read_text().splitlines() for path in Path(directory).glob("trace.*")}
    return box.hierarchy.mode.value, dict(_per_launch(lives, launcher, nursery, str(points)))


@contextmanager
def traced(pids: Iterable[int], directory: Path, *options: str) -> Iterator[None]:
    """Meanwhile these processes, with the children that they get, write a file there for each thread."""
    which = [f"--attach={pid}" for pid in pids]
    command = ["strace", "-ff", "-s", "64", *options, "-o", str(directory / "trace"), *which]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    with tracer.stderr:
        try:
            for _ in which:
                assert "attached" in (said := tracer.stderr.readline()), said
            yield
        finally:
            tracer.terminate()
            tracer.wait(30 * PATIENCE)


def another_child(pid: int, before: list[int]) -> bool:
    return bool(set(children(pid)) - set(before))


def _per_launch(lives: Mapping[int, list[str]], launcher: int, nursery: int, points: str) -> Iterator[tuple[str, int]]:
    """The least over all launches but the first, whose init was there before the tracer, as perhaps was the wait for it: where
    somebody had to wait on a busy machine, there are more."""
    requests = [place for place, line in enumerate(lives[launcher]) if _REQUEST.match(line)]
    others = [lines for pid, lines in lives.items() if pid not in (launcher, nursery)]
    parts = {
        "launcher": [lives[launcher][first:last] for first, last in pairwise(requests)],
        "set-up": [
            lines for lines in others if any(_RELEASES.match(line) for line in lines)
        ],  # not that of the last spare
        "init": [lines for lines in others if any("exit.json" in line for line in lines)],
        "command": [until_executed(lines) for lines in others if any(_EXECUTED.match(line) for line in lines)],
    }
    for who, courses in parts.items():
        assert len(courses) >= LAUNCHES - 2, (who, len(courses))
        counts = [_calls(lines, points) for lines in courses]
        for name in sorted({name for count in counts for name in count}):
            yield f"{who} {name}", min(count[name] for count in counts)


def until_executed(lines: list[str]) -> list[str]:
    executed = next(place for place, line in enumerate(lines) if _EXECUTED.match(line))
    return lines[: executed + 1]


def _calls(lines: list[str], points: str) -> Counter[str]:
    """Crash points look for a file each, and as none is armed they find none."""
    mine = (line for line in lines if points not in line and not _NO_POINT.match(line))
    names = (match[1] for line in mine if (match := _CALL.match(line)))
    return Counter(name for name in names if name not in UNCOUNTED)

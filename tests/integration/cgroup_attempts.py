"""Attempts without a daemon, for the cgroup tests: plans carried out as the launcher does, plain processes in real cgroups."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from joblet.cgroup import CgroupLimits, Hierarchy, Mode, open_hierarchy
from joblet.cgroup.detect import mounted
from joblet.cgroup.v1 import V1Hierarchy
from joblet.sandbox.launcher import make_cgroups

PATIENCE = float(os.environ.get("JOBLET_TEST_PATIENCE", "1"))


def modes_here() -> list[Mode]:
    """The host's own mode; where the v1 trees are mounted also pure v1, which only leaves the v2 tree beside them alone."""
    v1, v2 = mounted()
    own = open_hierarchy("/sys/fs/cgroup/joblet-test-none.slice").mode
    return [own, *([Mode.V1] if v1 and v2 and own is Mode.HYBRID else [])]


def hierarchy_of(mode: Mode, base: str = f"/sys/fs/cgroup/joblet-test-{os.getpid()}.slice/joblet.service") -> Hierarchy:
    """Nothing is made yet."""
    hierarchy = open_hierarchy(base)
    return hierarchy if hierarchy.mode is mode else V1Hierarchy(base, mounted()[0], None)


def until(look: Callable[[], bool], *, within: float, what: str) -> None:
    """Look until it is so: for kernel state that sends no event."""
    deadline = time.monotonic() + within * PATIENCE
    while not look():
        assert time.monotonic() < deadline, f"not within {within * PATIENCE:g} s: {what}"
        time.sleep(0.005)


@dataclass
class Attempts:
    """Starts processes in planned cgroups."""

    hierarchy: Hierarchy
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, attempt_id: str, limits: CgroupLimits, script: str) -> subprocess.Popen[str]:
        """Make the cgroup as planned, and run a shell script in it."""
        plan = self.hierarchy.plan(attempt_id, limits)
        make_cgroups(dict(plan), {}, [])
        process = subprocess.Popen(
            ["sh", "-c", 'read go; exec sh -c "$1"', "sh", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        into = [f"{plan['command_into']}/cgroup.procs"] if plan["command_into"] else []
        for path in (*into, *plan["join"]):
            with open(path, "w") as file:
                file.write(str(process.pid))
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
        return process


@contextmanager
def prepared(mode: Mode) -> Iterator[Attempts]:
    """A prepared hierarchy in a base of this test's own; all of it is gone afterwards."""
    attempts = Attempts(hierarchy_of(mode))
    hierarchy = attempts.hierarchy
    try:
        hierarchy.prepare()
        yield attempts
    finally:
        for attempt_id in hierarchy.list_attempts():
            hierarchy.kill(attempt_id)
        for process in attempts.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=10 * PATIENCE)
            if process.stdout is not None:
                process.stdout.close()
        for attempt_id in hierarchy.list_attempts():
            hierarchy.remove(attempt_id)
        hierarchy.remove_base()
        assert not [base for base in hierarchy.bases if os.path.exists(os.path.dirname(base))]

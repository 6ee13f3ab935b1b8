"""Kills daemon, launcher and inits at random moments, and notes whose init it was: only such an attempt may be lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.host import Host, cgroup_directories
from tests.integration.processes import children, command_name
from tests.timing import PATIENCE

STARTED_WITHIN_SECONDS = 60.0
STOPPED_WITHIN_SECONDS = 30.0
INITS_AT_ONCE = 3


@dataclass
class Killer:
    """Of one host. victims: attempts whose init was killed once its command may have run."""

    host: Host
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    victims: set[str] = field(default_factory=set)

    def strike(self) -> None:
        """Kill one thing, or several; the daemon is there again afterwards."""
        what = self.rng.choices(("daemon", "launcher", "init", "all"), (30, 30, 35, 5))[0]
        match what:
            case "daemon":
                self.kill_daemon()
            case "launcher":
                self.kill_launcher()
            case "init":
                self.kill_inits(self.rng.randint(1, INITS_AT_ONCE))
            case _:
                self.kill_inits(1000)
                self.kill_launcher()
                self.kill_daemon()

    def kill_daemon(self) -> None:
        """Kill it, sometimes its successor too while that starts; then start one that may live."""
        self.end_daemon("daemon")
        for _ in range(self.rng.choice((0, 0, 1, 1, 2))):
            self.host.spawn()
            time.sleep(self.rng.uniform(0, 1.2))  # the moment at which it dies: any
            self.end_daemon("starting daemon")
        if self.rng.random() < 0.3:
            self.kill_inits(1)  # while nobody looks
        self.host.start(within=STARTED_WITHIN_SECONDS)

    def end_daemon(self, what: str) -> None:
        assert self.host.daemon is not None
        status = self.host.daemon.poll()
        assert status is None, f"the daemon ended by itself, with status {status}\n{self.host.log_tail()}"
        self.host.kill()
        self.counts[what] += 1

    def kill_launcher(self) -> None:
        assert self.host.daemon is not None
        for child in children(self.host.daemon.pid):
            if command_name(child) == "joblet-launch":
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                    self.counts["launcher"] += 1

    def kill_inits(self, count: int) -> None:
        pids = inits(self.host)
        for pid in self.rng.sample(pids, min(count, len(pids))):
            self.kill_init(pid)

    def kill_init(self, pid: int) -> None:
        """Stopped first: so what is said of it does not change between our look and its death."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if not is_init(pid):
                return
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            wait_until_stopped(pid)
            stop_children(pid)
            if attempt := attempt_of(self.host, pid):
                self.victims.add(attempt)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self.counts["init" if attempt else "init before its command"] += 1
        except ProcessLookupError:
            return  # it ended before
        finally:
            os.close(pidfd)


def inits(host: Host) -> list[int]:
    """The living inits, spares among them, in a fixed order."""
    pids: set[int] = set()
    for base in cgroup_directories(host.cgroup_base):
        with suppress(OSError):
            pids.update(map(int, (base / "inits/cgroup.procs").read_text().split()))
    return sorted(pids)


def is_init(pid: int) -> bool:
    """Whether it is the first process of a pid namespace, not one that an init needs for a moment while it gets ready."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines())


def stop_children(init: int) -> None:
    """Of an init that is stopped: one of them sets the sandbox up, says that the command may run, and lets it. Their pids stay
    theirs as long as the init does not wait for them."""
    for pid in children(init):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            wait_until_stopped(pid)


def wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + STOPPED_WITHIN_SECONDS * PATIENCE
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state in "TtZX":
            return
        time.sleep(0.001)
    raise AssertionError(f"process {pid} does not stop")


def attempt_of(host: Host, pid: int) -> str:
    """The attempt whose init has that pid, as is said of it from before its command's exec on; empty: none."""
    for path in (host.root / "state/attempts").glob("*/state"):
        with suppress(OSError):
            words = path.read_text(errors="replace").split()
            if words[:2] == ["exec", str(pid)]:
                return path.parent.name
    return ""

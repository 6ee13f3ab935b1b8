"""Where the attacks take place: a Joblet host with a victim job on it, and things of the host's that an attack is after."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from joblet.api.v1 import job_pb2
from tests.hostile.attack import Attack
from tests.integration.host import FINAL, Host, cgroup_directories, eventually, job_host
from tests.integration.processes import launcher_of
from tests.leaks import SESSION
from tests.timing import PATIENCE

VICTIM = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {name: victim}
    spec:
      script: |
        #!/bin/sh
        echo untouched >/work/canary
        i=0
        while read -r line </work/canary; do
          echo "$i $line"
          i=$((i + 1))
          sleep 0.1
        done
      limits: {memory: 16Mi, pids: 4, logs: 4Mi}
      stop: {grace: 0s}
"""
UNTOUCHED = "untouched on the host\n"
FIRST_USER_ID = 0x7000_0000  # of jobs; jobletd.executor.local.settings
SETTINGS = ("kernel/core_pattern", "kernel/hostname", "kernel/domainname", "kernel/modprobe", "kernel/sysrq")


@dataclass(frozen=True, eq=False)
class Clock:
    """The host's, in seconds after its boot's. Equal as far as nobody has set it: it is read in two steps, and drifts."""

    seconds: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clock) and abs(self.seconds - other.seconds) < 1

    def __hash__(self) -> int:
        return 0


@dataclass
class Street:
    """host: the daemon with its root. outside: a directory of the host's that everybody may write to."""

    host: Host
    outside: Path
    stack: ExitStack
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    listeners: dict[str, socket.socket] = field(default_factory=dict)

    def furnish(self) -> None:
        """Canaries, a secret, listeners."""
        self.outside.mkdir(mode=0o777)
        self.outside.chmod(0o777)
        for name, text, mode in (("canary", UNTOUCHED, 0o666), ("secret-of-the-host", self.secret, 0o644)):
            (self.outside / name).write_text(text)
            (self.outside / name).chmod(mode)
        for name, family, address in (
            ("TCP", socket.AF_INET, ("127.0.0.1", 0)),
            ("TCP6", socket.AF_INET6, ("::1", 0)),
            ("ABSTRACT", socket.AF_UNIX, f"\0{self.outside.parent.name}"),
            ("SOCKET", socket.AF_UNIX, str(self.outside / "socket")),
        ):
            listener = self.stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.bind(address)
            listener.listen()
            listener.setblocking(False)
            self.listeners[name] = listener

    @property
    def targets(self) -> dict[str, str]:
        """The environment of attacks: where on the host the things are that they are after."""
        names = {name: listener.getsockname() for name, listener in self.listeners.items()}
        return {
            **{"ROOT": str(self.host.root), "DIRECTORY": str(self.outside)},
            **{"CANARY": str(self.outside / "canary"), "SECRET": str(self.outside / "secret-of-the-host")},
            **{"TCP": str(names["TCP"][1]), "TCP6": str(names["TCP6"][1]), "SOCKET": names["SOCKET"]},
            "ABSTRACT": names["ABSTRACT"].decode().removeprefix("\0"),
            "GRPC": (self.host.root / "run/port").read_text().strip(),
            "GRPC_SOCKET": str(self.host.root / "run/joblet.sock"),
            "PIDS": " ".join(map(str, (self.daemon_pid, launcher_of(self.daemon_pid), os.getpid()))),
        }

    @property
    def daemon_pid(self) -> int:
        assert self.host.daemon is not None
        return self.host.daemon.pid

    def attack(self, attack: Attack, *, longer: int = 1) -> None:
        """Apply it, and wait until it goes on or is over. longer: so many times its own time."""
        text = attack.manifest(self.targets, longer=longer)
        (result,) = self.host.apply(text, filename=attack.path.name)
        self.host.reaches(result, "RUNNING", *FINAL)

    # --- the victim ---------------------------------------------------------------------------------------------------

    def entries(self, job: str) -> list[job_pb2.LogEntry]:
        batches = self.host.jobs.Logs(job_pb2.LogsRequest(ref=job), timeout=60 * PATIENCE)
        return [entry for batch in batches for entry in batch.entries]

    def beats(self) -> list[job_pb2.LogEntry]:
        """What the victim wrote: a numbered line ten times a second, with what its canary says."""
        return self.entries("victim")

    def victim_is_well(self) -> None:
        """It goes on from here, has missed no beat, and found its canary as it left it."""
        before = len(self.beats())
        eventually(lambda: len(self.beats()) > before + 1, what="the victim's next beats")
        lines = [entry.data.decode() for entry in self.beats()]
        assert lines == [f"{number} untouched\n" for number in range(len(lines))]
        assert len(self.host.run("victim").attempts) == 1

    def longest_silence_seconds(self, since_ns: int) -> float:
        """Between two beats of the victim, from that moment on."""
        times = [entry.time_ns for entry in self.beats()]
        pauses = [after - before for before, after in pairwise(times) if after > since_ns]
        return max(pauses) / 1e9

    # --- the host -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, object]:
        """What no attack may change."""
        settings = {name: Path(f"/proc/sys/{name}") for name in SETTINGS}
        stats = {
            path: os.stat(path)
            for path in ("/bin/sh", "/usr/bin/env", os.path.realpath("/usr/bin/python3"), "/etc/passwd")
        }
        return {
            **{name: path.read_text() for name, path in settings.items() if path.exists()},
            **{path: (stat.st_ino, stat.st_size, stat.st_mode, stat.st_mtime_ns) for path, stat in stats.items()},
            "clock": Clock(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)),
            "mounts": sorted(filter(is_not_of_other_sessions, mount_points())),
            "outside": {path.name: path.read_text() for path in self.outside.iterdir() if path.is_file()},
            "names outside": sorted(os.listdir(self.outside)),
            "daemon": (self.daemon_pid, launcher_of(self.daemon_pid)),
        }

    def is_as_before(self, state: dict[str, object], *, without: str) -> None:
        """state: of before. without: a job that is over, and of which nothing may be left."""
        eventually(lambda: not self.left_of(without), what=f"nothing is left of {without}")
        assert self.strangers() == []
        assert self.state() == state

    def strangers(self) -> list[str]:
        """Connections that reached a listener of ours."""
        reached = []
        for name, listener in self.listeners.items():
            try:
                listener.accept()[0].close()
                reached.append(name)
            except BlockingIOError:
                pass
        return reached

    def processes_of(self, job: str) -> list[str]:
        """Processes in a cgroup of that job, and those with a job's user id in no cgroup of any Joblet."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                cgroups = (entry / "cgroup").read_text()
                uid = entry.stat().st_uid
                title = (entry / "comm").read_text().strip()
            except OSError:
                continue  # it has just ended
            ours = self.host.root.name in cgroups and f"/job-{job}-" in cgroups
            if ours or (uid >= FIRST_USER_ID and uid < 1 << 31 and "joblet" not in cgroups):
                found.append(f"{entry.name} {title} {uid}")
        return found

    def left_of(self, job: str) -> list[str]:
        """Processes, cgroups, workspaces of a job that is over."""
        cgroups = [path for base in cgroup_directories(self.host.cgroup_base) for path in base.glob(f"job-{job}-*")]
        workspaces = (self.host.root / "state/work").glob(f"{job}-*")
        paths = [str(path) for path in (*cgroups, *workspaces)]
        return [*self.processes_of(job), *paths]


def mount_points() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def is_not_of_other_sessions(path: str) -> bool:
    """Tests of another session on the same machine mount, too."""
    return "joblet-" not in path or SESSION in path


@contextmanager
def street(configure: Callable[[dict[str, Any]], None] | None = None) -> Iterator[Street]:
    with ExitStack() as stack:
        host = stack.enter_context(job_host(configure=configure))
        made = Street(host, host.root.parent / "outside", stack)
        made.furnish()
        host.apply(VICTIM)
        host.running("victim")
        yield made

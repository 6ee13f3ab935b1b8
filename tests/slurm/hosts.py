"""Hosts made of namespaces on a private bridge: each its own first process, hostname, /run, /opt, address and cgroups.

All that is left when they end, or when we are killed, is taken away by a janitor; see ``janitor.sh``. Nothing that they send
leaves the bridge, which lies in a network namespace that has no other way out.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from joblet.cgroup.detect import mounted
from joblet.cgroup.hierarchy import ROOT
from tests.leaks import SESSION
from tests.timing import PATIENCE

HERE = Path(__file__).parent
NETWORK = "10.88.0"
NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--cgroup", "--pid")
STARTED_WITHIN_SECONDS = 60.0


@dataclass
class Host:
    """One of them. process: the ``unshare`` whose child is the host's first process; None: it has no power."""

    name: str
    address: str
    disk: Path
    cgroups: Mapping[str, str]  # where its cgroups lie, and where it sees them
    process: subprocess.Popen[str] | None = None
    pid: int = 0

    def within(self) -> tuple[str, ...]:
        """What a command is started by, to run on it: into its cgroups first, then into its namespaces."""
        assert self.pid, f"{self.name} is off"
        doors = " ".join(shlex.quote(f"{cgroup}/{_door(cgroup)}") for cgroup in self.cgroups)
        enter = f'for door in {doors}; do echo 0 >"$door"; done; exec nsenter -t {self.pid} -n -u -i -m -p -C -- "$@"'
        return ("/bin/sh", "-c", enter, "sh")

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 30,
        environment: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on it to its end. timeout: seconds on a fast machine."""
        done = subprocess.run(
            [*self.within(), *argv],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout * PATIENCE,
            env={**os.environ, **(environment or {})},
            cwd="/",
        )
        if check and done.returncode:
            raise AssertionError(
                f"{self.name}: {shlex.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def cut_power(self) -> None:
        """Its first process is killed, and with it all others, in an instant."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid or self.process.pid, signal.SIGKILL)
        self.process.wait(STARTED_WITHIN_SECONDS * PATIENCE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process, self.pid = None, 0


@dataclass
class Daemon:
    """A process that goes on, on a host. process: the ``nsenter`` that waits for it. log: its output."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Of itself, as we see it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def end(self, number: signal.Signals) -> int:
        """Signal it and see its end; its exit status."""
        if self.process.poll() is None:
            os.kill(self.pid, number)
        return self.process.wait(STARTED_WITHIN_SECONDS * PATIENCE)


@dataclass
class Site:
    """A bridge and the hosts on it. names: of the hosts, which get the addresses from .10 on."""

    names: Sequence[str]
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix=f"{SESSION}-site-")))
    hosts: dict[str, Host] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.chmod(0o755)
        self._trees = cgroup_trees()
        group = self.directory.name
        self._groups = {tree: f"{tree}/{group}" for tree in self._trees}
        self._janitor = subprocess.Popen(
            [HERE / "janitor.sh", self.directory, *self._groups.values()],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._switch = subprocess.Popen(
            [*_mortal(), "unshare", "--net", "sh", "-c", "echo made; exec sleep infinity"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._switch.stdout is not None
        self._switch.stdout.readline()
        self._ip(["link add br0 type bridge", "link set br0 up", "link set lo up"])
        etc_hosts = ["127.0.0.1 localhost"]
        for number, name in enumerate(self.names):
            address = f"{NETWORK}.{10 + number}"
            etc_hosts.append(f"{address} {name}")
            cgroups = {f"{group}/{name}": tree for tree, group in self._groups.items()}
            self.hosts[name] = Host(name, address, self.directory / name, cgroups)
        for host in self.hosts.values():
            (host.disk / "etc").mkdir(parents=True)
            (host.disk / "etc/hosts").write_text("".join(f"{line}\n" for line in etc_hosts))

    def start(self, *names: str) -> None:
        """Switch on these hosts, all at the same time."""
        hosts = [self.hosts[name] for name in names]
        for host in hosts:
            self._make_cgroups(host)
            (host.disk / "boot_id").write_text(f"{uuid.uuid4()}\n")
            host.process = self._spawn(host)
        for host in hosts:
            _expect(host, "namespaces")
            assert host.process is not None
            children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children").read_text()
            host.pid = int(children.split()[0])
            for cgroup, tree in host.cgroups.items():
                if (
                    tree == ROOT
                ):  # v2: only a cgroup without processes shares its controllers out, and this one is not the host's
                    leaf = Path(os.path.dirname(cgroup), "powers")
                    leaf.mkdir(exist_ok=True)
                    (leaf / "cgroup.procs").write_text(str(host.process.pid))
        self._ip([f"link add v{host.name} type veth peer name eth0 netns {host.pid}" for host in hosts])
        self._ip([f"link set v{host.name} master br0 up" for host in hosts])
        for host in hosts:
            assert host.process is not None and host.process.stdin is not None
            host.process.stdin.write("plugged in\n")
            host.process.stdin.flush()
        for host in hosts:
            _expect(host, "up")

    def plug(self, name: str, *, into_bridge: bool) -> None:
        """Whether what the host sends arrives anywhere."""
        self._ip([f"link set v{name} {'up' if into_bridge else 'down'}"])

    def close(self) -> None:
        for host in self.hosts.values():
            host.cut_power()
        self._switch.kill()
        self._switch.wait()
        assert self._switch.stdout is not None and self._janitor.stdin is not None
        self._switch.stdout.close()
        self._janitor.stdin.close()
        self._janitor.wait()

    def _spawn(self, host: Host) -> subprocess.Popen[str]:
        doors = " ".join(shlex.quote(f"{cgroup}/{_door(cgroup)}") for cgroup in host.cgroups)
        enter = f'for door in {doors}; do echo 0 >"$door"; done; exec "$@"'
        binds = [f"{cgroup}={tree}" for cgroup, tree in host.cgroups.items()]
        return subprocess.Popen(
            [
                *("/bin/sh", "-c", enter, "sh", *_mortal()),
                *("unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc"),
                *(str(HERE / "host_init.sh"), host.name, host.address, str(host.disk), *binds),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.directory / f"{host.name}.log").open("a"),
            text=True,
            start_new_session=True,
        )

    def _make_cgroups(self, host: Host) -> None:
        """New ones: after a power cut nothing is left of those that were there."""
        for cgroup, tree in host.cgroups.items():
            if os.path.isdir(cgroup):
                for path, _, _ in os.walk(cgroup, topdown=False):
                    os.rmdir(path)
            group = os.path.dirname(cgroup)
            for parent, path in ((tree, group), (group, cgroup)):
                os.makedirs(path, exist_ok=True)
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if os.path.exists(f"{parent}/cpuset.mem_hardwall"):  # v1, where a new one is empty
                        Path(path, name).write_text(Path(parent, name).read_text())
                if tree == ROOT:  # v2, which has one tree for all
                    controllers = Path(parent, "cgroup.controllers").read_text().split()
                    for name in controllers:
                        Path(parent, "cgroup.subtree_control").write_text(f"+{name}")

    def _ip(self, lines: Sequence[str]) -> None:
        """In the namespace of the bridge."""
        subprocess.run(
            ["nsenter", "-t", str(self._switch.pid), "-n", "--", "ip", "-batch", "-"],
            input="".join(f"{line}\n" for line in lines),
            text=True,
            check=True,
        )


def cgroup_trees() -> list[str]:
    """The mount points of all cgroup hierarchies here, those of v1 and of v2."""
    v1, v2 = mounted()
    return [*dict.fromkeys(v1.values()), *([v2] if v2 else [])]


def _door(cgroup: str) -> str:
    """By which a process of one thread gets in; v1's ``tasks`` costs no grace period of RCU. For v2 see ``host_init.sh``."""
    if os.path.exists(f"{os.path.dirname(os.path.dirname(cgroup))}/tasks"):
        return "tasks"
    leaf = "init.scope/cgroup.procs"
    return leaf if os.path.exists(f"{cgroup}/{leaf}") else "cgroup.procs"


def _mortal() -> tuple[str, ...]:
    """Killed when we are."""
    setpriv = shutil.which("setpriv")
    assert setpriv
    return (setpriv, "--pdeathsig", "KILL")


def _expect(host: Host, word: str) -> None:
    assert host.process is not None and host.process.stdout is not None
    line = host.process.stdout.readline()
    if line != f"{word}\n":
        log = host.disk.parent / f"{host.name}.log"
        raise AssertionError(f"{host.name} does not start: {line!r}\n{log.read_text()}")

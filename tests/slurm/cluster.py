"""A Slurm cluster for tests: real munge, slurmctld, slurmd and slurmrestd, each node a host made of namespaces.

    with Cluster(nodes=3) as cluster:
        job = cluster.sbatch("#!/bin/sh\nhostname\n")
        cluster.cut_off("n2"); cluster.kill("n3"); cluster.start("n3")

The controller is ``ctl``, the nodes are ``n1`` and so on. Files of the machine are seen on all hosts, but /etc/slurm, /etc/munge,
/var/log, /var/spool, /run and /opt/joblet are each host's own. Processes are ended by their pid.
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.slurm.configuration import JWT_KEY, REST_PORT, cgroup_conf, slurm_conf
from tests.slurm.hosts import Daemon, Site
from tests.timing import PATIENCE

CONTROLLER = "ctl"
UP_WITHIN_SECONDS = 60.0
LOOK_SECONDS = 0.02
LOG_CHARACTERS = 3000
NOBODY = "65534"
REST_SOCKET = "/run/rest/slurmrestd.sock"
_REST = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups")


@dataclass
class Cluster:
    """nodes: how many. shared: whether there is a directory that all hosts see. cpus: of each node, as Slurm has it; more than
    the machine has turns off that Slurm binds jobs to cores. rest: whether slurmrestd runs. options: lines of slurm.conf."""

    nodes: int = 3
    shared: bool = True
    cpus: int = 2
    memory_mib: int = 1900
    rest: bool = False
    options: Sequence[str] = ()
    site: Site = field(init=False)

    # --- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.names = [f"n{number}" for number in range(1, self.nodes + 1)]
        self.site = Site([CONTROLLER, *self.names])
        try:
            self._configure()
            self.site.start(CONTROLLER, *self.names)
            self._start_daemons(CONTROLLER, *self.names)
            self.wait_until(self._all_idle, what="all nodes idle")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.site.close()

    def _configure(self) -> None:
        hosts = self.site.hosts
        munge_key, jwt_key = secrets.token_bytes(128), secrets.token_bytes(32)
        slurm = slurm_conf(
            nodes={name: hosts[name].address for name in self.names},
            controller=CONTROLLER,
            address=hosts[CONTROLLER].address,
            cpus=self.cpus,
            memory_mib=self.memory_mib,
            options=self.options,
        )
        cgroup = cgroup_conf(constrain_cores=self.cpus <= (os.cpu_count() or 1))
        for host in hosts.values():
            for directory in ("etc/slurm", "etc/munge", "var/spool/slurmctld", "var/spool/slurmd"):
                (host.disk / directory).mkdir(parents=True, exist_ok=True)
            (host.disk / "etc/slurm/slurm.conf").write_text(slurm)
            (host.disk / "etc/slurm/cgroup.conf").write_text(cgroup)
            write_key(host.disk / "etc/munge/munge.key", munge_key)
            write_key(host.disk / JWT_KEY.lstrip("/"), jwt_key)
        if self.shared:
            self.shared_path.mkdir(mode=0o700)

    def _start_daemons(self, *names: str) -> None:
        """munged first, on all of them at once."""
        running = []
        for name in names:
            daemon = "slurmctld" if name == CONTROLLER else f"slurmd -N {name}"
            script = f"mkdir -p -m 755 /run/munge /var/log/munge && munged --force --num-threads=2 && {daemon}"
            if name == CONTROLLER and self.rest:
                script += f" && mkdir -p /run/rest && chown {NOBODY} /run/rest"
            running.append((name, self._spawn(name, ["sh", "-c", script])))
        for name, process in running:
            output, _ = process.communicate(timeout=UP_WITHIN_SECONDS * PATIENCE)
            if process.returncode:
                raise AssertionError(f"{name}: its daemons do not start:\n{output}\n{self.logs()}")
        if CONTROLLER in names and self.rest:
            self._start_rest()

    def _start_rest(self) -> None:
        """As an unprivileged user: by a socket for whoever may open it, by a port for whoever has a token."""
        listed = self.run_on(CONTROLLER, [*_REST, "slurmrestd", "-s", "list"], check=False)
        found = [word for word in (listed.stdout + listed.stderr).split() if word.startswith("openapi/")]
        command = f"exec slurmrestd -s {','.join(name for name in found if 'db' not in name)}"  # we have no slurmdbd
        socket = f"cd /run/rest; {command} -a rest_auth/local unix:{REST_SOCKET}"
        port = f"export SLURM_JWT=daemon; {command} -a rest_auth/jwt {self.site.hosts[CONTROLLER].address}:{REST_PORT}"
        for number, command in enumerate((socket, port)):
            background = f"({command}) >/run/rest/{number}.log 2>&1 </dev/null &"
            self.run_on(CONTROLLER, [*_REST, "sh", "-c", background])
        sockets = f"[ -S {REST_SOCKET} ] && grep -q :{REST_PORT:04X} /proc/net/tcp"
        ready = lambda: self.run_on(CONTROLLER, ["sh", "-c", sockets], check=False).returncode == 0  # noqa: E731
        self.wait_until(ready, what="slurmrestd listens")

    # --- what is where ------------------------------------------------------------------------------------------------

    @property
    def controller(self) -> str:
        return CONTROLLER

    @property
    def environment(self) -> dict[str, str]:
        """For Slurm's commands on any host: /etc/slurm is each one's own, so there is nothing to say."""
        return {"SLURM_CONF": "/etc/slurm/slurm.conf"}

    @property
    def shared_path(self) -> Path:
        return self.site.directory / "shared"

    @property
    def shared_directory(self) -> str | None:
        """The same path on all hosts and here."""
        return str(self.shared_path) if self.shared else None

    @property
    def joblet_command(self) -> list[str]:
        """How ``joblet`` is started on a node: this worktree's."""
        return [str(Path(sys.executable).with_name("joblet"))]

    def path_on(self, name: str, path: str) -> Path:
        """Where we find a file of one host's own directories (/opt/joblet, /etc/slurm, /var/log, /var/spool)."""
        return self.site.hosts[name].disk / path.lstrip("/")

    def within(self, name: str) -> tuple[str, ...]:
        """What a command is started by, to run on that host."""
        return self.site.hosts[name].within()

    # --- doing things -------------------------------------------------------------------------------------------------

    def run_on(
        self,
        name: str,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 30,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host. timeout: seconds, where nobody else uses the machine."""
        given = {**self.environment, **(environment or {})}
        return self.site.hosts[name].run(argv, check=check, timeout=timeout, stdin=stdin, environment=given)

    def daemon(self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Daemon:
        """Start a process on a host that goes on. What ``within`` gives waits for it and passes no signal on: this one does."""
        log = self.site.directory / f"{name}-{Path(argv[0]).name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [*self.within(name), *argv],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, **self.environment, **(environment or {})},
                cwd="/",
            )
        return Daemon(process, log)

    def slurm(self, *argv: str, stdin: str | None = None) -> str:
        """One of Slurm's commands on the controller; its output."""
        return self.run_on(CONTROLLER, argv, stdin=stdin).stdout.strip()

    def sbatch(self, script: str, *options: str) -> str:
        """Submit a script; the job's id."""
        return self.slurm("sbatch", "--parsable", "--chdir=/", *options, stdin=script)

    def job(self, job: str) -> dict[str, str]:
        """What scontrol says of a job, by its words: JobState, ExitCode, NodeList, Reason."""
        words = shlex.split(self.slurm("scontrol", "show", "job", "-o", job), posix=False)
        return dict(word.split("=", 1) for word in words if "=" in word)

    def node_state(self, name: str) -> str:
        """In sinfo's short form: idle, mix, alloc, down."""
        return self.slurm("sinfo", "-h", "-n", name, "-o", "%t")

    def wait_for_state(self, job: str, *states: str, within: float = 30) -> dict[str, str]:
        """Until a job is in one of these states; what scontrol says of it then."""
        last: dict[str, str] = {}

        def there() -> bool:
            last.clear()
            last.update(self.job(job))
            return last["JobState"] in states

        self.wait_until(there, within=within, what=f"job {job} in {' or '.join(states)}: {last}")
        return last

    def wait_until(self, look: Callable[[], object], *, within: float = UP_WITHIN_SECONDS, what: str = "") -> None:
        """Slurm tells nobody of its changes: there is nothing but to look."""
        deadline = time.monotonic() + within * PATIENCE
        while not look():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within * PATIENCE:g} s: {what}\n{self.logs()}")
            time.sleep(LOOK_SECONDS)

    def logs(self) -> str:
        """The ends of all logs of Slurm's daemons."""
        return "\n".join(
            f"--- {host.name} {path.name}\n{path.read_text(errors='replace')[-LOG_CHARACTERS:]}"
            for host in self.site.hosts.values()
            for path in sorted(host.disk.glob("var/log/slurm*.log"))
        )

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def cut_off(self, name: str) -> None:
        """Nobody reaches the host by network, nor it anybody; what runs on it goes on."""
        self.site.plug(name, into_bridge=False)

    def reconnect(self, name: str) -> None:
        self.site.plug(name, into_bridge=True)

    def kill(self, name: str) -> None:
        """As by a power cut."""
        self.site.hosts[name].cut_power()

    def start(self, name: str) -> None:
        """Switch a host on again: another boot id, the same disk."""
        self.site.start(name)
        self._start_daemons(name)

    def kill_slurmctld(self) -> None:
        self._end(CONTROLLER, "/run/slurmctld.pid")

    def start_slurmctld(self) -> None:
        self.run_on(CONTROLLER, ["slurmctld"])
        self.wait_until(self.answers, what="slurmctld answers")

    def kill_slurmd(self, name: str) -> None:
        """The daemon alone: the steps of jobs have processes of their own."""
        self._end(name, "/run/slurmd.pid")

    def start_slurmd(self, name: str) -> None:
        self.run_on(name, ["slurmd", "-N", name])

    def resume(self) -> None:
        """As an operator does for nodes that Slurm has drained, as after a job id that it gave twice (Duplicate jobid)."""
        for name in self.names:
            self.run_on(CONTROLLER, ["scontrol", "update", f"nodename={name}", "state=resume"], check=False)

    def answers(self) -> bool:
        """Whether slurmctld does."""
        return self.run_on(CONTROLLER, ["timeout", "2", "sinfo", "-h"], check=False).returncode == 0

    def _end(self, name: str, pid_file: str) -> None:
        """With SIGKILL, by its pid there, and see it gone."""
        wait = f"pid=$(cat {pid_file}); kill -KILL $pid; while kill -0 $pid 2>/dev/null; do sleep 0.01; done; rm -f {pid_file}"
        self.run_on(name, ["sh", "-c", wait])

    def _spawn(self, name: str, argv: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.within(name), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **self.environment},
            cwd="/",
        )

    def _all_idle(self) -> bool:
        states = self.run_on(CONTROLLER, ["timeout", "2", "sinfo", "-h", "-N", "-o", "%t"], check=False).stdout.split()
        return len(states) == self.nodes and set(states) == {"idle"}


def write_key(path: Path, key: bytes) -> None:
    path.write_bytes(key)
    path.chmod(0o600)

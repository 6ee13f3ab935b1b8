"""The peers: the same command with the same namespaces and binds, by others. Debian packages, and tests/bench/floor.c."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.integration.host import eventually

_SYSTEM = [name for name in ("usr", "bin", "sbin", "lib", "lib64") if os.path.exists(f"/{name}")]
MEMORY_BYTES = 64 << 20
PIDS = 64
PEER_SECONDS = 60.0
_said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process lives


def checked(command: list[str]) -> None:
    """Run to its end. Raises CalledProcessError with what it said; a file keeps that, as a pipe would take us a thread."""
    _said.seek(0)
    _said.truncate()
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=null, stdout=null, stderr=_said)
    wait_for(process)
    if process.returncode:
        _said.seek(0)
        raise subprocess.CalledProcessError(process.returncode, command, stderr=_said.read())


def wait_for(process: subprocess.Popen[bytes]) -> None:
    """Its end, noticed at once: wait(timeout=) looks again after ever longer sleeps. Raises TimeoutExpired."""
    pidfd = os.pidfd_open(process.pid)
    try:
        ended, _, _ = select.select([pidfd], [], [], PEER_SECONDS)
    finally:
        os.close(pidfd)
    if not ended:
        process.kill()
        process.wait()
        raise subprocess.TimeoutExpired(process.args, PEER_SECONDS)
    process.wait()


def fork_exec(command: list[str]) -> None:
    """Nothing isolated, by Python's own means."""
    checked(command)


def unshare(command: list[str]) -> None:
    """Namespaces, and no root of its own."""
    checked(["unshare", "-m", "-p", "-i", "-u", "-C", "-n", "-U", "-r", "-f", *command])


def bubblewrap(command: list[str]) -> None:
    """All namespaces and the binds that we have; it has neither limits nor an exit record."""
    checked(bubblewrap_command(command))


def bubblewrap_command(command: list[str]) -> list[str]:
    arguments = ["bwrap", "--unshare-all", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/work"]
    for name in _SYSTEM:
        arguments += ["--symlink", os.readlink(f"/{name}"), f"/{name}"] if os.path.islink(f"/{name}") else []
        arguments += ["--ro-bind", f"/{name}", f"/{name}"] if not os.path.islink(f"/{name}") else []
    return [*arguments, "--chdir", "/work", *command]


def systemd_run(command: list[str]) -> None:
    """A transient service with what namespaces and limits its properties offer; systemd has no pid namespace for one."""
    properties = [
        "PrivateNetwork=yes",
        "PrivateIPC=yes",
        "PrivateUsers=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectHostname=yes",
        "ProtectSystem=strict",
        f"MemoryMax={MEMORY_BYTES}",
        f"TasksMax={PIDS}",
        "CPUQuota=100%",
    ]
    options = [option for one in properties for option in ("-p", one)]
    checked(["systemd-run", "--quiet", "--wait", "--collect", *options, "--", *command])


class Floor:
    """tests/bench/floor.c, compiled: one process for each way and command, which waits to be asked as our launcher does."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="joblet-bench-floor-"))
        self.running: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        source = Path(__file__).with_name("floor.c")
        (self.directory / "scratch").mkdir()
        subprocess.run(["cc", "-O2", "-o", self.directory / "floor", source], check=True)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self.running.values():
            process.communicate()  # its input ends, so it does
        shutil.rmtree(self.directory)

    def run(self, way: str, command: list[str]) -> None:
        """way: fork, namespaces or sandbox. The command by its absolute path."""
        process = self.running.get((way, *command))
        if process is None:
            argv = [str(self.directory / "floor"), way, str(self.directory / "scratch"), *command]
            process = subprocess.Popen(argv, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.running[(way, *command)] = process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b".")
        if not process.stdout.read(1):
            raise RuntimeError(f"the floor's {way} ended with status {process.wait()}")


def make_root(root: Path) -> None:
    """Directories to mount on, and the host's links."""
    root.mkdir()
    for name in ("usr", "bin", "sbin", "lib", "lib64", "proc", "dev", "tmp", "work", "sys"):
        if name in _SYSTEM and os.path.islink(f"/{name}"):
            (root / name).symlink_to(os.readlink(f"/{name}"))
        else:
            (root / name).mkdir()


def system_binds() -> list[str]:
    return [f"/{name}" for name in _SYSTEM if not os.path.islink(f"/{name}")]


def remove_cgroups(name: str) -> None:
    """Those below that name in the root of each hierarchy. Who watched a container may leave a moment after it."""
    for top in (Path("/sys/fs/cgroup", name), *Path("/sys/fs/cgroup").glob(f"*/{name}")):
        if top.is_dir():
            below = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
            for directory in (*below, top):
                eventually(lambda directory=directory: _is_removed(directory), what=f"the end of {directory}")  # type: ignore[misc]


def _is_removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


class Runc:
    """``runc run``, or another program's with its options, of a bundle whose root is the same binds, with our limits."""

    def __init__(self, program: str = "runc") -> None:
        self.program = program
        self.bundle = Path(tempfile.mkdtemp(prefix=f"joblet-bench-{program}-"))
        self.parent = f"joblet-bench-{program}-{os.getpid()}"
        self.count = 0

    def __enter__(self) -> Self:
        make_root(self.bundle / "rootfs")
        try:
            checked([self.program, "spec", "--bundle", str(self.bundle)])
        except FileNotFoundError:
            return self  # which ``run`` will say again, to whoever asks what can be run
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] not in ("cgroup", "sysfs")]
        config["mounts"] += [
            {"destination": name, "source": name, "type": "bind", "options": ["bind", "ro"]} for name in system_binds()
        ]
        config["process"]["terminal"] = False
        config["process"].pop("rlimits", None)
        config["linux"].setdefault("resources", {}).update(
            {"memory": {"limit": MEMORY_BYTES}, "cpu": {"quota": 100_000, "period": 100_000}, "pids": {"limit": PIDS}}
        )
        path.write_text(json.dumps(config))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        shutil.rmtree(self.bundle)
        remove_cgroups(self.parent)

    @property
    def name(self) -> str:
        """The container that was prepared last."""
        return self.name_of(self.count)

    def name_of(self, number: int) -> str:
        return f"joblet-bench-{os.getpid()}-{number}"

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A ``runc run`` whose command has written its first line."""
        self.prepare(command)
        process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def kill(self, number: int) -> None:
        """The container that was started as that one, from 1."""
        subprocess.run([self.program, "kill", self.name_of(number), "KILL"], check=True)

    def run(self, command: list[str]) -> None:
        self.prepare(command)
        checked(self.command())

    def command(self) -> list[str]:
        return [self.program, "run", "--bundle", str(self.bundle), self.name]

    def prepare(self, command: list[str]) -> None:
        """The next one's bundle."""
        self.count += 1
        path = self.bundle / "config.json"
        if not path.exists():
            raise FileNotFoundError(2, "not installed", self.program)
        config = json.loads(path.read_text())
        config["process"]["args"] = command
        config["linux"]["cgroupsPath"] = f"/{self.parent}/{self.count}"
        path.write_text(json.dumps(config))


class Podman:
    """``podman run --rm`` by runc, of a root that is the same binds, with its state in a directory of its own."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="joblet-bench-podman-"))
        self.parent = f"joblet-bench-podman-{os.getpid()}"

    def __enter__(self) -> Self:
        make_root(self.directory / "rootfs")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        remove_cgroups(self.parent)  # first: then nobody writes there any more
        shutil.rmtree(self.directory)

    def run(self, command: list[str]) -> None:
        where = self.directory
        checked(
            [
                *("podman", "--root", f"{where}/root", "--runroot", f"{where}/run", "--tmpdir", f"{where}/tmp"),
                *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"),
                *("--runtime", "runc", "run", "--rm", "--network", "none", "--cgroup-parent", f"/{self.parent}"),
                # Its defaults are above what a container of this machine may have.
                *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
                *("--memory", str(MEMORY_BYTES), "--pids-limit", str(PIDS), "--cpus", "1", "--workdir", "/work"),
                *(option for name in system_binds() for option in ("--volume", f"{name}:{name}:ro")),
                *("--rootfs", f"{where}/rootfs", *command),
            ]
        )

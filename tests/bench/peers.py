"""The peers: the same command with the same namespaces and binds, by others. Debian packages bubblewrap and runc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_SYSTEM = [name for name in ("usr", "bin", "sbin", "lib", "lib64") if os.path.exists(f"/{name}")]


def fork_exec(command: list[str]) -> None:
    """The floor: nothing isolated."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def unshare(command: list[str]) -> None:
    """Namespaces, and no root of its own."""
    subprocess.run(
        ["unshare", "-m", "-p", "-i", "-u", "-C", "-n", "-f", *command], check=True, stdin=subprocess.DEVNULL
    )


def bubblewrap(command: list[str]) -> None:
    """All namespaces and the binds that we have; it has neither limits nor an exit record."""
    arguments = ["bwrap", "--unshare-all", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/work"]
    for name in _SYSTEM:
        arguments += ["--symlink", os.readlink(f"/{name}"), f"/{name}"] if os.path.islink(f"/{name}") else []
        arguments += ["--ro-bind", f"/{name}", f"/{name}"] if not os.path.islink(f"/{name}") else []
    subprocess.run([*arguments, "--chdir", "/work", *command], check=True, stdin=subprocess.DEVNULL)


class Runc:
    """``runc run`` of a bundle whose root is the same binds, with a memory, CPU and pids limit."""

    def __init__(self) -> None:
        self.bundle = Path(tempfile.mkdtemp(prefix="joblet-bench-runc-"))
        self.count = 0

    def __enter__(self) -> Self:
        for name in ("usr", "bin", "sbin", "lib", "lib64", "proc", "dev", "tmp", "work", "sys"):
            target = self.bundle / "rootfs" / name
            target.parent.mkdir(exist_ok=True)
            if name in _SYSTEM and os.path.islink(f"/{name}"):
                target.symlink_to(os.readlink(f"/{name}"))
            else:
                target.mkdir()
        subprocess.run(["runc", "spec"], cwd=self.bundle, check=True)
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        binds = [name for name in _SYSTEM if not os.path.islink(f"/{name}")]
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] not in ("cgroup", "sysfs")]
        config["mounts"] += [
            {"destination": f"/{name}", "source": f"/{name}", "type": "bind", "options": ["bind", "ro"]}
            for name in binds
        ]
        config["process"]["terminal"] = False
        config["linux"]["resources"].update(
            {"memory": {"limit": 64 << 20}, "cpu": {"quota": 100_000, "period": 100_000}, "pids": {"limit": 64}}
        )
        path.write_text(json.dumps(config))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        shutil.rmtree(self.bundle)
        for directory in Path("/sys/fs/cgroup").glob(f"*/joblet-bench-{os.getpid()}.slice"):
            if not any(entry.is_dir() for entry in directory.iterdir()):
                directory.rmdir()

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A ``runc run`` whose command has written its first line."""
        self.prepare(command)
        name = f"joblet-bench-{os.getpid()}-{self.count}"
        process = subprocess.Popen(
            ["runc", "run", "--bundle", self.bundle, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def kill(self, number: int) -> None:
        """The container that was started as that one, from 1."""
        subprocess.run(["runc", "kill", f"joblet-bench-{os.getpid()}-{number}", "KILL"], check=True)

    def run(self, command: list[str]) -> None:
        self.prepare(command)
        subprocess.run(
            ["runc", "run", "--bundle", self.bundle, f"joblet-bench-{os.getpid()}-{self.count}"],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def prepare(self, command: list[str]) -> None:
        """The next one's bundle."""
        self.count += 1
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["process"]["args"] = command
        config["linux"]["cgroupsPath"] = f"/joblet-bench-{os.getpid()}.slice/runc-{self.count}"
        path.write_text(json.dumps(config))

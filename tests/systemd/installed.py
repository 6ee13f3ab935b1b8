"""An installation as the tests of the unit need it: commands, units, a configuration; and the tools to look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.guest.boot import REPOSITORY
from tests.integration.host import Host, eventually
from tests.timing import PATIENCE

ROOT = Path("/opt/joblet")
DISK = Path("/tmp/opt")
SHIPPED = REPOSITORY / "systemd"
UNITS = Path("/etc/systemd/system")
UNIT = "joblet.service"
SLICE = Path("/sys/fs/cgroup/joblet.slice")
CGROUP = SLICE / UNIT
PLACES = {
    "joblet.service": UNITS / "joblet.service",
    "joblet.slice": UNITS / "joblet.slice",
    "joblet.sysusers": Path("/etc/sysusers.d/joblet.conf"),
    "joblet.tmpfiles": Path("/etc/tmpfiles.d/joblet.conf"),
    "joblet.logrotate": Path("/etc/logrotate.d/joblet"),
}

QUICK = Path("/run/systemd/system/joblet.service.d/tests.conf")  # what would take the tests longer than it need


def run(*command: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """One command, its output captured. A failure shows what it said."""
    ended = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60 * PATIENCE, check=False, **options
    )
    if check and ended.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: status {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended


class Installed(Host):
    """The installation, and the machine that it is on. The daemon is systemd's to start and to stop."""

    def install(self) -> None:
        # Not on the guest's overlay in memory, which loop devices cannot use: images of volumes lie in it.
        for directory in (DISK, ROOT):
            directory.mkdir()
        run("mount", "--bind", DISK, ROOT)
        (ROOT / "bin").mkdir()
        for name in ("joblet", "rnx"):
            (ROOT / "bin" / name).symlink_to(Path(sys.executable).parent / name)
        for name, place in PLACES.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SHIPPED / name, place)
        QUICK.parent.mkdir(parents=True)
        QUICK.write_text("[Service]\nRestartSec=100ms\nWatchdogSec=20s\n")
        run("systemd-sysusers", PLACES["joblet.sysusers"])
        self.joblet("init", "--root", ROOT)
        run("systemd-tmpfiles", "--create", "--remove", "--boot", PLACES["joblet.tmpfiles"])
        self.systemctl("daemon-reload")

    def remove(self) -> None:
        """The end of whatever the tests left; the guest itself ends soon after."""
        self.forget_daemon()
        self.systemctl("stop", UNIT)
        run("umount", "--recursive", "--lazy", ROOT)  # also from below what a failed test left
        shutil.rmtree(DISK)

    def systemctl(self, *arguments: str) -> str:
        """What it says. A failure shows the unit's journal."""
        ended = run("systemctl", *arguments, check=False)
        if ended.returncode:
            raise AssertionError(f"systemctl {' '.join(arguments)}: {ended.stderr}{self.journal()}")
        return ended.stdout.strip()

    def joblet(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(ROOT / "bin/joblet", *arguments, check=check)

    def set_key(self, section: str, key: str, value: object) -> None:
        """Change the configuration, and reload it."""
        yaml = YAML()
        content = yaml.load(self.config.read_text())
        content.setdefault(section, {})[key] = value
        with self.config.open("w") as stream:
            yaml.dump(content, stream)
        self.systemctl("reload", UNIT)

    def shown(self, name: str, unit: str = UNIT) -> str:
        """A property of the unit."""
        return self.systemctl("show", "--value", "-p", name, unit)

    @property
    def main_pid(self) -> int:
        return int(self.shown("MainPID"))

    @property
    def ready_pid(self) -> int:
        """0 while none is ready: asked in one question, between two of which the one may end and the next begin."""
        told = dict(line.split("=") for line in self.systemctl("show", "-p", "ActiveState,MainPID", UNIT).splitlines())
        return int(told["MainPID"]) if told["ActiveState"] == "active" else 0

    def journal(self, *arguments: str) -> str:
        return run("journalctl", "-u", UNIT, "--no-pager", "-n", "60", *arguments, check=False).stdout

    def log_tail(self) -> str:
        return self.journal()

    def after_the_death_of(self, pid: int) -> None:
        """Wait until a new daemon is ready."""
        self.forget_daemon()
        eventually(lambda: self.ready_pid not in (0, pid), what="the next daemon")

    def cgroups_of(self, job: str) -> list[Path]:
        return list(CGROUP.glob(f"job-{job}-*"))

    def pids_of(self, job: str) -> list[int]:
        """What runs in the job's cgroup."""
        return [int(pid) for path in self.cgroups_of(job) for pid in (path / "cgroup.procs").read_text().split()]

    def pid_of(self, job: str) -> int:
        """The one process of its command, once it runs."""
        self.running(job)
        (pid,) = self.pids_of(job)
        return pid

    def delete(self, *names: str) -> None:
        super().delete(*names)
        eventually(lambda: not any(self.cgroups_of(name) for name in names), what=f"the end of {', '.join(names)}")


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")

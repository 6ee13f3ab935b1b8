"""Which programs of this host features need that are not the kernel's own: git with what it needs, and systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from jobletd.feature import Feature

SYSTEMD = 219  # the first whose Delegate= works
SUBGROUP = 254  # the first with DelegateSubgroup=
UNIT = "joblet.service"


def git_features() -> list[Feature]:
    git, ssh, gpg = shutil.which("git"), shutil.which("ssh"), shutil.which("gpg")
    wrappers = shutil.which("setpriv") and shutil.which("prlimit")
    version = ""
    if git:
        done = subprocess.run([git, "version"], capture_output=True, text=True, timeout=10)
        version = done.stdout.removeprefix("git version ").strip()
    number = re.match(r"(\d+)\.(\d+)", version)
    recent = number is not None and (int(number[1]), int(number[2])) >= (2, 34)
    detail = f"git {version}" if git else "no git"
    return [
        Feature("git", recent and bool(wrappers), detail if wrappers else f"{detail}, no setpriv and prlimit",
                cost="repositories cannot be followed (kind: GitSource)",
                mend="apt-get install git util-linux (git 2.34 or newer)"),
        Feature("git.ssh", bool(ssh), ssh or "no ssh", cost="no repositories by ssh",
                mend="apt-get install openssh-client"),
        Feature("git.openpgp", bool(gpg), gpg or "no gpg", cost="spec.signature.gpgKeys of a GitSource cannot be checked",
                mend="apt-get install gpg"),
    ]  # fmt: skip


def service_features() -> list[Feature]:
    """systemd, and whether our unit may do what it has to. Without systemd jobs run as well."""
    cost = "none for jobs; joblet serve must be started by whatever starts services here"
    command = shutil.which("systemctl") if os.path.isdir("/run/systemd/system") else None
    if command is None:
        detail = f"pid 1 is {Path('/proc/1/comm').read_text().strip()}"
        mend = "nothing to do, unless this host can boot with systemd"
        return [Feature("systemd", False, detail, cost=cost, mend=mend)]
    version = _output(command, "--version").split()[1:2]
    number = int(version[0]) if version and version[0].isdecimal() else 0
    found = Feature("systemd", number >= SYSTEMD, f"systemd {number} ({SYSTEMD} or newer is needed)",
                    cost="the unit joblet.service cannot be used", mend="upgrade the distribution")  # fmt: skip
    properties = ("LoadState", "Delegate", "DelegateControllers", "DelegateSubgroup", "KillMode")
    shown = _output(command, "show", UNIT, *(f"--property={name}" for name in properties))
    return [found, delegation(dict(line.partition("=")[::2] for line in shown.splitlines()), number)]


def delegation(unit: Mapping[str, str], systemd: int) -> Feature:
    """Whether the unit gives us its cgroup, and leaves jobs alone. unit: its properties."""
    name, cost = "systemd.delegation", "limits of jobs fail, or jobs do not outlive the daemon"
    if unit.get("LoadState") != "loaded":
        mend = f"install systemd/{UNIT} (make install, or the package), then: systemctl daemon-reload"
        return Feature(name, False, f"there is no {UNIT}", cost="joblet serve has to be started by hand", mend=mend)
    wrong = [f"{key}={unit.get(key, '')}, not {value}" for key, value in (("Delegate", "yes"), ("KillMode", "process"))
             if unit.get(key) != value]  # fmt: skip
    if systemd >= SUBGROUP and unit.get("DelegateSubgroup") != "daemon":
        wrong.append("no DelegateSubgroup=daemon")
    if wrong:
        mend = (
            f"take the shipped unit, from systemd {SUBGROUP} on with its joblet.service.d/50-delegate-subgroup.conf;"
            f" or: systemctl edit {UNIT}"
        )
        return Feature(name, False, "; ".join(wrong), cost=cost, mend=mend)
    return Feature(name, True, f"Delegate=yes: {unit.get('DelegateControllers', '')}")


def _output(*command: str) -> str:
    """Empty if there is none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""

"""``joblet doctor --executor slurm``: whether jobs can go to the cluster, what is missing, and how to mend it.

The nodes are asked by a short srun on each, all at once; a node that has nothing free is named as not looked at.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from joblet import __version__
from joblet.config.server import ServerConfig
from jobletd.executor.slurm.commands import NODE_FORMAT, PATH, parse_nodes, reason_of, slurm_environment
from jobletd.executor.slurm.node_doctor import node_daemons
from jobletd.feature import Feature

COST = "no job goes to Slurm"
SOME = "jobs that are placed there fail to start"
SKEW_SECONDS = 2.0
NODE_SECONDS = 20
AT_ONCE = 8
_FREE = ("idle", "mixed")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. status: None if it could not be run, or took too long."""

    status: int | None
    out: str
    err: str


def slurm_features(config: ServerConfig) -> Iterator[Feature]:
    """One after the other; what follows from an earlier failure is left out."""
    slurm = config.slurm
    yield Feature(
        "slurm",
        slurm.enabled,
        "slurm.enabled" if slurm.enabled else "not enabled",
        True,
        COST,
        "set slurm.enabled: true",
    )
    environment = slurm_environment(slurm.config_file)
    version = _run(["sinfo", "--version"], environment)
    found = version.out.strip() or version.err
    yield Feature("slurm commands", version.status == 0, found, True, COST, "install slurm-client (Debian's name)")
    if version.status != 0:
        return
    yield munge(environment)
    ping = _run(["scontrol", "ping"], environment)
    up = " is UP" in ping.out
    mend = "start slurmctld; is SlurmctldHost in slurm.conf right, and does its port answer?"
    yield Feature("slurmctld", up, " ".join(ping.out.split()) or ping.err, True, COST, mend)
    if slurm.shared_directory is not None:
        yield shared_directory(slurm.shared_directory)
    if not up:
        return
    yield versions(version.out, environment)
    yield cgroups(_run(["scontrol", "show", "config"], environment).out)
    yield from nodes(config, environment)


def munge(environment: Mapping[str, str]) -> Feature:
    """Whether a credential that is made here counts here."""
    ran = _run(["sh", "-c", "munge -n | unmunge"], environment)
    good = ran.status == 0 and "Success" in ran.out
    said = ran.err or next((line for line in ran.out.splitlines() if line.startswith("STATUS")), "")
    mend = "start munged with the key that all hosts of the cluster have: /etc/munge/munge.key"
    return Feature("munge", good, "credentials count" if good else said, True, COST, mend)


def shared_directory(path: str) -> Feature:
    mend = f"mount it on this host and on each node, owned by root, mode 0700: chmod 700 {shlex.quote(path)}"
    try:
        found = os.stat(path)
    except OSError as error:
        return Feature("shared directory", False, f"{path}: {error.strerror}", True, COST, mend)
    is_ours = found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and stat.S_ISDIR(found.st_mode)
    detail = path if is_ours else f"{path} is not a directory that root alone may write to"
    return Feature("shared directory", is_ours, detail, True, COST, mend)


def versions(ours: str, environment: Mapping[str, str]) -> Feature:
    """Slurm speaks to two releases back and no further; we go by what is here."""
    lines = _run(["sinfo", "--noheader", "--Node", "--format", "%N %v"], environment).out.split("\n")
    words = dict(line.split()[:2] for line in lines if len(line.split()) >= 2)
    here = ours.split()[-1] if ours.split() else ""
    other = {name: version for name, version in words.items() if version != here}
    detail = f"{here} on all nodes" if not other else f"{here} here; {_listed(other)}"
    mend = "bring all hosts to one release of Slurm"
    return Feature("slurm versions", not other, detail, False, "Slurm may refuse what comes from another release", mend)


def cgroups(settings: str) -> Feature:
    """What the sandbox on a node is put into."""
    found = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", settings, re.MULTILINE))
    wanted = {"ProctrackType": "proctrack/cgroup", "TaskPlugin": "task/cgroup"}
    wrong = [f"{name}={found.get(name)}" for name, value in wanted.items() if value not in found.get(name, "")]
    memory = found.get("ConstrainRAMSpace", "").lower()
    wrong += [] if memory in ("yes", "") else ["ConstrainRAMSpace=no"]
    detail = ", ".join(wrong) or "proctrack/cgroup, task/cgroup"
    mend = "slurm.conf: ProctrackType=proctrack/cgroup, TaskPlugin=task/cgroup; cgroup.conf: ConstrainRAMSpace=yes"
    return Feature("slurm cgroups", not wrong, detail, bool(wrong), "jobs' limits do not hold on the nodes", mend)


def nodes(config: ServerConfig, environment: Mapping[str, str]) -> Iterator[Feature]:
    """Launcher, shared directory and clock of each."""
    listed = parse_nodes(_run(["sinfo", "--noheader", "--Node", "--format", NODE_FORMAT], environment).out)
    free = [node.name for node in listed if node.state in _FREE]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(free, pool.map(lambda name: look(name, config, environment), free), strict=True))
    for node in listed:
        name = f"node {node.name}"
        if node.name in answers:
            yield answers[node.name]
        else:
            detail = f"{node.state}{f': {node.reason}' if node.reason else ''}; not looked at"
            is_busy = node.state.startswith(("alloc", "compl"))
            mend = f"scontrol update nodename={node.name} state=resume, once what ails it is mended"
            yield Feature(name, is_busy, detail, False, "no job goes there", mend)
    if config.slurm.shared_directory is None and config.slurm.node_clients is not None:
        yield from node_daemons(config.slurm.node_clients, config.slurm.node_port, listed)


def look(node: str, config: ServerConfig, environment: Mapping[str, str]) -> Feature:
    """One node, by a job of our own on it."""
    slurm = config.slurm
    launcher = shlex.join([*slurm.launcher, "--version"])
    shared = shlex.quote(slurm.shared_directory or "/")  # which is everywhere
    script = f"date +%s.%N; test -d {shared}/. && echo shared || echo none; {launcher} 2>&1 | tail -n 1"
    placed = [
        f"--{key}={value}" for key, value in (("partition", slurm.partition), ("account", slurm.account)) if value
    ]
    command = ["srun", f"--nodelist={node}", "--nodes=1", "--ntasks=1", f"--immediate={NODE_SECONDS // 2}", "--time=1"]
    command += [*placed, "--mem=64M", "--chdir=/", "--job-name=doctor", "sh", "-c", script]
    began = time.time()
    ran = _run(command, environment, NODE_SECONDS)
    ended = time.time()
    name = f"node {node}"
    lines = ran.out.splitlines()
    if ran.status != 0 or len(lines) < 3:
        mend = f"srun --nodelist={node} true tells more; see slurmd's log there"
        return Feature(name, False, ran.err or "srun got no answer", False, SOME, mend)
    return judge(name, lines, config, began, ended)


def judge(name: str, lines: Sequence[str], config: ServerConfig, began: float, ended: float) -> Feature:
    """lines: its clock, whether it has the shared directory, what its launcher said. began, ended: of the look, by our clock."""
    clock = float(lines[0])
    skew = max(began - clock, clock - ended, 0.0)
    if not lines[2].startswith("joblet "):
        mend = f"install joblet there, so that {shlex.join(config.slurm.launcher)} is it, or set slurm.launcher"
        return Feature(name, False, f"the launcher does not run: {lines[2]}", False, SOME, mend)
    if lines[1] != "shared":
        mend = f"mount {config.slurm.shared_directory} there"
        return Feature(name, False, f"{config.slurm.shared_directory} is not there", False, SOME, mend)
    if skew > SKEW_SECONDS:
        cost = "munge refuses credentials, and times of runs are wrong"
        return Feature(name, False, f"its clock differs by {skew:.1f} s", False, cost, "keep clocks in step: chrony")
    version = lines[2].removeprefix("joblet ")
    if version != __version__:
        cost = "it may not know what newer manifests ask for"
        return Feature(
            name, False, f"joblet {version}, here {__version__}", False, cost, "install one release everywhere"
        )
    found = (
        ["launcher", "clock"] if config.slurm.shared_directory is None else ["launcher", "shared directory", "clock"]
    )
    return Feature(name, True, f"joblet {version}: {', '.join(found)}")


def _listed(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in sorted(found.items())[:10])


def _run(command: Sequence[str], environment: Mapping[str, str], seconds: float = 10.0) -> Ran:
    try:
        ended = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={"PATH": PATH, "LC_ALL": "C", **environment},
            timeout=seconds,
            check=False,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        return Ran(None, "", f"no answer within {seconds:g} s")
    except OSError as error:
        return Ran(None, "", f"{error.filename}: {error.strerror}")
    return Ran(ended.returncode, ended.stdout, reason_of(ended.stderr))

"""A Joblet daemon on a cluster's controller, which hands its jobs to Slurm; and the throw-away cluster below it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.integration.host import BIN, Host, change_yaml, job_host
from tests.slurm.attempts import ROOT, init_nodes
from tests.slurm.cluster import Cluster
from tests.timing import PATIENCE


@contextmanager
def slurm_host(
    cluster: Cluster,
    environment: dict[str, str] | None = None,
    *,
    isolation: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Host]:
    """environment: the daemon's. settings: keys of the configuration's section ``slurm``, over those that suit a test. isolation:
    of that one, here and on all nodes."""
    init_nodes(cluster)
    for name in cluster.names if isolation else ():
        path = cluster.path_on(name, f"{ROOT}/config/joblet-config.yml")
        change_yaml(path, lambda config: config.setdefault("isolation", {}).update(isolation))

    def configure(config: dict[str, Any]) -> None:
        config["executor"] = "slurm"
        config.setdefault("isolation", {}).update(isolation or {})
        config["slurm"] = {
            "enabled": True,
            **({"sharedDirectory": cluster.shared_directory} if cluster.shared else {}),
            "launcher": cluster.joblet_command,
            "configFile": "/etc/slurm/slurm.conf",
            "commandTimeout": f"{5 * PATIENCE:g}s",
            "shortestPoll": "200ms",
            "longestPoll": "1s",
            "recordGrace": f"{3 * PATIENCE:g}s",
            **settings,
        }

    with job_host(configure=configure, within=cluster.within(cluster.controller), environment=environment) as host:
        yield host


def let_go(job: str) -> None:
    """Make ``/work/go`` for a running job of that name, which no other job on this machine may have."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or its files are in a namespace that has
            if f"JOBLET_JOB={job}".encode() in environment.read_bytes().split(b"\0"):
                (environment.parent / "root/work/go").touch()
                return
    raise AssertionError(f"no process of {job}")


def doctor(host: Host) -> dict[str, dict[str, object]]:
    """What ``joblet doctor --executor slurm`` finds, by name."""
    command = [str(BIN / "joblet"), "doctor", "--json", "--executor", "slurm", "--config", str(host.config)]
    ended = subprocess.run(
        [*host.within, *command], capture_output=True, text=True, timeout=120 * PATIENCE, check=False
    )
    assert ended.stdout, ended.stderr
    return {one["name"]: one for one in json.loads(ended.stdout)["features"]}

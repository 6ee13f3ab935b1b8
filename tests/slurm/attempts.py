"""Attempts for ``joblet sandbox-exec``, submitted as the executor does, and what is read of them afterwards."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobletd.executor import Ended
from jobletd.executor.slurm_node.place import CLAIM, EXIT, STATE, Place
from jobletd.executor.slurm_node.records import ended_of
from jobletd.log_reader import LogReader
from tests.slurm.cluster import Cluster
from tests.timing import PATIENCE

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL")
OVERHEAD_MIB = 64
ROOT = "/opt/joblet"


@dataclass(frozen=True, slots=True)
class Submitted:
    """One attempt that was handed to Slurm. place: where we read what is told about it."""

    cluster: Cluster
    job: str
    attempt_id: str
    place: Place

    def state(self) -> dict[str, str]:
        """What Slurm says when it is over."""
        return self.cluster.wait_for_state(self.job, *FINAL, within=60)

    def exit_code(self) -> int:
        return int(self.state()["ExitCode"].partition(":")[0])

    def ended(self) -> Ended:
        """Once it is told how."""
        self.wait_for_file(EXIT)
        document = self.place.read(EXIT)
        assert document is not None
        return ended_of(document)

    def wait_until_it_runs(self) -> None:
        self.wait_for_file(STATE)

    def wait_for_output(self, text: str) -> None:
        self.cluster.wait_until(lambda: text in self.output(), within=60, what=f"{text!r} in the log")

    def wait_for_file(self, name: str) -> None:
        path = Path(self.place.directory, name)
        deadline = time.monotonic() + 60 * PATIENCE
        while not path.exists():
            assert time.monotonic() < deadline, f"no {path}\n{self.complaints()}\n{self.cluster.logs()}"
            time.sleep(0.02)

    @property
    def is_claimed(self) -> bool:
        return Path(self.place.directory, CLAIM).exists()

    def output(self) -> str:
        reader = LogReader(self.place.log.path)
        try:
            entries = []
            while batch := reader.read():
                entries += batch
            return b"".join(entry.data for entry in entries).decode()
        finally:
            reader.close()

    def complaints(self) -> str:
        """What sandbox-exec said on standard error."""
        path = self.cluster.site.directory / f"{self.job}.out"
        return path.read_text() if path.exists() else ""


def init_nodes(cluster: Cluster) -> None:
    """A configuration on each node; one for all, with a certificate that names all of them."""
    first, *others = cluster.names
    addresses = [f"--address={cluster.site.hosts[name].address}" for name in cluster.names]
    cluster.run_on(first, [*cluster.joblet_command, "init", "--root", ROOT, *addresses])
    for name in others:
        cluster.run_on(name, ["cp", "-a", f"{cluster.path_on(first, ROOT)}/.", ROOT])
        cluster.path_on(name, "/var/log/joblet").mkdir(exist_ok=True)


def request(attempt_id: str, spec: Mapping[str, Any], shared: str | None, **others: Any) -> str:
    """In base64."""
    run_id, _, number = attempt_id.rpartition("-")
    document = {
        "version": 1,
        "attempt_id": attempt_id,
        "run_id": run_id,
        "number": int(number),
        "manifest": {
            "apiVersion": "joblet/v1",
            "kind": "Job",
            "metadata": {"name": run_id.rpartition("-")[0]},
            "spec": dict(spec),
        },
        "deadline_seconds": None,
        "tick_seconds": None,
        "executor": {"shared_directory": shared, "cluster": "joblet"},
        **others,
    }
    return base64.b64encode(json.dumps(document).encode()).decode()


def submit(
    cluster: Cluster,
    attempt_id: str,
    spec: Mapping[str, Any],
    *,
    node: str = "n1",
    shared: bool = True,
    memory_mib: int = 64,
    **others: Any,
) -> Submitted:
    """memory_mib: the job's; what the allocation has beside it is added."""
    directory = cluster.shared_directory if shared else None
    text = request(attempt_id, spec, directory, **others)
    script = f"#!/bin/sh\nexec {cluster.joblet_command[0]} sandbox-exec <<'END'\n{text}\nEND\n"
    job = cluster.sbatch(
        script,
        *("--job-name", f"joblet-{attempt_id}", "--no-requeue", "--export=ALL", "-w", node),
        *(f"--mem={memory_mib + OVERHEAD_MIB}M", "-o", f"{cluster.site.directory}/%j.out"),
    )
    root = directory or os.fspath(cluster.path_on(node, f"{ROOT}/state/slurm"))
    return Submitted(cluster, job, attempt_id, Place.of(root, attempt_id))


def sweep(cluster: Cluster, node: str) -> None:
    """As Slurm's epilog does."""
    cluster.run_on(node, [*cluster.joblet_command, "sandbox-exec", "--sweep"])


def remains(cluster: Cluster, node: str) -> list[str]:
    """What is left on a node of attempts and of Slurm's jobs: cgroups, mounts, directories."""
    host = cluster.site.hosts[node]
    cgroups = [
        path
        for cgroup in host.cgroups
        for path, _, _ in os.walk(cgroup)
        if os.path.basename(path).startswith(("job", "step_", "inits"))
    ]
    mounts = Path(f"/proc/{host.pid}/mountinfo").read_text().splitlines()
    state = cluster.path_on(node, ROOT)
    directories = [*state.glob("state/slurm/live/*"), *state.glob("run/slurm/*")]
    return [
        *cgroups,
        *(line for line in mounts if line.split()[4].startswith((f"{ROOT}/state", f"{ROOT}/run"))),
        *(str(path) for path in directories if path.name != "slots"),
    ]

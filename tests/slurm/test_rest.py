"""The same by slurmrestd: with a token over TCP for a whole daemon, and by its Unix socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobletd.executor.slurm import SlurmSettings
from jobletd.executor.slurm.client import SlurmUnavailable
from jobletd.executor.slurm.rest import RestClient
from tests.integration.host import Host
from tests.slurm.cluster import REST_SOCKET, Cluster
from tests.slurm.configuration import REST_PORT
from tests.slurm.joblet_host import slurm_host


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=1, cpus=8, rest=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def token(cluster: Cluster) -> Path:
    """A file with a token for root."""
    path = cluster.site.directory / "token"
    path.touch(0o600)
    path.write_text(cluster.slurm("scontrol", "token", "username=root", "lifespan=3600"))
    return path


@pytest.fixture(scope="module")
def host(cluster: Cluster, token: Path) -> Iterator[Host]:
    address = cluster.site.hosts[cluster.controller].address
    with slurm_host(cluster, restUrl=f"http://{address}:{REST_PORT}", restTokenPath=str(token)) as host:
        yield host


def job(name: str, spec: str) -> str:
    return f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n"


def test_jobs_run_end_and_stop_by_slurmrestd(host: Host) -> None:
    host.apply(job("ends", "script: echo hello; exit 3\n  limits: {memory: 64Mi}\n  priority: 60"))
    ended = host.finished("ends", within=60)
    assert (ended.reason, ended.exit_code, ended.attempts[-1].node) == ("ExitCode", 3, "n1"), ended
    assert host.log("ends") == b"hello\n"
    host.apply(job("stops", "script: |\n    trap 'exit 4' TERM\n    while :; do sleep 0.1; done"))
    host.running("stops", within=60)
    host.rnx("stop", "stops")
    stopped = host.finished("stops", within=60)
    assert (stopped.phase, stopped.exit_code) == ("STOPPED", 4), stopped
    host.apply(job("forced", "script: |\n    trap '' TERM\n    while :; do sleep 0.1; done\n  stop: {grace: 10m}"))
    host.running("forced", within=60)
    host.rnx("stop", "--force", "forced")
    assert host.finished("forced", within=60).phase == "STOPPED"
    nodes = [one for one in json.loads(host.rnx("get", "nodes", "-o", "json").stdout) if one["executor"] == "slurm"]
    assert [(one["name"], one["partitions"], one["cpus"]) for one in nodes] == [("n1", ["main"], 8)]


def test_what_slurmrestd_refuses_for_good_fails(host: Host) -> None:
    host.apply(job("nowhere", "command: ['true']\n  slurm: {partition: nowhere}"))
    run = host.finished("nowhere", within=60)
    assert (run.phase, run.reason) == ("FAILED", "StartError") and "partition" in run.message.lower()


def test_a_token_that_does_not_count_is_told_and_mended_without_a_restart(host: Host, token: Path) -> None:
    good = token.read_text()
    token.write_text("SLURM_JWT=wrong")
    try:
        host.apply(job("waits", "command: ['true']"))
        run = host.watch_until("waits", lambda run: "slurm.restTokenPath" in run.message, within=30)
        assert run.phase == "INITIALIZING" and "slurm away" in host.rnx("nodes").out
    finally:
        token.write_text(good)
    assert host.finished("waits", within=60).phase == "COMPLETED"


def test_its_socket_needs_no_token(cluster: Cluster) -> None:
    script = f"""
from jobletd.executor.slurm import SlurmSettings
from jobletd.executor.slurm.rest import RestClient
client = RestClient(SlurmSettings("/nowhere", "/nowhere", rest_url="unix:{REST_SOCKET}"))
client.cancel(["999999"])
print([node.name for node in client.nodes()], client.find("joblet-nobody"))
"""
    answer = cluster.run_on(cluster.controller, [sys.executable, "-c", script])
    assert answer.stdout == "['n1'] []\n"


def test_one_that_is_not_there_is_away() -> None:
    with pytest.raises(SlurmUnavailable, match="does not answer"):
        RestClient(SlurmSettings("/nowhere", "/nowhere", rest_url="unix:/nowhere")).jobs()

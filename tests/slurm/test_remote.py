"""Jobs of a real daemon on nodes that share no directory with it: all that becomes of them comes by their daemons' mTLS port."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from joblet.api.v1 import job_pb2
from joblet.crash_points import VARIABLE
from tests.integration.host import Host, eventually
from tests.slurm.attempts import ROOT
from tests.slurm.cluster import Cluster
from tests.slurm.joblet_host import doctor, let_go, slurm_host
from tests.slurm.node_daemons import NodeDaemons, issue_client, name_addresses, node_daemons
from tests.slurm.running_usage import usage_is_seen
from tests.timing import PATIENCE

POINTS = ("slurm.exit-fetched", "slurm.exit-at-home", "slurm.output-at-home")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=3, cpus=8, shared=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def clients(cluster: Cluster) -> Path:
    return cluster.site.directory / "clients"


@pytest.fixture(scope="module")
def points(cluster: Cluster) -> Path:
    directory = cluster.site.directory / "points"
    directory.mkdir()
    return directory


@pytest.fixture(scope="module")
def host(cluster: Cluster, clients: Path, points: Path) -> Iterator[Host]:
    with slurm_host(cluster, {VARIABLE: str(points)}, nodeClients=str(clients)) as host:
        yield host


@pytest.fixture(scope="module", autouse=True)
def nodes(cluster: Cluster, clients: Path, host: Host) -> Iterator[NodeDaemons]:
    """After the host's daemon, which learns of certificates and nodes when they are there."""
    issue_client(cluster, clients)
    with node_daemons(cluster) as daemons:
        yield daemons


def job(name: str, spec: str) -> str:
    return f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n"


def kept_on(cluster: Cluster, node: str, run: job_pb2.Run) -> list[str]:
    """What a node still has of a run's attempts."""
    return sorted(
        path.name for path in cluster.path_on(node, f"{ROOT}/state/slurm/attempts").glob(f"{run.attempts[0].id}/*")
    )


def is_forgotten(cluster: Cluster, node: str, run: job_pb2.Run) -> bool:
    return kept_on(cluster, node, run) == ["claim"]


def test_the_output_of_a_running_job_is_followed_and_brought_home(cluster: Cluster, host: Host) -> None:
    host.apply(job("followed", "script: |\n    echo one; until [ -e go ]; do sleep 0.1; done"))
    run = host.running("followed", within=60)
    request = job_pb2.LogsRequest(ref="followed", follow=True, stream="stdout")
    batches = host.jobs.Logs(request, timeout=60 * PATIENCE)
    first = next(batches)
    assert [entry.data for entry in first.entries] == [b"one\n"]
    shown = cluster.slurm("scontrol", "show", "job", "-d", run.attempts[-1].engine_job or "")
    assert "echo one" not in shown
    host.rnx("stop", "followed")
    assert [entry.data for batch in batches for entry in batch.entries] == []  # it ends by itself
    ended = host.finished("followed")
    assert (ended.phase, ended.reason) == ("STOPPED", "Stopped")
    node = ended.attempts[-1].node
    eventually(lambda: is_forgotten(cluster, node, ended), what="the node has removed its own")
    assert host.log("followed", follow=False) == b"one\n"


def test_what_a_job_uses_on_its_node_is_seen_while_it_runs(host: Host) -> None:
    usage_is_seen(host)


def test_a_node_that_is_cut_off_while_its_job_ends_tells_of_it_later(cluster: Cluster, host: Host) -> None:
    script = "echo begun; until [ -e go ]; do sleep 0.1; done; echo over; exit 5"
    host.apply(job("cut-off-n1", f"script: {script}\n  slurm: {{node: n1}}"))
    run = host.running("cut-off-n1", within=60)
    cluster.cut_off("n1")
    try:
        let_go("cut-off-n1")
        cluster.wait_until(lambda: "exit.json" in kept_on(cluster, "n1", run), what="its end on the node")
        assert host.run("cut-off-n1").phase == "RUNNING"
    finally:
        cluster.reconnect("n1")
    ended = host.finished("cut-off-n1", within=90)
    assert (ended.reason, ended.exit_code, len(ended.attempts)) == ("ExitCode", 5, 1)
    assert host.log("cut-off-n1") == b"begun\nover\n"


@pytest.mark.parametrize("point", POINTS)
def test_a_daemon_that_dies_while_an_end_comes_home_tells_it_once(
    cluster: Cluster, host: Host, points: Path, point: str
) -> None:
    name = point.replace(".", "-")
    (points / point).touch()
    host.apply(job(name, "script: echo out; exit 7\n  slurm: {node: n2}"))
    assert host.daemon is not None
    host.daemon.wait(60 * PATIENCE)
    run_id = {path.name for path in cluster.path_on("n2", f"{ROOT}/state/slurm/attempts").glob(f"{name}-*/exit.json")}
    assert run_id == {"exit.json"}  # nothing is removed there before it is told here
    host.start()
    ended = host.finished(name, within=60)
    assert (ended.reason, ended.exit_code, len(ended.attempts)) == ("ExitCode", 7, 1)
    assert host.log(name) == b"out\n"
    events = list(host.jobs.Events(job_pb2.EventsRequest(ref=name), timeout=30 * PATIENCE))
    assert sum(event.count for event in events if event.reason == "Failed") == 1
    eventually(lambda: is_forgotten(cluster, "n2", ended), what="the node has removed its own")


def test_doctor_asks_each_nodes_daemon(cluster: Cluster, host: Host, nodes: NodeDaemons, clients: Path) -> None:
    found = doctor(host)
    assert "shared directory" not in found
    assert [name for name in ("n1", "n2", "n3") if not found[f"daemon of {name}"]["available"]] == []
    nodes.end("n2")
    name_addresses(
        issue_client(cluster, clients / "viewer", "viewer"), {"n3": f"{cluster.site.hosts['n3'].address}:50051"}
    )
    os.rename(clients / "viewer/n3.yml", clients / "n3.yml")
    try:
        found = doctor(host)
        away, denied = found["daemon of n2"], found["daemon of n3"]
        assert not away["available"] and "enable --now joblet on n2" in str(away["mend"]), away
        assert not denied["available"] and "--role slurm" in str(denied["mend"]), denied
        assert found["daemon of n1"]["available"]
    finally:
        (clients / "n3.yml").unlink()
        nodes.start("n2")


def test_the_hosts_certificate_opens_nothing_else_on_a_node(cluster: Cluster, host: Host, clients: Path) -> None:
    directory = cluster.site.directory / "other"
    name_addresses(issue_client(cluster, directory), {"n1": f"{cluster.site.hosts['n1'].address}:50051"})
    command = [str(Path(cluster.joblet_command[0]).with_name("rnx")), "--config", str(directory / "n1.yml"), "list"]
    refused = cluster.run_on(cluster.controller, command, check=False)
    assert refused.returncode == 5 and "needs the role viewer" in refused.stderr, refused.stderr


def test_what_was_said_is_here_when_the_node_is_gone(cluster: Cluster, host: Host) -> None:
    """All of a job that ended; of one that ran what was told of it before, and that it is lost."""
    host.apply(job("whole", "script: seq 1 200000\n  slurm: {node: n3}"))
    host.apply(job("part", "script: echo begun; sleep 600\n  slurm: {node: n3}\n  stop: {grace: 0s}"))
    whole = host.finished("whole", within=90)
    host.running("part", within=60)
    eventually(lambda: host.log("part", follow=False) == b"begun\n", what="what there is of it")
    eventually(lambda: is_forgotten(cluster, "n3", whole), what="the node has removed its own")
    cluster.kill("n3")
    assert host.log("whole") == b"".join(b"%d\n" % number for number in range(1, 200001))
    lost = host.finished("part", within=180)
    assert (lost.phase, lost.reason) == ("FAILED", "NodeLost")
    assert host.log("part") == b"begun\n"

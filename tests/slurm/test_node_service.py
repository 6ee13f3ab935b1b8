"""Without a shared directory: what the daemon on a node tells about attempts that Slurm has run there, and to whom."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from joblet.api.v1 import slurm_node_pb2, slurm_node_pb2_grpc
from jobletd.executor.slurm_node.records import ended_of, running_of, usage_of
from jobletd.model import Exited, Reason
from tests.slurm.attempts import ROOT, init_nodes, submit
from tests.slurm.cluster import Cluster
from tests.timing import PATIENCE

CALL_SECONDS = 30 * PATIENCE


@dataclass
class Node:
    """The cluster's one node, with its daemon. stub: by the daemon's Unix socket, as root."""

    cluster: Cluster
    stub: slurm_node_pb2_grpc.SlurmNodeServiceStub

    def attempt(self, attempt_id: str) -> slurm_node_pb2.NodeAttempt | None:
        request = slurm_node_pb2.ListAttemptsRequest(attempt_ids=[attempt_id, "other-aaaa-1", "../etc-1"])
        found = list(self.stub.ListAttempts(request, timeout=CALL_SECONDS).attempts)
        assert len(found) <= 1
        return found[0] if found else None

    def output(self, attempt_id: str, *, follow: bool = False) -> Iterator[bytes]:
        request = slurm_node_pb2.ReadAttemptLogRequest(attempt_id=attempt_id, follow=follow)
        for answer in self.stub.ReadAttemptLog(request, timeout=CALL_SECONDS):
            yield from (entry.data for entry in answer.entries)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Cluster(nodes=1, shared=False) as cluster:
        init_nodes(cluster)
        daemon = cluster.daemon("n1", [*cluster.joblet_command, "serve"])
        socket = cluster.path_on("n1", f"{ROOT}/run/joblet.sock")
        cluster.wait_until(socket.exists, within=60, what="the daemon's socket")
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            grpc.channel_ready_future(channel).result(timeout=CALL_SECONDS)
            yield Node(cluster, slurm_node_pb2_grpc.SlurmNodeServiceStub(channel))
        daemon.end(signal.SIGTERM)


def usage_told(node: Node, attempt_id: str) -> bytes:
    told = node.attempt(attempt_id)
    return told.usage if told is not None else b""


def test_an_attempt_is_followed_from_its_start_to_its_end_and_forgotten(node: Node) -> None:
    script = "trap 'echo two; exit 6' INT; echo one; while :; do sleep 0.05; done"
    spec = {"script": script, "attemptTimeout": "10m", "stop": {"signal": "SIGINT", "grace": "10m"}}
    attempt = submit(node.cluster, "told-aaaa-1", spec, shared=False)
    attempt.wait_until_it_runs()
    told = node.attempt("told-aaaa-1")
    assert told is not None
    assert json.loads(told.claim)["slurm_job_id"] == attempt.job
    assert running_of(json.loads(told.state)).started_ns
    assert not told.exit
    node.cluster.wait_until(lambda: usage_told(node, "told-aaaa-1"), within=60, what="what it uses")
    usage, read_ns = usage_of(json.loads(usage_told(node, "told-aaaa-1")))
    assert (
        (usage.memory_bytes or 0) > 0
        and (usage.pids or 0) > 0
        and read_ns >= running_of(json.loads(told.state)).started_ns
    )
    with pytest.raises(grpc.RpcError) as refused:
        node.stub.ForgetAttempt(slurm_node_pb2.ForgetAttemptRequest(attempt_id="told-aaaa-1"), timeout=CALL_SECONDS)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION

    lines = node.output("told-aaaa-1", follow=True)
    assert next(lines) == b"one\n"
    node.cluster.slurm("scancel", "--batch", "--signal=TERM", attempt.job)
    assert list(lines) == [b"two\n"]  # ends by itself
    attempt.ended()
    told = node.attempt("told-aaaa-1")
    assert told is not None
    ended = ended_of(json.loads(told.exit))
    assert (ended.end.outcome, ended.end.reason) == (Exited(6), Reason.STOPPED)
    assert told.log_bytes > 0 and not told.usage

    attempt.state()
    node.stub.ForgetAttempt(slurm_node_pb2.ForgetAttemptRequest(attempt_id="told-aaaa-1"), timeout=CALL_SECONDS)
    told = node.attempt("told-aaaa-1")
    assert told is not None
    assert (bool(told.claim), told.exit, told.log_bytes) == (True, b"", 0)


def test_an_attempt_that_is_fenced_never_begins(node: Node) -> None:
    request = slurm_node_pb2.FenceAttemptRequest(attempt_id="fenced-aaaa-1")
    first = node.stub.FenceAttempt(request, timeout=CALL_SECONDS)
    assert first.fenced
    assert json.loads(first.claim)["node"] is None
    attempt = submit(node.cluster, "fenced-aaaa-1", {"command": ["true"]}, shared=False)
    assert attempt.exit_code() == 75
    again = node.stub.FenceAttempt(request, timeout=CALL_SECONDS)
    assert (again.fenced, again.claim) == (False, first.claim)


def test_what_is_killed_by_slurm_is_told_when_it_is_asked_for(node: Node) -> None:
    spec = {"script": "trap '' TERM; echo ready; while :; do sleep 0.1; done", "stop": {"grace": "10m"}}
    attempt = submit(node.cluster, "shot-aaaa-1", spec, shared=False)
    attempt.wait_for_output("ready")
    node.cluster.slurm("scancel", attempt.job)
    attempt.state()

    def exit_record() -> bytes:
        told = node.attempt("shot-aaaa-1")
        return told.exit if told else b""

    node.cluster.wait_until(exit_record, within=60, what="the end of what was killed")
    assert ended_of(json.loads(exit_record())).end.reason is Reason.LOST


def test_an_unknown_attempt_has_no_log(node: Node) -> None:
    for name in ("unknown-aaaa-1", "../../etc-1"):
        with pytest.raises(grpc.RpcError) as refused:
            list(node.output(name))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_viewer_is_told_nothing(node: Node) -> None:
    code = (
        "import sys, grpc; from ruamel.yaml import YAML; "
        "from joblet.api.v1 import slurm_node_pb2 as m, slurm_node_pb2_grpc as g; "
        "n = YAML(typ='safe').load(open(sys.argv[1]))['nodes']['default']; "
        "c = grpc.ssl_channel_credentials(*(n[k].encode() for k in ('ca', 'key', 'cert'))); "
        "s = g.SlurmNodeServiceStub(grpc.secure_channel(n['address'], c)); "
        "s.ListAttempts(m.ListAttemptsRequest(), timeout=30)"
    )
    python = str(Path(node.cluster.joblet_command[0]).with_name("python"))
    answers = {
        role: node.cluster.run_on("n1", [python, "-c", code, f"{ROOT}/config/{name}"], check=False)
        for role, name in (("admin", "rnx-config.yml"), ("viewer", "rnx-config-viewer.yml"))
    }
    assert answers["admin"].returncode == 0, answers["admin"].stderr
    assert "PERMISSION_DENIED" in answers["viewer"].stderr

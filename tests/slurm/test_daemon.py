"""Jobs of a real daemon on a real cluster: what people see of them, and each state of Slurm's that has gone wrong before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import FINAL, Host, eventually
from tests.slurm.cluster import Cluster
from tests.slurm.joblet_host import doctor, let_go, slurm_host
from tests.slurm.running_usage import usage_is_seen

SLEEP = "command: [sleep, '600']\n  stop: {grace: 0s}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=3, cpus=8) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def host(cluster: Cluster) -> Iterator[Host]:
    with slurm_host(cluster) as host:
        yield host


def job(name: str, spec: str) -> str:
    return f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n"


def slurm_job(host: Host, name: str) -> str:
    """The id that Slurm gave its last attempt, once it has."""
    look = lambda: "".join(one.engine_job for one in host.run(name).attempts[-1:])  # noqa: E731
    found: str = eventually(look, what=f"{name} in Slurm")
    return found


def nothing_is_left(cluster: Cluster, run: job_pb2.Run) -> None:
    """In Slurm's queue."""
    names = ",".join(f"joblet-{one.id}" for one in run.attempts)
    query = ("squeue", "--noheader", f"--name={names}")
    cluster.wait_until(lambda: not cluster.slurm(*query), within=60, what=f"nothing left of {names}")


def test_people_see_where_a_job_is_and_follow_its_output(host: Host) -> None:
    host.apply(job("seen", "script: for i in 1 2 3; do echo line $i; sleep 0.3; done; sleep 600\n  stop: {grace: 0s}"))
    run = host.running("seen", within=60)
    status = host.rnx("status", "seen").out
    assert re.search(r"^Node: +n[123]$", status, re.MULTILINE) and re.search(
        r"^Slurm Job: +[0-9]+$", status, re.MULTILINE
    )
    nodes = json.loads(host.rnx("get", "nodes", "-o", "json").stdout)
    assert [one["name"] for one in nodes if one["executor"] == "slurm"] == ["n1", "n2", "n3"]
    assert all(one["partitions"] == ["main"] for one in nodes if one["executor"] == "slurm")
    assert "slurm" in host.rnx("get", "nodes").out
    said = b"line 1\nline 2\nline 3\n"
    eventually(lambda: host.log(run.id, follow=False) == said, what="what it says while it runs")
    host.rnx("stop", "seen")
    ended = host.finished("seen")
    assert (ended.phase, ended.reason) == ("STOPPED", "Stopped")
    assert host.log("seen", follow=True) == said
    assert ended.attempts[-1].node in ("n1", "n2", "n3") and ended.attempts[-1].engine == "slurm"


def test_what_a_job_uses_on_its_node_is_seen_while_it_runs(host: Host) -> None:
    usage_is_seen(host)


def test_what_slurm_cannot_give_is_refused_when_it_is_applied(host: Host, tmp_path: object) -> None:
    refused = host.rnx("apply", "-f", "-", stdin=job("pinned", "command: ['true']\n  limits: {cpus: '0'}"))
    assert refused.status != 0 and "spec.limits.cpus" in refused.err and "spec.executor: local" in refused.err
    here = host.rnx("apply", "-f", "-", stdin=job("here", "command: ['true']\n  executor: local\n  limits: {pids: 9}"))
    assert here.status == 0, here.err
    assert host.finished("here").attempts[-1].engine == ""


def test_a_job_that_no_node_can_take_fails_and_says_why(host: Host) -> None:
    host.apply(job("huge", "command: ['true']\n  limits: {memory: 900Gi}"))
    run = host.finished("huge")
    assert (run.phase, run.reason) == ("FAILED", "StartError") and "configuration" in run.message


def test_a_job_that_waits_says_what_for(cluster: Cluster, host: Host) -> None:
    """All nodes are drained: it waits for ever, and whoever asks is told by whom."""
    for name in cluster.names:
        cluster.slurm("scontrol", "update", f"nodename={name}", "state=drain", "reason=upkeep")
    try:
        host.apply(job("waits", "command: ['true']"))
        waiting = host.watch_until("waits", lambda run: "queue" in run.message, within=30)
        assert (waiting.phase, waiting.reason) == ("INITIALIZING", "Queued")
        assert f"job {slurm_job(host, 'waits')}" in waiting.message
        why = host.rnx("why", "waits").out
        assert "Slurm's queue" in why and ("DRAINED" in why or "ReqNodeNotAvail" in why), why
        nodes = json.loads(host.rnx("get", "nodes", "-o", "json").stdout)
        assert all("drain" in one["state"] and one["reason"] == "upkeep" for one in nodes if one["executor"] == "slurm")
    finally:
        for name in cluster.names:
            cluster.slurm("scontrol", "update", f"nodename={name}", "state=resume")
    assert host.finished("waits", within=60).phase == "COMPLETED"


def test_a_job_that_somebody_cancels_in_slurm_has_failed_as_stopped(cluster: Cluster, host: Host) -> None:
    host.apply(job("cancelled", SLEEP))
    host.running("cancelled", within=60)
    cluster.slurm("scancel", slurm_job(host, "cancelled"))
    run = host.finished("cancelled", within=60)
    assert (run.phase, run.reason) == ("FAILED", "Stopped")


def test_the_time_of_a_run_is_up_in_the_queue_too(cluster: Cluster, host: Host) -> None:
    cluster.slurm("scontrol", "update", "nodename=n2", "state=drain", "reason=late")
    try:
        host.apply(job("late", "command: ['true']\n  timeout: 10s\n  slurm: {node: n2}"))
        run = host.finished("late", within=60)
        assert (run.phase, run.reason) == ("FAILED", "TimedOut") and "queue" in run.message
    finally:
        cluster.slurm("scontrol", "update", "nodename=n2", "state=resume")


def test_held_jobs_wait_and_go_on(cluster: Cluster, host: Host) -> None:
    for name in cluster.names:
        cluster.slurm("scontrol", "update", f"nodename={name}", "state=drain", "reason=held")
    host.apply(job("held", "command: ['true']"))
    held = slurm_job(host, "held")
    cluster.slurm("scontrol", "hold", held)
    for name in cluster.names:
        cluster.slurm("scontrol", "update", f"nodename={name}", "state=resume")
    host.watch_until("held", lambda run: "JobHeld" in run.message, within=30)
    cluster.slurm("scontrol", "release", held)
    assert host.finished("held", within=60).phase == "COMPLETED"


def test_a_killed_slurmctld_loses_no_job_and_no_end(cluster: Cluster, host: Host) -> None:
    """Two seconds after a start its saved state knows nothing of it: our own record does."""
    host.apply(job("outlives-slurmctld", "script: until [ -e go ]; do sleep 0.1; done; exit 5"))
    host.running("outlives-slurmctld", within=60)
    cluster.kill_slurmctld()
    host.apply(job("meanwhile", "script: exit 6"))
    try:
        waiting = host.watch_until("meanwhile", lambda run: "Slurm" in run.message, within=60)
        assert waiting.phase == "INITIALIZING"
        assert "slurm away" in host.rnx("nodes").out
        let_go("outlives-slurmctld")
        ended = host.finished("outlives-slurmctld", within=60)
        assert (ended.reason, ended.exit_code) == ("ExitCode", 5)  # though Slurm does not answer
    finally:
        cluster.start_slurmctld()
    meanwhile = host.finished("meanwhile", within=90)
    cluster.resume()
    assert (meanwhile.reason, meanwhile.exit_code, len(meanwhile.attempts)) == ("ExitCode", 6, 1)
    nothing_is_left(cluster, ended)


@pytest.mark.parametrize("seconds", [1, 8])
def test_what_a_killed_slurmctld_begins_anew_succeeds_once_and_leaves_nothing(
    cluster: Cluster, host: Host, seconds: int
) -> None:
    """It goes on from a state in which the job still waited. Its node finds it claimed, where it has ended by then; else the node
    refuses it, and Slurm takes away what runs there."""
    name = f"anew-{seconds}"
    for node in cluster.names:
        cluster.slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=anew")
    host.apply(job(name, f"script: echo begun; sleep {seconds}\n  retry: {{limit: 3, initial: 100ms}}"))
    slurm_job(host, name)
    saved = cluster.path_on(cluster.controller, "/var/spool/slurmctld/job_state")
    attempt = host.run(name).attempts[-1].id
    try:
        cluster.wait_until(lambda: saved.exists() and attempt.encode() in saved.read_bytes(), what="its state saved")
        cluster.resume()
        cluster.wait_until((cluster.shared_path / "attempts" / attempt / "state.json").exists, what="it runs")
        cluster.kill_slurmctld()
        cluster.start_slurmctld()
        cluster.resume()  # of the older state, too
        ended = host.finished(name, within=120)
        reasons = [one.reason for one in ended.attempts]
        assert (ended.phase, reasons[-1], reasons.count("Completed")) == ("COMPLETED", "Completed", 1), ended
        nothing_is_left(cluster, ended)
    finally:
        cluster.resume()


def test_a_lost_node_is_told_and_the_job_begins_anew_elsewhere(cluster: Cluster, host: Host) -> None:
    script = 'script: test "$JOBLET_ATTEMPT" != 1 || sleep 600; hostname'
    host.apply(job("moves", f"{script}\n  retry: {{limit: 2, initial: 100ms}}\n  slurm: {{exclude: [n1]}}"))
    first = host.running("moves", within=60).attempts[-1]
    node = eventually(lambda: host.run("moves").attempts[-1].node, what="its node")
    cluster.kill(node)
    try:
        run = host.finished("moves", within=180)
        assert run.phase == "COMPLETED", run
        assert run.attempts[0].id == first.id and run.attempts[0].reason == "NodeLost"
        assert run.attempts[-1].node not in ("", node)
    finally:
        cluster.start(node)


def test_a_daemon_that_is_killed_finds_all_again(host: Host) -> None:
    host.apply(job("found", SLEEP))
    host.apply(job("ends", "script: sleep 4; exit 9"))
    begun = ("RUNNING", *FINAL)  # the one that ends may have, where the machine is busy
    before = {
        name: host.watch_until(name, lambda run: run.phase in begun, within=60).attempts[-1]
        for name in ("found", "ends")
    }
    host.kill()
    host.start()
    assert host.finished("ends", within=60).exit_code == 9
    found = host.run("found").attempts[-1]
    assert (found.id, found.phase) == (before["found"].id, "RUNNING")
    assert eventually(lambda: host.run("found").attempts[-1].engine_job)
    host.rnx("stop", "found")
    assert host.finished("found", within=60).phase == "STOPPED"


def test_doctor_looks_at_the_cluster_and_each_node(cluster: Cluster, host: Host) -> None:
    found = doctor(host)
    wanted: tuple[str, ...] = ("slurm", "slurm commands", "munge", "slurmctld")
    wanted += ("shared directory", "slurm versions", "slurm cgroups")
    wanted += ("node n1", "node n2", "node n3")
    assert [found[name] for name in wanted if not found[name]["available"]] == []
    cluster.slurm("scontrol", "update", "nodename=n1", "state=drain", "reason=disk")
    try:
        drained = doctor(host)["node n1"]
        assert not drained["available"] and "disk" in str(drained["detail"]) and "resume" in str(drained["mend"])
    finally:
        cluster.slurm("scontrol", "update", "nodename=n1", "state=resume")

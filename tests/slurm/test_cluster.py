"""The cluster that the other tests here stand on does what they take for granted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import REST_SOCKET, Cluster
from tests.slurm.hosts import cgroup_trees
from tests.timing import PATIENCE

REPOSITORY = Path(__file__).parents[2]
_HOLD = """
import sys
from tests.slurm.cluster import Cluster
with Cluster(nodes=1) as cluster:
    print(cluster.site.directory.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=2, rest=True) as cluster:
        yield cluster


def test_a_job_runs_on_a_host_of_its_own_below_slurms_cgroups(cluster: Cluster) -> None:
    output = cluster.shared_path / "first"
    job = cluster.sbatch("#!/bin/sh\nhostname\ncat /proc/self/cgroup\nexit 7\n", "-w", "n2", "-o", str(output))
    assert cluster.wait_for_state(job, "FAILED")["ExitCode"] == "7:0"
    name, *groups = output.read_text().splitlines()
    assert name == "n2"
    assert any(f"/job_{job}/" in group for group in groups if "memory" in group)


def test_a_node_that_is_cut_off_goes_on_and_is_heard_again(cluster: Cluster) -> None:
    go, done = cluster.shared_path / "go", cluster.shared_path / "done"
    script = f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.05; done\ntouch {done}\n"
    job = cluster.sbatch(script, "-w", "n2", "-o", "/dev/null")
    cluster.wait_for_state(job, "RUNNING")
    cluster.cut_off("n2")
    assert cluster.run_on("ctl", ["bash", "-c", "exec 3<>/dev/tcp/n1/6818"], check=False).returncode == 0
    assert cluster.run_on("ctl", ["timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/n2/6818"], check=False).returncode
    go.touch()
    cluster.wait_until(done.exists, what="the job to go on")
    cluster.reconnect("n2")
    cluster.wait_for_state(job, "COMPLETED")


def test_a_node_that_lost_its_power_comes_back_with_another_boot_id_and_the_same_disk(cluster: Cluster) -> None:
    show = ["cat", "/proc/sys/kernel/random/boot_id"]
    before = cluster.run_on("n2", show).stdout
    cluster.run_on("n2", ["touch", "/var/spool/mine"])
    cluster.kill("n2")
    cluster.start("n2")
    assert cluster.run_on("n2", show).stdout != before
    assert cluster.run_on("n2", ["ls", "/var/spool/mine"]).stdout
    cluster.wait_until(lambda: cluster.node_state("n2") == "idle", what="n2 idle")
    job = cluster.sbatch("#!/bin/sh\ntrue\n", "-w", "n2", "-o", "/dev/null")
    cluster.wait_for_state(job, "COMPLETED")


def test_slurmctld_is_killed_and_comes_back_with_its_jobs(cluster: Cluster) -> None:
    job = cluster.sbatch("#!/bin/sh\nexit 3\n", "-J", "remembered", "-o", "/dev/null")
    cluster.wait_for_state(job, "FAILED")
    saved = cluster.path_on(cluster.controller, "/var/spool/slurmctld/job_state")
    cluster.wait_until(lambda: saved.exists() and b"remembered" in saved.read_bytes(), what="its state saved")
    cluster.kill_slurmctld()
    assert not cluster.answers()
    cluster.start_slurmctld()
    cluster.wait_until(cluster.answers, what="slurmctld answers")
    assert cluster.wait_for_state(job, "FAILED")["ExitCode"] == "3:0"


def test_slurmrestd_answers_by_its_socket(cluster: Cluster) -> None:
    code = (
        "import http.client, socket, sys; c = http.client.HTTPConnection('localhost'); c.sock = socket.socket(socket.AF_UNIX); "
        f"c.sock.connect('{REST_SOCKET}'); c.request('GET', '/openapi'); r = c.getresponse(); print(r.status, len(r.read()))"
    )
    assert cluster.run_on("ctl", [sys.executable, "-c", code]).stdout.startswith("200 ")


def test_nothing_is_left_of_a_cluster_whose_test_was_killed() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert holder.stdout is not None and holder.stdin is not None
    name = holder.stdout.readline().strip()
    groups = [Path(tree, name) for tree in cgroup_trees()]
    assert name and all(group.is_dir() for group in groups)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    deadline = time.monotonic() + 20 * PATIENCE
    while [path for path in (*groups, Path(os.environ.get("TMPDIR", "/tmp"), name)) if path.exists()]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    holder.stdin.close()
    holder.stdout.close()

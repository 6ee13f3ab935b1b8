"""The daemon may die at any moment: jobs do not notice, and nothing of them is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import grpc
import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import PATIENCE, Host, cgroup_directories, eventually, job_host
from tests.integration.processes import launcher_of


@pytest.fixture(scope="module")
def place() -> Iterator[Host]:
    with job_host() as host:
        yield host


@pytest.fixture
def host(place: Host) -> Host:
    """A daemon runs, and knows no job."""
    if place.daemon is None or place.daemon.poll() is not None:  # a test failed in between
        place.start()
    place.delete(*place.names())
    return place


COUNTING = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {name: counting}
    spec:
      # Goes on when the file appears: the test decides when, from outside.
      script: |
        echo begin
        i=0; while [ ! -e /work/go ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done
        for n in $(seq 1 2000); do echo line $n; done
        exit 7
"""


def workspace(host: Host, run: job_pb2.Run) -> str:
    """As its init sees it: on the host it is nowhere. By the run, as what the job of a test before left may still be there."""
    state = host.root / "state/attempts" / run.attempts[-1].id / "state"
    return f"/proc/{state.read_text().split()[1]}/root/work"


def test_a_job_outlives_the_daemon_and_its_exit_code_and_output_are_there(host: Host) -> None:
    host.apply(COUNTING)
    before = host.running("counting")
    host.kill()
    # While nobody watches over it, the job goes on and ends.
    with open(workspace(host, before) + "/go", "w"):
        pass
    exit_record = host.root / "state/attempts" / before.attempts[0].id / "exit.json"
    eventually(exit_record.exists, what="the exit record")
    host.start()
    run = host.finished("counting")
    assert (run.id, run.phase, run.reason, run.exit_code) == (before.id, "FAILED", "ExitCode", 7)
    assert len(run.attempts) == 1
    assert host.log("counting") == b"begin\n" + b"".join(b"line %d\n" % n for n in range(1, 2001))


def test_a_job_still_running_is_adopted_by_the_next_daemon(host: Host) -> None:
    host.apply(COUNTING)
    before = host.running("counting")
    host.kill()
    host.start()
    assert host.run("counting").phase == "RUNNING"
    with open(workspace(host, before) + "/go", "w"):
        pass
    run = host.finished("counting")
    assert (run.id, run.exit_code, len(run.attempts)) == (before.id, 7, 1)


def test_an_adopted_job_can_be_stopped(host: Host) -> None:
    host.apply(COUNTING)
    host.running("counting")
    host.kill()
    host.start()
    host.jobs.Stop(job_pb2.StopRequest(ref="counting"))
    run = host.finished("counting")
    assert (run.phase, run.reason) == ("STOPPED", "Stopped")


def test_a_job_outlives_the_launcher(host: Host) -> None:
    host.apply(COUNTING)
    running = host.running("counting")
    assert host.daemon is not None
    os.kill(launcher_of(host.daemon.pid), signal.SIGKILL)
    # A new launcher takes the next job, and the old job is still watched.
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: next}
        spec: {command: ["true"]}
    """)
    assert host.finished("next").phase == "COMPLETED"
    with open(workspace(host, running) + "/go", "w"):
        pass
    assert host.finished("counting").exit_code == 7


def test_a_finished_run_does_not_run_again_after_a_restart(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: once}
        spec: {command: [echo, once]}
    """)
    first = host.finished("once")
    host.kill()
    host.start()
    (result,) = host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: once}
        spec: {command: [echo, once]}
    """)
    assert result.action == "unchanged"
    job = host.job("once", history=True)
    assert [run.id for run in job.runs] == [first.id]


def test_a_second_daemon_on_the_same_root_is_refused(host: Host) -> None:
    second = Host(host.root)
    with pytest.raises(AssertionError, match=r"status [1-9]"):
        second.start()


def test_a_stopped_daemon_leaves_no_process_and_no_cgroup(host: Host) -> None:
    host.apply(COUNTING)
    host.running("counting")
    host.stop()
    left = [child for base in cgroup_directories(host.cgroup_base) for child in base.glob("job-*")]
    assert left == []
    assert os.listdir(host.root / "state/work") == []
    with pytest.raises(grpc.RpcError):
        host.jobs.Get(job_pb2.GetRequest(ref="counting"), timeout=5 * PATIENCE)
    host.start()
    # What the shutdown stopped is on record, once, and is not begun again.
    runs = host.job("counting", history=True).runs
    assert [(run.phase, run.reason, len(run.attempts)) for run in runs] == [("STOPPED", "Shutdown", 1)]

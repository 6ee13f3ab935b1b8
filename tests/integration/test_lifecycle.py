"""Runs over time: retry, restart, stop, change, suspension, the queue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import Host, eventually, job_host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def test_a_failing_command_is_retried_and_every_attempt_is_on_record(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: flaky}
        spec:
          command: [sh, -c, "echo attempt; exit 75"]
          retry: {limit: 2, initial: 200ms, max: 1s}
    """)
    run = host.finished("flaky")
    assert (run.phase, run.reason, run.exit_code) == ("FAILED", "ExitCode", 75)
    assert [attempt.number for attempt in run.attempts] == [1, 2, 3]
    assert [attempt.exit_code for attempt in run.attempts] == [75, 75, 75]
    assert host.log("flaky") == b"attempt\n" * 3
    assert host.log("flaky", attempt=2) == b"attempt\n"
    # Back-off: the second pause is longer than the first.
    starts = [attempt.started.ToNanoseconds() for attempt in run.attempts]
    ends = [attempt.ended.ToNanoseconds() for attempt in run.attempts]
    assert starts[1] - ends[0] >= 0.2e9 and starts[2] - ends[1] >= 0.4e9


def test_exit_codes_decide_about_retries(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: fatal}
        spec:
          command: [sh, -c, "exit 2"]
          retry: {limit: 5, initial: 100ms, neverOnExitCodes: [2]}
    """)
    assert len(host.finished("fatal").attempts) == 1


def test_a_service_is_started_again_when_it_ends(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: service}
        spec:
          command: [sh, -c, "echo up; sleep 0.1"]
          restart: Always
          retry: {initial: 100ms, max: 200ms}
          stop: {grace: 0s}
    """)
    run = host.watch_until("service", lambda run: len(run.attempts) >= 3)
    assert run.phase not in ("COMPLETED", "FAILED")
    host.jobs.Stop(job_pb2.StopRequest(ref="service"))
    assert host.finished("service").phase == "STOPPED"


def test_a_stop_gives_the_command_its_grace(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: polite}
        spec:
          script: |
            trap 'echo bye; exit 0' INT
            echo ready
            i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done
          stop: {signal: SIGINT, grace: 20s}
    """)
    host.running("polite")
    eventually(lambda: host.log("polite", follow=False) == b"ready\n")
    host.jobs.Stop(job_pb2.StopRequest(ref="polite"))
    run = host.finished("polite")
    assert (run.phase, run.reason) == ("STOPPED", "Stopped")
    assert host.log("polite") == b"ready\nbye\n"


def test_a_stop_by_force_does_not_wait(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: deaf}
        spec:
          script: |
            trap '' TERM
            i=0; while [ $i -lt 36000 ]; do sleep 0.1; i=$((i+1)); done
          stop: {grace: 30m}
    """)
    host.running("deaf")
    host.jobs.Stop(job_pb2.StopRequest(ref="deaf", force=True))
    run = host.finished("deaf")  # long before its grace is over
    assert (run.phase, run.signal) == ("STOPPED", "SIGKILL")


def test_changed_labels_restart_nothing(host: Host) -> None:
    manifest = """
        apiVersion: joblet/v1
        kind: Job
        metadata: {{name: labelled, labels: {{tier: {tier}}}}}
        spec: {{command: [sleep, "60"], stop: {{grace: 0s}}}}
    """
    host.apply(manifest.format(tier="a"))
    before = host.running("labelled")
    (result,) = host.apply(manifest.format(tier="b"))
    assert (result.action, result.generation) == ("configured", 1)
    job = host.job("labelled")
    assert job.labels["tier"] == "b" and job.runs[0].id == before.id
    listed = host.jobs.List(job_pb2.ListRequest(label_selector="tier=b")).jobs
    assert [job.name for job in listed] == ["labelled"]


def test_a_suspended_job_stops_and_goes_on_when_resumed(host: Host) -> None:
    manifest = """
        apiVersion: joblet/v1
        kind: Job
        metadata: {{name: paused}}
        spec: {{command: [sleep, "60"], stop: {{grace: 0s}}, suspend: {suspend}}}
    """
    host.apply(manifest.format(suspend="false"))
    before = host.running("paused")
    host.apply(manifest.format(suspend="true"))
    stopped = host.finished("paused")
    assert (stopped.id, stopped.reason) == (before.id, "Suspended")
    host.apply(manifest.format(suspend="false"))
    assert host.watch_until("paused", lambda run: run.phase == "RUNNING").id != before.id


def test_a_manual_trigger_runs_a_finished_job_once_more(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: again}
        spec: {command: [echo, again]}
    """)
    first = host.finished("again")
    answer = host.jobs.Run(job_pb2.RunRequest(name="again"))
    assert answer.run_id != first.id
    second = host.watch_until("again", lambda run: run.id == answer.run_id and run.phase == "COMPLETED")
    assert (second.trigger, second.generation) == ("manual", 1)


def test_a_dry_run_changes_nothing(host: Host) -> None:
    text = """
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: dry}
        spec: {command: ["true"]}
    """
    (result,) = host.apply(text, dry_run=True)
    assert result.action == "created"
    assert "dry" not in [job.name for job in host.jobs.List(job_pb2.ListRequest()).jobs]


def test_a_deleted_job_is_stopped_and_gone(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: doomed}
        spec: {command: [sleep, "60"], stop: {grace: 0s}}
    """)
    run = host.running("doomed")
    host.jobs.Delete(job_pb2.DeleteRequest(name="doomed"))
    eventually(lambda: "doomed" not in [job.name for job in host.jobs.List(job_pb2.ListRequest()).jobs])
    assert host.run(run.id).reason == "Deleted"


def test_jobs_beyond_the_bound_wait_in_order_and_show_their_place() -> None:
    with job_host(configure=lambda config: config["joblet"].update(maxConcurrentJobs=1)) as host:
        for name in ("first", "second", "third"):
            host.apply(f"""
                apiVersion: joblet/v1
                kind: Job
                metadata: {{name: {name}}}
                spec: {{command: [sleep, "60"], stop: {{grace: 0s}}}}
            """)
        host.running("first")
        places = {name: host.run(name).queue_position for name in ("first", "second", "third")}
        assert places == {"first": 0, "second": 1, "third": 2}
        assert host.run("third").phase == "PENDING"
        host.jobs.Stop(job_pb2.StopRequest(ref="first"))
        host.running("second")
        assert host.run("third").queue_position == 1

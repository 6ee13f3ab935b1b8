"""Schedules on a real host: ticks from a file in the spool, and what the kernel says about a run counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import PATIENCE, Host, eventually, job_host

TICKING = """
apiVersion: joblet/v1
kind: Job
metadata: {name: ticking}
spec:
  command: [sh, -c, 'echo "$JOBLET_SCHEDULED"']
  schedule: {every: 1s}
"""
SLOW = """
apiVersion: joblet/v1
kind: Job
metadata: {name: slow}
spec:
  command: [sleep, "600"]
  schedule: {every: 1s, overlap: Forbid}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def test_a_file_in_the_spool_runs_by_its_schedule_until_it_is_gone(host: Host) -> None:
    file = host.spool / "ticking.yml"
    file.write_text(TICKING)
    eventually(lambda: "ticking" in {job.name for job in listed(host)}, what="the job to be there")
    first = host.finished("ticking")
    host.watch_until("ticking", lambda run: run.id != first.id and run.phase == "COMPLETED")
    runs = [run for run in host.job("ticking", history=True).runs if run.phase == "COMPLETED"]
    ticks = {run.tick.seconds for run in runs}
    assert len(ticks) == len(runs) >= 2
    assert {run.trigger for run in runs} == {"schedule"}
    assert host.log(first.id).decode().strip() == first.tick.ToJsonString()
    assert host.job("ticking").HasField("next_tick")
    status = host.spool / "status/ticking.yml"
    eventually(lambda: status.exists() and "nextTick: " in status.read_text(), what="its next tick in the status file")
    file.unlink()
    eventually(lambda: "ticking" not in {job.name for job in listed(host)}, what="the job to be gone")


def listed(host: Host) -> list[job_pb2.Job]:
    return list(host.jobs.List(job_pb2.ListRequest()).jobs)


def test_after_the_daemon_s_death_a_run_that_goes_on_forbids_and_one_that_ended_does_not(host: Host) -> None:
    host.apply(SLOW)
    first = host.running("slow")
    host.kill()
    host.start()
    eventually(lambda: skipped(host) > 1, what="ticks that are skipped")
    assert [run.id for run in host.job("slow", history=True).runs] == [first.id]
    host.jobs.Stop(job_pb2.StopRequest(ref="slow", force=True))
    second = host.watch_until("slow", lambda run: run.id != first.id and run.phase == "RUNNING")
    assert second.tick.seconds > first.tick.seconds
    host.jobs.Delete(job_pb2.DeleteRequest(name="slow"))


def skipped(host: Host) -> int:
    events = host.jobs.Events(job_pb2.EventsRequest(ref="slow"))
    return sum(event.count for event in events if event.reason == "TickSkipped")


def test_a_command_runs_at_the_time_that_rnx_was_given(host: Host) -> None:
    # It is said to be scheduled by who asks for it after it was made: its time must not have come by then.
    said = host.rnx("run", "--schedule", f"{5 * PATIENCE:g}s", "--name", "later", "--", "echo", "hi")
    assert said.status == 0, said.err
    assert said.out.splitlines()[:2] == ["ID:            later", "Status:        SCHEDULED"]
    run = host.finished("later", within=40)
    assert (run.phase, run.trigger, host.log(run.id)) == ("COMPLETED", "schedule", b"hi\n")
    assert not host.job("later").HasField("next_tick")
    host.jobs.Delete(job_pb2.DeleteRequest(name="later"))

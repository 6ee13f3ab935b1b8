"""A workflow on a real host: outputs through real sandboxes, the drawing, a failed part retried by hand."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from joblet.api.v1 import job_pb2, resource_pb2, resource_pb2_grpc
from tests.integration.host import Host, eventually, job_host
from tests.timing import PATIENCE

FLOW = """
apiVersion: joblet/v1
kind: Workflow
metadata: {name: flow}
spec:
  parameters: {DAY: monday}
  steps:
    - name: extract
      job:
        script: |
          echo "rows of $DAY"
          echo 12 >"$JOBLET_OUTPUTS/rows"
        outputs: [rows]
    - name: load
      inputs: [{env: ROWS, step: extract, output: rows}]
      job:
        volumes: [{name: flags, path: /flags}]
        script: test -e /flags/ready && echo "loaded $ROWS rows"
    - name: report
      needs: [{step: load}]
      job: {command: [echo, done]}
  onFailure:
    job: {script: 'echo "failed: $JOBLET_FAILED_STEPS"'}
---
apiVersion: joblet/v1
kind: Volume
metadata: {name: flags}
spec: {size: 1Mi, type: memory}
"""
OUTPUTS = """
apiVersion: joblet/v1
kind: Job
metadata: {name: outputs}
spec:
  outputs: [good, missing, large, link, binary, pipe, directory]
  isolation: {user: 1000}
  script: |
    cd "$JOBLET_OUTPUTS"
    printf 'two\\nlines\\n' >good
    head -c 5000 /dev/zero | tr '\\0' x >large
    ln -s /etc/passwd link
    printf '\\377' >binary
    mkfifo pipe
    mkdir directory
"""


HOURLY = """
apiVersion: joblet/v1
kind: Workflow
metadata: {{name: hourly}}
spec:
  schedule: {{every: {every}, overlap: Forbid}}
  suspend: {suspend}
  notify:
    - on: [Stopped, Succeeded]
      command: [sh, -c, 'echo "$WHO: $JOBLET_NOTIFICATION"']
  parameters: {{WHO: ann}}
  steps:
    - {{name: wait, job: {{script: "{script}", stop: {{grace: 0s}}}}}}
"""

SLOW = """
apiVersion: joblet/v1
kind: Workflow
metadata: {name: slow}
spec:
  steps:
    - name: first
      job:
        volumes: [{name: gate, path: /gate}]
        script: |
          echo begun
          while ! test -e /gate/open; do sleep 0.1; done
          echo went on
    - {name: after, needs: [{step: first}], job: {array: {to: 1}, script: 'echo "index $JOBLET_ARRAY_INDEX"'}}
  onFailure:
    job: {command: [echo, it failed]}
---
apiVersion: joblet/v1
kind: Volume
metadata: {name: gate}
spec: {size: 1Mi, type: memory}
"""
OPEN = """
apiVersion: joblet/v1
kind: Job
metadata: {name: open}
spec:
  command: [touch, /gate/open]
  volumes: [{name: gate, path: /gate}]
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def workflow(host: Host, name: str = "flow") -> resource_pb2.Resource:
    host.client()
    stub = resource_pb2_grpc.ResourceServiceStub(host.channels["admin"])
    request = resource_pb2.GetResourceRequest(kind="Workflow", name=name)
    found: resource_pb2.Resource = stub.GetResource(request, timeout=30 * PATIENCE)
    return found


def ends_as(host: Host, phase: str) -> dict[str, str]:
    eventually(lambda: workflow(host).status.get("phase") == phase, within=40, what=f"the workflow to be {phase}")
    return {step.name: step.phase for step in workflow(host).steps}


def test_a_workflow_runs_fails_and_goes_on_from_where_it_failed(host: Host) -> None:
    host.apply(FLOW)
    wanted = {"extract": "COMPLETED", "load": "FAILED", "report": "SKIPPED", "on-failure": "COMPLETED"}
    assert ends_as(host, "Failed") == wanted
    assert host.log("flow-extract") == b"rows of monday\n"
    assert host.log("flow-on-failure") == b"failed: load\n"
    drawing = host.rnx("tree", "workflow/flow").out.splitlines()
    assert drawing[0] == "workflow/flow run 1 Failed (4/4 steps over)"
    assert drawing[1].startswith("├─ extract COMPLETED ") and drawing[1].endswith(" rows=12")
    assert drawing[2].startswith("│  └─ load FAILED ") and "ExitCode: exited with code 1" in drawing[2]
    assert drawing[3] == "│     └─ report SKIPPED NeedNotMet: needs load to be Succeeded, and it is FAILED"
    assert "Output:        rows=12" in host.rnx("status", "flow-extract").out.splitlines()
    before = host.run("flow-extract").id
    host.kill()  # what is on record is all that the next daemon needs
    host.start()
    refused = host.rnx("retry", "flow", "--from", "nosuch")
    assert refused.status != 0 and "its steps: extract, load, report" in refused.err
    ready = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: ready}\nspec:\n  command: [touch, /flags/ready]\n"
    host.apply(f"{ready}  volumes: [{{name: flags, path: /flags}}]\n")
    assert host.finished("ready").phase == "COMPLETED"
    assert "runs again (run 1)" in host.rnx("retry", "flow").out
    watched = host.rnx("tree", "workflow/flow", "--watch")
    assert "workflow/flow run 1 Succeeded (3/3 steps over)" in watched.out
    assert ends_as(host, "Succeeded") == {"extract": "COMPLETED", "load": "COMPLETED", "report": "COMPLETED"}
    assert host.log("flow-load") == b"loaded 12 rows\n"
    assert host.run("flow-extract").id == before
    assert host.rnx("delete", "workflow/flow").status == 0
    eventually(lambda: "flow-" not in host.rnx("list").out, what="its jobs to be gone")


def test_only_small_regular_text_files_are_outputs(host: Host) -> None:
    host.apply(OUTPUTS)
    run = host.finished("outputs")
    assert (run.phase, dict(run.outputs)) == ("COMPLETED", {"good": "two\nlines"})
    for text in (
        "missing was not written",
        "large is longer than 4096 bytes",
        "link: Too many levels of symbolic links",
        "binary is not UTF-8",
        "pipe is no regular file",
        "directory is no regular file",
    ):
        assert text in run.message


def test_a_workflow_runs_by_its_schedule_at_people_s_wish_and_tells_of_its_end(host: Host) -> None:
    slow = HOURLY.format(every="1h", suspend="false", script="sleep 600")
    host.apply(slow)
    shown = host.rnx("get", "workflows").out
    assert "NEXT" in shown and "Scheduled" in shown
    assert "workflow/hourly runs again (run 1)" in host.rnx("run", "--workflow", "hourly").out
    host.running("hourly-wait")
    refused = host.rnx("run", "--workflow", "hourly")
    assert refused.status == 6 and "workflow 'hourly' still runs" in refused.err and "--force" in refused.err
    assert "(run 2)" in host.rnx("run", "--workflow", "hourly", "--force").out
    eventually(lambda: b'"reason":"Replaced"' in told(host), what="the hook of run 1")
    assert b'ann: {"apiVersion":"joblet/v1","kind":"Notification"' in told(host)
    host.apply(slow.replace("suspend: false", "suspend: true"))
    eventually(lambda: host.run("hourly-wait").reason == "Suspended", what="the step to be suspended")
    shown = "workflow/hourly run 2 Suspended (0/1 steps over)"
    eventually(lambda: shown in host.rnx("tree", "workflow/hourly").out, what=shown)
    assert host.rnx("run", "--workflow", "hourly").status == 6
    host.apply(HOURLY.format(every="1s", suspend="false", script="echo for $JOBLET_SCHEDULED"))
    eventually(lambda: host.run("hourly-wait").phase == "RUNNING", what="what was suspended to go on")
    host.rnx("stop", "hourly-wait")
    eventually(lambda: int(workflow(host, "hourly").status["run"]) >= 4, what="two ticks")
    assert host.log("hourly-wait").startswith(b"for 20")
    assert host.rnx("delete", "workflow/hourly").status == 0
    eventually(lambda: "hourly-wait" not in host.rnx("list").out, what="its job to be gone")


def test_a_workflow_is_stopped_followed_and_waited_for_as_a_whole(host: Host) -> None:
    host.apply(SLOW)
    assert host.rnx("wait", "workflow/slow", "--for", "running").status == 0
    status = host.rnx("status", "workflow/slow").out
    assert "Status:        Running" in status and "slow-first" in status and "WAITING" in status
    stopped = host.rnx("stop", "--force", "--wait", "workflow/slow")
    assert stopped.out == "workflow/slow run 1 Stopped\n"
    states = {step.name: (step.phase, step.reason) for step in workflow(host, "slow").steps}
    assert states == {"first": ("STOPPED", "Stopped"), "after": ("SKIPPED", "Stopped")}  # and no onFailure
    again = host.rnx("stop", "workflow/slow")
    assert again.status == 6 and "workflow 'slow' does not run" in again.err
    assert host.rnx("wait", "workflow/slow").status == 1
    assert "runs again (run 1)" in host.rnx("retry", "slow").out
    with ThreadPoolExecutor() as pool:
        follower = pool.submit(host.rnx, "log", "-f", "workflow/slow")
        waiter = pool.submit(host.rnx, "wait", "workflow/slow", "--timeout", "60s")
        host.running("slow-first")
        host.apply(OPEN)
        assert follower.result().out.splitlines()[:2] == ["first  begun", "first  went on"]
        assert waiter.result().out == "workflow/slow run 1 Succeeded\n"
    whole = ["first  begun", "first  went on", "after.0  index 0", "after.1  index 1"]
    assert sorted(follower.result().out.splitlines()) == sorted(whole)
    assert host.rnx("log", "workflow/slow").out.splitlines() == whole
    assert host.rnx("log", "slow-after").out.splitlines() == ["slow-after.0  index 0", "slow-after.1  index 1"]
    for name, near in (("slow", "workflow/slow"), ("workflow/slwo", "workflow/slow"), ("workflow/open", "open")):
        missed = host.rnx("status", name)
        assert missed.status == 3 and f"did you mean {near}" in missed.err, missed.err
    assert host.rnx("stop", "workflow/slow", role="viewer").status == 5
    assert "Stopping" in host.rnx("events", "workflow/slow").out
    again = host.rnx("run", "--workflow", "slow", "--wait")  # the gate is open
    assert (again.status, again.err) == (0, "") and sorted(again.out.splitlines()) == sorted(whole)
    assert workflow(host, "slow").workflow_run.number == 2
    assert host.rnx("delete", "workflow/slow").status == 0


def told(host: Host) -> bytes:
    """What the hooks wrote so far."""
    found = host.jobs.Events(job_pb2.EventsRequest(), timeout=30 * PATIENCE)
    ids = dict.fromkeys(event.run_id for event in found if event.job.startswith("hook-") and event.run_id)
    return b"".join(host.log(one) for one in ids)

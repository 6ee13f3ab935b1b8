"""A workflow on a real host: outputs through real sandboxes, the drawing, a failed part retried by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from joblet.api.v1 import resource_pb2, resource_pb2_grpc
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


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def workflow(host: Host) -> resource_pb2.Resource:
    host.client()
    stub = resource_pb2_grpc.ResourceServiceStub(host.channels["admin"])
    request = resource_pb2.GetResourceRequest(kind="Workflow", name="flow")
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

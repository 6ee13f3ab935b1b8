"""Hooks on a real host: a signed request that outlives the daemon's death, and a command in a sandbox of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator

import grpc
import pytest

from tests.integration.host import Host, eventually, job_host
from tests.timing import PATIENCE
from tests.unit.notifying.receiver import Receiver, listening

SIGNED = """
apiVersion: joblet/v1
kind: Secret
metadata: {{name: hook}}
spec: {{data: {{hmac: open-sesame}}}}
---
apiVersion: joblet/v1
kind: Job
metadata: {{name: told}}
spec:
  command: [sh, -c, exit 3]
  notify:
    - on: [Failed]
      webhook: {url}/joblet?token=t0ken
      sign: {{name: hook, key: hmac}}
"""
BY_COMMAND = """
apiVersion: joblet/v1
kind: Job
metadata: {name: tells}
spec:
  command: [sh, -c, 'exit 3']
  env: {WHO: ann}
  limits: {memory: 64Mi}
  notify:
    - on: [Failed]
      command: [sh, -c, 'echo "$WHO in $(hostname)"; echo "$JOBLET_NOTIFICATION"; ls /proc | grep -c "^[0-9]"']
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def host(receiver: Receiver) -> Iterator[Host]:
    with job_host(
        configure=lambda config: config.update(hooks={"allowedWebhooks": [f"{receiver.url}/joblet"]})
    ) as host:
        yield host


def test_a_failure_is_told_by_a_signed_request_though_daemon_and_receiver_were_away(
    host: Host, receiver: Receiver
) -> None:
    receiver.statuses = [503]
    host.apply(SIGNED.format(url=receiver.url))
    receiver.wait_for(1, seconds=20 * PATIENCE)
    host.kill()
    host.start()
    first, second, *_ = receiver.wait_for(2, seconds=20 * PATIENCE)
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    body = json.loads(second.body)
    assert (body["event"], body["run"]["reason"], body["run"]["exitCode"]) == ("Failed", "ExitCode", 3)
    signed = f"{second.headers['webhook-id']}.{second.headers['webhook-timestamp']}.".encode() + second.body
    digest = base64.b64encode(hmac.new(b"open-sesame", signed, hashlib.sha256).digest()).decode()
    assert second.headers["webhook-signature"] == f"v1,{digest}"
    eventually(lambda: "Notified" in host.rnx("events", "told").out, what="its event")
    assert "t0ken" not in host.daemon_log.read_text() + host.rnx("events", "told").out


def test_a_url_that_the_configuration_does_not_allow_is_refused(host: Host, receiver: Receiver) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        host.apply(SIGNED.format(url=receiver.url).replace("/joblet?", "/elsewhere?"))
    details = refused.value.details() or ""
    assert "spec.notify[0].webhook" in details and "not allowed" in details
    assert "t0ken" not in details


def test_a_command_runs_in_a_sandbox_as_its_job_s(host: Host) -> None:
    host.apply(BY_COMMAND)
    run = host.finished("tells")
    name = f"hook-{run.id}-0"
    eventually(lambda: "Notified" in host.rnx("events", "tells").out, what="its event", within=30)
    (event,) = [line for line in host.rnx("events", "tells").out.splitlines() if "Notified" in line]
    hook_run = event.rpartition("run ")[2].split(")")[0]
    lines = host.log(hook_run, follow=False).decode().splitlines()
    assert lines[0].startswith(f"ann in {name}")
    assert json.loads(lines[1])["run"]["id"] == run.id
    assert int(lines[2]) < 10  # of the host's processes it sees none
    eventually(lambda: name not in host.rnx("list").out, what="its job to be gone")

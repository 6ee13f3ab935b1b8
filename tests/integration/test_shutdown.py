"""How a daemon ends when it is told to, and what becomes of its jobs: SIGTERM once and twice, cordon, drain."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.host import FINAL, Host, eventually, job_host
from tests.timing import PATIENCE

STUBBORN = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {name: stubborn}
    spec: {script: "trap '' TERM; echo up; while :; do sleep 1; done", stop: {grace: 10m}}
"""
SERVICE = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {name: service}
    spec: {command: [sleep, "600"], restart: Always, stop: {grace: 1s}}
"""
ONCE = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {name: NAME}
    spec: {command: [sleep, "SECONDS"]}
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def test_told_twice_to_end_it_kills_what_makes_use_of_its_grace_and_services_come_back(host: Host) -> None:
    host.apply(STUBBORN)
    host.apply(SERVICE)
    first = host.running("service")
    host.running("stubborn")
    eventually(lambda: b"up" in host.log("stubborn", follow=False), what="the trap")
    daemon = host.daemon
    assert daemon is not None
    daemon.terminate()
    eventually(lambda: "stopping" in host.log_tail(), what="the beginning of the end")
    assert daemon.poll() is None
    daemon.terminate()
    assert daemon.wait(timeout=60 * PATIENCE) == 0
    host.start()
    again = host.running("service")
    assert (again.id, len(again.attempts)) == (first.id, 2)
    stubborn = host.finished("stubborn")
    assert (stubborn.phase, stubborn.reason, stubborn.signal) == ("STOPPED", "Shutdown", "SIGKILL")


@pytest.mark.native_only(reason="calls of the client, and what the daemon does then; how jobs end is tested above")
def test_a_drained_host_ends_and_comes_back_cordoned_until_it_is_let_go(host: Host) -> None:
    host.apply(SERVICE)
    host.apply(ONCE.replace("NAME", "once").replace("SECONDS", "4"))
    service = host.running("service")
    host.watch_until("once", lambda run: run.phase in ("RUNNING", *FINAL))  # over already, where the machine is busy
    daemon = host.daemon
    assert daemon is not None
    assert host.rnx("cordon", role="viewer").status == 5
    assert host.rnx("cordon", "--reason", "new disk").out == "cordoned\n"
    host.apply(ONCE.replace("NAME", "later").replace("SECONDS", "0"))
    host.watch_until("later", lambda run: run.reason == "Cordoned")
    status = host.rnx("status", "later").out
    assert "Cordoned" in status
    assert "new disk" in status
    drained = host.rnx("drain", "--timeout", f"{60 * PATIENCE:.0f}s")
    assert (drained.status, drained.out.split(";")[0]) == (0, "drained"), drained.err
    assert daemon.wait(timeout=60 * PATIENCE) == 0
    host.start()
    assert host.run("once").phase == "COMPLETED"
    assert "cordoned" in host.rnx("nodes").out
    assert host.run("later").reason == "Cordoned"
    assert host.rnx("uncordon").out == "uncordoned\n"
    assert host.finished("later").phase == "COMPLETED"
    again = host.running("service")
    assert (again.id, len(again.attempts)) == (service.id, 2)
    log = (host.root / "daemon.log").read_text()
    assert all(f" {change} " in log for change in ("cordon", "drain", "uncordon")), "each is an audit line"
    left = [again.attempts[-1].id]
    eventually(lambda: os.listdir(host.root / "state/attempts") == left, what="nothing but the service to be left")

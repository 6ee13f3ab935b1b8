"""How long a job waits for what it lacks: as the kernel tells it (cgroup v2 with PSI), and as unknown where it does not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from joblet.api.v1 import monitor_pb2
from jobletd.monitoring.host import pressures
from tests.integration.host import Host, eventually, job_host
from tests.integration.test_configuration import job
from tests.integration.test_metrics import samples, scrape
from tests.integration.test_monitor import SPIN, readings

KINDS = ("cpu", "memory", "io")
UNAVAILABLE = "unavailable"


def tells() -> bool:
    """Of the host, as the kernel has it, not as joblet found it."""
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers") and bool(pressures())


def served(content: dict[str, Any]) -> None:
    content["metrics"] = {"enabled": True, "port": 0}


@pytest.fixture(
    scope="module", params=["told" if tells() else "not told"]
)  # so that a report says which of the two it was
def host() -> Iterator[Host]:
    with job_host(configure=served) as host:
        host.apply(job("busy", SPIN, "limits: {cpu: 10%}"))
        host.apply(job("idle"))
        host.running("busy")
        host.running("idle")
        yield host


def of_jobs(host: Host) -> tuple[monitor_pb2.JobUsage, monitor_pb2.JobUsage]:
    by_name = {one.name: one for one in readings(host, 1)[-1].jobs}
    return by_name["busy"], by_name["idle"]


def test_a_job_under_a_quota_waits_for_the_cpu_and_one_that_sleeps_does_not(host: Host) -> None:
    if not tells():
        for one in of_jobs(host):
            assert not any(one.HasField(f"{kind}_pressure") for kind in KINDS)
            assert not any(one.usage.HasField(f"{kind}_pressure_seconds") for kind in KINDS)
        return
    busy, idle = eventually(lambda: [both] if (both := of_jobs(host))[0].cpu_pressure > 40 else [], within=60)[0]
    assert idle.cpu_pressure < busy.cpu_pressure / 2
    assert busy.usage.cpu_pressure_seconds > 1
    assert all(one.HasField(f"{kind}_pressure") for one in (busy, idle) for kind in KINDS)
    assert all(one.usage.HasField(f"{kind}_pressure_seconds") for one in (busy, idle) for kind in KINDS)


def test_people_and_programs_see_it_or_that_it_is_not_told(host: Host) -> None:
    table = host.rnx("monitor", "status", role="viewer").out.splitlines()
    header, *rows = [line.split() for line in table[-3:]]
    column = {row[0]: row[header.index("PRESSURE") - len(header)] for row in rows}
    status = next(line for line in host.rnx("status", "busy").out.splitlines() if line.startswith("Pressure:"))
    told = json.loads(host.rnx("status", "busy", "--json").out)["attempts"][-1]["usage"]
    if tells():
        assert all(len(cell.split("/")) == len(KINDS) for cell in column.values())
        assert "cpu " in status and "memory " in status and "I/O " in status
        assert all(told[f"{kind}PressureSeconds"] >= 0 for kind in KINDS)
    else:
        assert set(column.values()) == {"-"} and UNAVAILABLE in status
        assert all(told[f"{kind}PressureSeconds"] is None for kind in KINDS)


def test_metrics_have_it_by_job_or_leave_it_out(host: Host) -> None:
    found = samples(scrape(host))
    for kind in KINDS:
        jobs = {
            dict(labels)["job_name"] for name, labels in found if name == f"joblet_job_{kind}_pressure_seconds_total"
        }
        assert jobs == ({"busy", "idle"} if tells() else set())


def test_what_it_waited_in_all_is_on_record_after_its_end(host: Host) -> None:
    host.apply(job("held", "[sh, -c, 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done']", "limits: {cpu: 10%}"))
    usage = host.finished("held").attempts[-1].usage
    status = host.rnx("status", "held").out
    if tells():
        assert usage.cpu_pressure_seconds > 0 and "Pressure:      cpu " in status
    else:
        assert not usage.HasField("cpu_pressure_seconds") and UNAVAILABLE in status

"""joblet report and rnx loglevel: how a running daemon and its jobs are doing, and how much it says, changed while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from joblet.api.v1 import job_pb2, operation_pb2, operation_pb2_grpc
from tests.integration.host import PATIENCE, Host, eventually, job_host
from tests.integration.joblet_command import joblet

SLEEPER = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {name: eater}
    spec: {command: [python3, -c, "import time; x = bytearray(20 << 20); time.sleep(600)"], limits: {memory: 64Mi, pids: 8}}
"""
FAILING = "{apiVersion: joblet/v1, kind: Job, metadata: {name: failing}, spec: {script: exit 3}}"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


@pytest.fixture(scope="module")
def operation(host: Host) -> operation_pb2_grpc.OperationServiceStub:
    host.client()
    return operation_pb2_grpc.OperationServiceStub(host.channels["admin"])


def report(host: Host) -> dict[str, Any]:
    ended = joblet("report", "--json", "--config", host.config)
    assert ended.status == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_the_report_has_the_service_its_jobs_its_clients_and_what_went_wrong(host: Host) -> None:
    host.apply(SLEEPER)
    host.apply(FAILING)
    host.finished("failing")
    host.running("eater")
    with pytest.raises(grpc.RpcError):
        host.client("viewer").Delete(job_pb2.DeleteRequest(name="eater"), timeout=30 * PATIENCE)

    def eaten() -> dict[str, Any]:
        (active,) = report(host)["jobs"]["active"]
        return active if active["memory_bytes"] > 20 << 20 else {}

    active = eventually(eaten, what="the job's memory from its cgroup")
    assert active["job"] == "eater" and active["memory_bytes"] <= 64 << 20 and active["tasks"] == 1
    assert active["cpu_seconds"] > 0 and active["run"] == host.run("eater").id

    found = report(host)
    assert host.daemon is not None
    assert found["service"]["state"] == "running" and found["service"]["pid"] == host.daemon.pid
    assert found["memory_bytes"] > 10 << 20 and found["tasks"] > 1
    assert [one["name"] for one in found["processes"]] == ["daemon", "launcher"]
    assert found["jobs"]["running"] == 1 and found["jobs"]["declared"] == 2
    assert ("FAILED", "ExitCode", 1) in [(one["phase"], one["reason"], one["count"]) for one in found["ended"]["runs"]]
    assert {(one["client"], one["role"]) for one in found["connections"]} >= {("admin", "admin"), ("viewer", "viewer")}
    assert all(one["address"].startswith("127.0.0.1:") for one in found["connections"])
    (refused,) = [one for one in found["errors"] if "call refused" in one["text"]]
    assert "client=viewer" in refused["text"] and refused["level"] == "warning"


def test_the_report_for_people_has_the_same(host: Host) -> None:
    ended = joblet("report", "--since", "1h", "--config", host.config)
    assert ended.status == 0
    for part in ("service:     running since", "Active jobs: 1", "eater", "Connections", "1:00:00", "call refused"):
        assert part in ended.out


def test_a_report_of_no_daemon_says_so_in_its_exit_status(host: Host, tmp_path: Any) -> None:
    assert joblet("init", "--root", tmp_path / "other").status == 0
    ended = joblet("report", "--config", tmp_path / "other/config/joblet-config.yml")
    assert (ended.status, ended.out) == (3, "service: not running\n")
    assert "is not a duration" in joblet("report", "--since", "soon", "--config", host.config).err


def test_a_viewer_gets_no_report_and_changes_no_level(host: Host) -> None:
    host.client("viewer")
    stub = operation_pb2_grpc.OperationServiceStub(host.channels["viewer"])
    assert stub.GetLogLevel(operation_pb2.GetLogLevelRequest()).level == "INFO"
    for call, request in (
        (stub.Report, operation_pb2.ReportRequest()),
        (stub.SetLogLevel, operation_pb2.SetLogLevelRequest(level="DEBUG")),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(request, timeout=30 * PATIENCE)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_rnx_changes_the_level_and_brings_it_back(host: Host) -> None:
    assert host.rnx("loglevel", "debug", "--for", "10m").out.startswith("DEBUG (configured: INFO, back in 9m")
    (line,) = [line for line in host.log_tail().splitlines() if "log level" in line]
    assert "client=admin role=admin now=DEBUG seconds=600.0" in line
    assert host.rnx("loglevel", "config").out == "INFO\n"


def test_debug_shows_calls_and_launches_until_its_time_is_over_or_a_reload(
    host: Host, operation: operation_pb2_grpc.OperationServiceStub
) -> None:
    def call_and_run() -> str:
        offset = len(host.daemon_log.read_text())
        host.jobs.Run(job_pb2.RunRequest(name="failing"), timeout=30 * PATIENCE)
        host.finished("failing")
        return host.daemon_log.read_text()[offset:]

    assert "[debug" not in call_and_run()
    operation.SetLogLevel(operation_pb2.SetLogLevelRequest(level="debug"))
    offset = len(host.daemon_log.read_text())
    said = call_and_run()
    assert "method=/joblet.v1.JobService/Run" in said and "launching job=failing" in said
    eventually(
        lambda: "ended job=failing" in host.daemon_log.read_text()[offset:], what="its end, once it is on record"
    )
    joblet("reload", "--config", host.config)
    assert operation.GetLogLevel(operation_pb2.GetLogLevelRequest()).level == "INFO"
    told = operation.SetLogLevel(operation_pb2.SetLogLevelRequest(level="DEBUG", seconds=0.2 * PATIENCE))
    assert told.level == "DEBUG" and 0 < told.seconds_left <= 0.2 * PATIENCE
    eventually(lambda: operation.GetLogLevel(operation_pb2.GetLogLevelRequest()).level == "INFO", what="the level back")
    assert "[debug" not in call_and_run()


@pytest.mark.parametrize(("level", "seconds"), [("loud", 0.0), ("DEBUG", -1.0), ("DEBUG", float("nan"))])
def test_what_is_no_level_or_no_time_changes_nothing(
    operation: operation_pb2_grpc.OperationServiceStub, level: str, seconds: float
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        operation.SetLogLevel(operation_pb2.SetLogLevelRequest(level=level, seconds=seconds))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert operation.GetLogLevel(operation_pb2.GetLogLevelRequest()).level == "INFO"


def test_the_environment_starts_the_daemon_in_debug() -> None:
    with job_host(environment={"JOBLET_LOG_LEVEL": "DEBUG"}) as host:
        host.jobs.List(job_pb2.ListRequest(), timeout=30 * PATIENCE)
        assert "[debug    ] call" in host.log_tail()
        assert host.rnx("loglevel").out == "DEBUG\n"

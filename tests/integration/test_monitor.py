"""What a node and its jobs use, as ``rnx monitor`` shows it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import grpc
import psutil
import pytest

from joblet.api.v1 import monitor_pb2, monitor_pb2_grpc
from jobletd.monitoring.host import pressures
from tests.integration.host import PATIENCE, Host, eventually, job_host
from tests.integration.test_configuration import job

TRIES = 20
SPIN = "[sh, -c, 'while :; do :; done']"
# What the client says is the same on any kernel, and in the guest each of its calls takes seconds.
CLIENTS_WORDS = pytest.mark.native_only(reason="the client's words, which no kernel and no hierarchy changes")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        # So little that it gets all of it, and is held back, however busy the machine is.
        host.apply(job("busy", SPIN, "limits: {cpu: 10%, memory: 64Mi}"))
        host.apply(job("idle"))
        host.running("busy")
        host.running("idle")
        yield host


def readings(host: Host, count: int, interval_ms: int = 1000) -> list[monitor_pb2.NodeUsage]:
    host.client("viewer")  # who may read may watch
    stub = monitor_pb2_grpc.MonitorServiceStub(host.channels["viewer"])
    stream = stub.WatchUsage(monitor_pb2.WatchUsageRequest(interval_ms=interval_ms), timeout=60 * PATIENCE)
    found = [next(stream) for _ in range(count)]
    stream.cancel()
    return found


def settled(host: Host) -> tuple[monitor_pb2.NodeUsage, monitor_pb2.NodeUsage]:
    """Two readings one after the other between which the busy job had its turn, and both were taken in time.

    Where the machine is busy it may get less for a second than it was given, and not be held back; and a reading may be dated
    late. Then it is the next two.
    """
    tries = 1
    first, second = readings(host, 2)
    while tries < TRIES and not (second.jobs[0].throttled_percent > 0 and 1 < second.jobs[0].cpu_percent < 20):
        tries += 1
        first, second = readings(host, 2)
    return first, second


def test_a_job_shows_what_it_uses_and_what_holds_it_back(host: Host) -> None:
    first, second = settled(host)
    busy, idle = second.jobs
    assert [busy.name, idle.name] == ["busy", "idle"]  # who uses most comes first
    assert 1 < busy.cpu_percent < 20  # of 10, as it is read and timed in two steps
    assert busy.throttled_percent > 0
    assert busy.memory_limit_bytes == 64 << 20 and 0 < busy.usage.memory_bytes < 64 << 20
    assert idle.cpu_percent < busy.cpu_percent and idle.memory_limit_bytes == 0
    assert busy.usage.cpu_seconds > first.jobs[0].usage.cpu_seconds
    assert second.time.ToNanoseconds() > first.time.ToNanoseconds()


def test_the_node_is_shown_as_the_kernel_tells(host: Host) -> None:
    (reading,) = readings(host, 1)
    assert reading.cpus == os.cpu_count() == len(reading.cpu_percent_each)
    assert reading.memory_bytes == psutil.virtual_memory().total
    assert 0 < reading.memory_used_bytes < reading.memory_bytes
    assert reading.disks[0].path == "/" and reading.disks[0].size_bytes == psutil.disk_usage("/").total
    assert reading.running_jobs == 2 and reading.queued_jobs == 0
    assert reading.processes > 2 and reading.uptime_seconds > 0
    assert [reading.HasField(f"{name}_pressure") for name in ("cpu", "memory", "io")] == [bool(pressures())] * 3


@pytest.mark.parametrize(("interval_ms", "jobs"), [(100, 0), (10_000_000, 0), (0, 100_000)])
def test_what_asks_for_too_much_is_refused(host: Host, interval_ms: int, jobs: int) -> None:
    stub = monitor_pb2_grpc.MonitorServiceStub(host.channels.get("admin") or _channel(host))
    request = monitor_pb2.WatchUsageRequest(interval_ms=interval_ms, max_jobs=jobs)
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.WatchUsage(request, timeout=30 * PATIENCE))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def _channel(host: Host) -> grpc.Channel:
    host.client()
    return host.channels["admin"]


@CLIENTS_WORDS
def test_people_see_bars_and_a_table(host: Host) -> None:
    shown = host.rnx("monitor", "status", role="viewer")
    assert shown.status == 0, shown.err
    assert "Memory   " in shown.out and "2 running, 0 waiting" in shown.out
    header, *rows = shown.out.splitlines()[-3:]
    assert header.split()[:5] == ["JOB", "RUN", "CPU", "MEMORY", "LIMIT"]
    assert [row.split()[0] for row in rows] == ["busy", "idle"] and " 64.0 MiB " in rows[0]


def test_programs_get_a_line_for_each_reading(host: Host) -> None:
    shown = host.rnx("monitor", "watch", "--json", "--count", "2", "--interval", "500ms")
    first, second = map(json.loads, shown.out.splitlines())
    assert first["time"] < second["time"]
    assert {one["job"] for one in second["jobs"]} == {"busy", "idle"}
    assert (second["cpuPressurePercent"] is None) == (not pressures())

    def seen_busy() -> bool:
        """Where others are, it may have had no turn between two looks."""
        (only,) = json.loads(host.rnx("monitor", "top", "--jobs", "1", "--json").out)
        return bool(only["job"] == "busy" and only["cpuPercent"] > 0)

    eventually(seen_busy, within=60, what="the busiest alone, at work")


@CLIENTS_WORDS
def test_a_number_alone_is_seconds_as_joblet_has_it(host: Host) -> None:
    _, second = host.rnx("monitor", "watch", "--interval=1", "--count=2", "--json").out.splitlines()
    assert json.loads(second)["intervalSeconds"] > 0.9


@CLIENTS_WORDS
def test_an_interval_that_is_none_is_answered(host: Host) -> None:
    wrong = host.rnx("monitor", "watch", "--interval", "soon")
    assert wrong.status == 2 and "--interval" in wrong.err


def course(host: Host, ref: str) -> monitor_pb2.Profile:
    host.client()
    stub = monitor_pb2_grpc.MonitorServiceStub(host.channels["admin"])
    found: monitor_pb2.Profile = stub.GetProfile(monitor_pb2.GetProfileRequest(ref=ref), timeout=30 * PATIENCE)
    return found


def test_the_course_of_what_a_run_used_is_kept_over_a_crash_and_after_its_end(host: Host) -> None:
    host.apply(job("worker", SPIN, "limits: {cpu: 30%, memory: 64Mi}"))
    host.running("worker")
    eventually(lambda: len(course(host, "worker").samples) >= 5, within=30)
    host.kill()
    host.start()
    before = list(course(host, "worker").samples)
    assert len(before) >= 3  # what it had kept when it was killed
    eventually(lambda: len(course(host, "worker").samples) > len(before), within=30)
    host.rnx("stop", "worker", "--wait")
    ended = eventually(lambda: [one for one in [course(host, "worker")] if len(one.samples) > len(before)])[0]
    assert list(ended.samples[: len(before)]) == before
    cpu = [sample.cpu_seconds for sample in ended.samples]
    assert cpu == sorted(cpu) and cpu[-1] > 0
    assert 0 < max(sample.memory_bytes for sample in ended.samples) <= 64 << 20
    shown = host.rnx("describe", "worker").out
    assert "Course of attempt 1:" in shown and "  Memory  " in shown and " of 64Mi" in shown


def test_a_run_that_was_too_short_has_no_course(host: Host) -> None:
    host.apply(job("blink", "['true']"))
    host.finished("blink")
    assert not course(host, "blink").samples
    assert "Course" not in host.rnx("describe", "blink").out

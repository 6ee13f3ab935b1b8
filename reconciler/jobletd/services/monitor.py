"""MonitorService: what the host and its jobs use, as a stream."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import psutil

from joblet.api.v1 import monitor_pb2, monitor_pb2_grpc
from jobletd.arrays.index_runs import shown_name
from jobletd.executor import Executor
from jobletd.lookup import Lookup
from jobletd.model import AttemptId
from jobletd.monitoring.host import HostLook, HostRates, disks, pressures
from jobletd.monitoring.live import Live, live_runs, usage_of
from jobletd.monitoring.profile import Sample
from jobletd.monitoring.profiler import Profiler
from jobletd.monitoring.readings import Reading, readings
from jobletd.reconciler import Reconciler
from jobletd.registry import Registry
from jobletd.services.convert import timestamp, usage
from jobletd.services.requests import InvalidRequest
from jobletd.services.status_codes import answered

Context = grpc.aio.ServicerContext[Any, Any]
FIRST_SECONDS = 0.5
DEFAULT_MS, LEAST_MS, MOST_MS = 2_000, 500, 3_600_000
DEFAULT_JOBS, MOST_JOBS = 100, 1_000


@dataclass(frozen=True, slots=True)
class _Look:
    """Everything at one moment. read: by attempt."""

    host: HostLook
    live: list[Live]
    read: Mapping[AttemptId, Reading]


class MonitorService(monitor_pb2_grpc.MonitorServiceServicer):
    """See schemas/joblet/v1/monitor.proto."""

    def __init__(
        self,
        registry: Registry,
        reconciler: Reconciler,
        executor: Executor,
        profiler: Profiler,
        directories: Iterable[str],
    ) -> None:
        """directories: whose file systems are shown."""
        self._lookup = Lookup(registry)
        self._profiler = profiler
        self._registry = registry
        self._reconciler = reconciler
        self._executor = executor
        self._directories = tuple(directories)

    async def WatchUsage(
        self, request: monitor_pb2.WatchUsageRequest, context: Context
    ) -> AsyncIterator[monitor_pb2.NodeUsage]:
        async with answered(context):
            interval_ms = request.interval_ms or DEFAULT_MS
            if not LEAST_MS <= interval_ms <= MOST_MS:
                raise InvalidRequest("interval_ms", f"is not between {LEAST_MS} and {MOST_MS}")
            most = request.max_jobs or DEFAULT_JOBS
            if most > MOST_JOBS:
                raise InvalidRequest("max_jobs", f"is more than {MOST_JOBS}")
            before = await self._look({})
            pause = min(FIRST_SECONDS, interval_ms / 1000)
            while True:
                await asyncio.sleep(pause)
                after = await self._look(before.read)
                yield self._usage(before, after, most)
                before, pause = after, interval_ms / 1000

    async def GetProfile(self, request: monitor_pb2.GetProfileRequest, context: Context) -> monitor_pb2.Profile:
        async with answered(context):
            run = await self._lookup.run(request.ref)
            number = request.attempt or (run.attempts[-1].number if run.attempts else 0)
            attempt = next((one for one in run.attempts if one.number == number), None)
            if attempt is None:
                raise InvalidRequest("attempt", "is none that is kept", todo=f"rnx describe {run.job} shows which are")
            profile = await self._profiler.of(attempt.id)
            return monitor_pb2.Profile(
                run_id=run.id, attempt=number, samples=map(sample, profile.samples if profile is not None else ())
            )
        raise AssertionError("unreachable")

    async def _look(self, before: Mapping[AttemptId, Reading]) -> _Look:
        host, now = HostLook.take(), time.monotonic()
        live = await usage_of(live_runs(self._registry), self._executor)
        return _Look(host, live, readings(live, now, before))

    def _usage(self, before: _Look, after: _Look, most: int) -> monitor_pb2.NodeUsage:
        rates = HostRates.between(before.host, after.host)
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        jobs = [job_usage(one, after.read[one.attempt.id]) for one in after.live]
        jobs.sort(key=lambda one: (-one.cpu_percent, -one.usage.memory_bytes, one.name))
        return monitor_pb2.NodeUsage(
            time=timestamp(self._registry.clock.wall_ns()),
            interval_seconds=rates.seconds,
            cpus=len(rates.cpu_percent_each),
            cpu_percent=rates.cpu_percent,
            cpu_percent_each=rates.cpu_percent_each,
            load=os.getloadavg(),
            memory_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            swap_bytes=swap.total,
            swap_used_bytes=swap.used,
            disks=[
                monitor_pb2.DiskUsage(path=disk.path, size_bytes=disk.size_bytes, used_bytes=disk.used_bytes)
                for disk in disks(self._directories)
            ],
            disk_read_rate=rates.disk_read,
            disk_write_rate=rates.disk_written,
            network_receive_rate=rates.received,
            network_send_rate=rates.sent,
            processes=len(psutil.pids()),
            uptime_seconds=int(time.clock_gettime(time.CLOCK_BOOTTIME)),
            running_jobs=self._reconciler.running,
            queued_jobs=len(self._registry.waiting),
            jobs=jobs[:most],
            **{f"{name}_pressure": percent for name, percent in pressures().items()},
        )


def job_usage(one: Live, read: Reading) -> monitor_pb2.JobUsage:
    return monitor_pb2.JobUsage(
        name=shown_name(one.run),
        run_id=one.run.id,
        attempt=one.attempt.number,
        started=timestamp(one.attempt.started_ns or one.attempt.created_ns),
        usage=usage(read.usage),
        cpu_percent=_percent(read.rate("cpu_seconds")),
        throttled_percent=_percent(read.rate("throttled_seconds")),
        io_read_rate=read.rate("io_read_bytes"),
        io_write_rate=read.rate("io_write_bytes"),
        memory_limit_bytes=one.memory_limit_bytes or 0,
        cpu_pressure=read.usage.cpu_pressure,
        memory_pressure=read.usage.memory_pressure,
        io_pressure=read.usage.io_pressure,
    )


def sample(one: Sample) -> monitor_pb2.ProfileSample:
    return monitor_pb2.ProfileSample(
        at_seconds=one.at_ms / 1e3,
        memory_bytes=one.memory_bytes,
        cpu_seconds=one.cpu_us / 1e6,
        throttled_seconds=one.throttled_us / 1e6,
        io_read_bytes=one.read_bytes,
        io_write_bytes=one.written_bytes,
    )


def _percent(rate: float | None) -> float | None:
    return None if rate is None else rate * 100

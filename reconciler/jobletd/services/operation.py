"""OperationService: how the daemon is doing, and how much it says."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, get_args

import grpc
import psutil
import structlog

from joblet.api.v1 import node_pb2, operation_pb2, operation_pb2_grpc
from joblet.clock import Clock
from joblet.config.values import LogLevel
from jobletd.arrays.index_runs import shown_name
from jobletd.backup.making import DATABASE
from jobletd.executor import Executor, Running
from jobletd.logging_setup import change_level, level_in_use
from jobletd.model import Phase
from jobletd.recent_log import recent
from jobletd.registry import Registry
from jobletd.services.convert import timestamp
from jobletd.services.jobs import note
from jobletd.services.requests import InvalidRequest
from jobletd.services.status_codes import answered
from jobletd.tls_front import Identity

Context = grpc.aio.ServicerContext[Any, Any]
LEVELS: tuple[str, ...] = get_args(get_args(LogLevel)[0])
WEEK_SECONDS = 7 * 86_400
LONGEST_SECONDS = 366 * 86_400
NS = 10**9
NAMES = {"joblet-launch": "launcher"}
log = structlog.get_logger("operation")


class TimedLevel:
    """The log's level, which goes back by itself. configured: what the configuration says now."""

    def __init__(self, configured: Callable[[], str]) -> None:
        self._configured = configured
        self._timer: asyncio.TimerHandle | None = None

    @property
    def configured(self) -> str:
        return self._configured()

    @property
    def seconds_left(self) -> float:
        if self._timer is None or level_in_use() == self.configured:
            return 0.0
        return max(self._timer.when() - asyncio.get_running_loop().time(), 0.0)

    def set(self, level: str, seconds: float) -> None:
        """level: empty for the configured one. seconds: 0 until further notice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        change_level(level or self.configured)
        if level and seconds:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._back)

    def _back(self) -> None:
        self._timer = None
        change_level(self.configured)
        log.info("log level as configured", level=self.configured)


class OperationService(operation_pb2_grpc.OperationServiceServicer):
    """See schemas/joblet/v1/operation.proto."""

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        clock: Clock,
        *,
        state_directory: str,
        node: Callable[[], node_pb2.Node],
        connections: Callable[[], list[Identity]],
        level: TimedLevel,
    ) -> None:
        """node: without its features. connections: those that stand on the port."""
        self._registry = registry
        self._executor = executor
        self._clock = clock
        self._state_directory = state_directory
        self._node = node
        self._connections = connections
        self._level = level

    async def Report(self, request: operation_pb2.ReportRequest, context: Context) -> operation_pb2.ReportResponse:
        async with answered(context):
            seconds = request.since_seconds or WEEK_SECONDS
            if not 0 < seconds <= LONGEST_SECONDS:
                raise InvalidRequest("since_seconds", f"{seconds} is not from 1 to {LONGEST_SECONDS}")
            now_ns = self._clock.wall_ns()
            since_ns = now_ns - seconds * NS
            disk = os.statvfs(self._state_directory)
            return operation_pb2.ReportResponse(
                node=self._node(),
                time=timestamp(now_ns),
                processes=await asyncio.to_thread(lambda: list(processes())),
                jobs=await self._active_jobs(),
                connections=[
                    operation_pb2.Connection(client=one.name, role=one.role or "", address=one.address)
                    for one in self._connections()
                ],
                errors=[operation_pb2.LogLine(time=one.time, level=one.level, text=one.text) for one in recent()],
                ended=await self._registry.store.read(lambda connection: ended_runs(connection, since_ns)),
                since_seconds=seconds,
                declared_jobs=len(self._registry.views),
                state_free_bytes=disk.f_bavail * disk.f_frsize,
                database_bytes=os.stat(f"{self._state_directory}/{DATABASE}").st_size,
                log_level=level_in_use(),
            )
        raise AssertionError("unreachable")

    async def GetLogLevel(self, request: operation_pb2.GetLogLevelRequest, context: Context) -> operation_pb2.LogLevel:
        return self._told()

    async def SetLogLevel(self, request: operation_pb2.SetLogLevelRequest, context: Context) -> operation_pb2.LogLevel:
        async with answered(context):
            level = request.level.upper()
            if level and level not in LEVELS:
                raise InvalidRequest("level", f"{request.level[:20]!r} is no level", todo=f"use {', '.join(LEVELS)}")
            if not 0 <= request.seconds <= LONGEST_SECONDS:  # NaN is neither
                raise InvalidRequest("seconds", f"{request.seconds:g} is not from 0 to {LONGEST_SECONDS}")
            note("log level", now=level or self._level.configured, seconds=request.seconds or None)
            self._level.set(level, request.seconds)
            return self._told()
        raise AssertionError("unreachable")

    def _told(self) -> operation_pb2.LogLevel:
        return operation_pb2.LogLevel(
            level=level_in_use(), configured=self._level.configured, seconds_left=self._level.seconds_left
        )

    async def _active_jobs(self) -> list[operation_pb2.ActiveJob]:
        """What runs, with what its cgroup says now; the largest in memory first."""
        running = {
            run.attempts[-1].id: run
            for view in self._registry.everything()
            for run in view.runs
            if run.phase is Phase.RUNNING and run.attempts
        }
        looks = await self._executor.observe(running)
        found = []
        for attempt_id, look in looks.items():
            if isinstance(look, Running):
                run = running[attempt_id]
                found.append(
                    operation_pb2.ActiveJob(
                        job=shown_name(run),
                        run_id=run.id,
                        started=timestamp(look.started_ns),
                        memory_bytes=look.usage.memory_bytes,
                        memory_peak_bytes=look.usage.memory_peak_bytes,
                        cpu_seconds=look.usage.cpu_seconds,
                        pids=look.usage.pids,
                    )
                )
        return sorted(found, key=lambda one: (-one.memory_bytes, one.job))


def processes() -> Iterator[operation_pb2.ProcessUse]:
    """The daemon, and what it has started itself; neither the jobs nor their inits."""
    own = psutil.Process()
    for process in (own, *own.children()):
        try:
            with process.oneshot():
                times = process.cpu_times()
                name = "daemon" if process.pid == own.pid else NAMES.get(process.name(), process.name())
                yield operation_pb2.ProcessUse(
                    pid=process.pid,
                    name=name,
                    memory_bytes=process.memory_info().rss,
                    tasks=process.num_threads(),
                    cpu_seconds=times.user + times.system,
                )
        except psutil.Error:
            continue  # it has just ended


def ended_runs(connection: sqlite3.Connection, since_ns: int) -> list[operation_pb2.EndedRuns]:
    """How many runs ended since then, by phase and reason, the most frequent first."""
    rows = connection.execute(
        """SELECT phase, reason, COUNT(*), AVG(ended_ns - COALESCE(started_ns, ended_ns)) FROM runs
           WHERE is_final = 1 AND array_index IS NULL AND ended_ns >= ?
           GROUP BY phase, reason ORDER BY COUNT(*) DESC, phase, reason""",
        (since_ns,),
    )
    return [
        operation_pb2.EndedRuns(phase=phase, reason=reason or "", count=count, mean_seconds=mean / NS)
        for phase, reason, count, mean in rows
    ]

"""``status/<job>.yml``: each job's status, for people who have only the spool directory.

Written atomically after every change, in a thread, a moment late so that a burst of changes becomes one write: the more there
is to write, the later. That a run is being launched can wait longer, since mostly it runs in a moment, or is over. Not durable:
after a power cut they are written anew from the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import structlog

from joblet.atomicfile import remove_unfinished, write_atomic
from joblet.crash_points import reached
from joblet.manifest import indexes_of
from joblet.manifest.yaml_writer import yaml_text
from jobletd.arrays.progress import Mark, named
from jobletd.model import Attempt, Exited, JobName, JobView, Killed, NotStarted, Outcome, Phase, Run, Unknown, Usage
from jobletd.sources.error_files import SUFFIX as ERROR_SUFFIX

_COALESCE_SECONDS = 0.02
_STARTING_SECONDS = 0.5  # until it is written that a run is being launched
_AT_ONCE = 100
_RUNS_SHOWN = 5
_INDEX_WORDS = {
    Mark.NOT_BEGUN: "notBegun",
    Mark.WAITING: "waiting",
    Mark.RUNNING: "running",
    Mark.SUCCEEDED: "succeeded",
    Mark.FAILED: "failed",
    Mark.STOPPED: "stopped",
    Mark.SKIPPED: "skipped",
}
_LONGEST_BYTES = 1 << 20  # of an earlier status file that may still be right

_log = structlog.get_logger(__name__)


class StatusFiles:
    """The status files of one directory. ``changed`` is a callback for DesiredState.on_change, on the event loop."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._waiting: dict[JobName, JobView | None] = {}
        self._starting: dict[JobName, JobView] = {}  # on record as they were before, and mostly another in a moment
        self._timer: asyncio.TimerHandle | None = None
        self._written: dict[JobName, bytes] = {}  # digests
        self._putting = threading.Lock()  # so that nothing older is written after something newer
        self._writer: asyncio.Task[None] | None = None

    def changed(self, name: JobName, view: JobView | None) -> None:
        """Note a job's new status; None: the job is gone."""
        self._starting.pop(name, None)
        if view is not None and _is_starting(view) and name in self._written and name not in self._waiting:
            self._starting[name] = view
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_STARTING_SECONDS, self._take_up_starting)
            return
        self._waiting[name] = view
        self._write_soon()

    def _take_up_starting(self) -> None:
        self._timer = None
        starting, self._starting = self._starting, {}
        self._waiting |= starting
        self._write_soon()

    def _write_soon(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="status-files")

    def flush(self) -> None:
        """Write what is waiting now, before returning."""
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting, self._starting = {**self._waiting, **self._starting}, {}, {}
        self._put_all(waiting)

    async def _write(self) -> None:
        """Until nothing waits. What changes again while it waits is written once."""
        try:
            while self._waiting:
                await asyncio.sleep(_COALESCE_SECONDS)
                names = list(islice(self._waiting, _AT_ONCE))
                await asyncio.to_thread(self._put_all, {name: self._waiting.pop(name) for name in names})
        finally:
            self._writer = None

    def _put_all(self, views: Mapping[JobName, JobView | None]) -> None:
        with self._putting:
            for name, view in views.items():
                try:
                    self._put(name, view)
                except OSError as error:
                    self._written.pop(name, None)
                    _log.error("status file not written", job=name, error=str(error))

    def keep_only(self, names: Collection[JobName]) -> None:
        """Remove the status files of all other jobs, which an earlier daemon left. Raises OSError."""
        if not os.path.isdir(self._directory):
            return
        remove_unfinished(self._directory)
        for entry in os.listdir(self._directory):
            job = entry.removesuffix(".yml")
            if entry.endswith(".yml") and not entry.endswith(ERROR_SUFFIX) and job not in names:
                os.unlink(os.path.join(self._directory, entry))

    def _put(self, name: JobName, view: JobView | None) -> None:
        path = os.path.join(self._directory, f"{name}.yml")
        if view is None:
            self._written.pop(name, None)
            if os.path.lexists(path):
                os.unlink(path)
            return
        data = status_text(view).encode()
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if self._written.get(name) == digest:
            return
        if name in self._written or _content(path) != data:  # what an earlier daemon wrote is mostly still right
            try:
                write_atomic(path, data, 0o644, durable=False)
            except FileNotFoundError:  # somebody removed the directory
                os.makedirs(self._directory, mode=0o755, exist_ok=True)
                write_atomic(path, data, 0o644, durable=False)
            reached("daemon.status-file-written")
        self._written[name] = digest


def _is_starting(view: JobView) -> bool:
    return bool(view.runs) and view.runs[0].phase is Phase.INITIALIZING


def _content(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as stream:
        return stream.read(_LONGEST_BYTES)


def status_text(view: JobView) -> str:
    """A job's status as YAML: what it is, how its newest run stands, the runs before that in short."""
    data: dict[str, Any] = {
        "name": view.name,
        "source": str(view.source),
        "generation": view.generation,
        "observedGeneration": view.observed_generation,
    }
    if view.deleting:
        data["deleting"] = True
    if view.conditions:
        data["conditions"] = [
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                **({"message": condition.message} if condition.message else {}),
                "since": _time(condition.since_ns),
            }
            for condition in view.conditions
        ]
    if view.next_tick_ns is not None:
        data["nextTick"] = _time(view.next_tick_ns)
    if view.runs:
        data["run"] = _run(view.runs[0])
        earlier = view.runs[1 : 1 + _RUNS_SHOWN]
        if earlier:
            data["earlierRuns"] = [_brief(run) for run in earlier]
    return yaml_text(data)


def _brief(run: Run) -> dict[str, Any]:
    data: dict[str, Any] = {"id": run.id, "generation": run.generation, "phase": run.phase.value}
    if run.reason is not None:
        data["reason"] = run.reason.value
    if run.message:
        data["message"] = run.message
    data |= _outcome(run.outcome)
    for key, time_ns in (("created", run.created_ns), ("started", run.started_ns), ("ended", run.ended_ns)):
        if time_ns is not None:
            data[key] = _time(time_ns)
    return data


def _run(run: Run) -> dict[str, Any]:
    data = _brief(run)
    if run.queue_position:
        data["placeInQueue"] = run.queue_position
    if run.next_attempt_ns is not None:
        data["nextAttempt"] = _time(run.next_attempt_ns)
    if run.marks:
        data["indexes"] = _indexes(run)
    if run.attempts:
        data["attempts"] = len(run.attempts)
        data |= _attempt(run.attempts[-1])
    return data


def _indexes(run: Run) -> dict[str, Any]:
    """Of an array: how many there are, how many stand how, and which ones failed."""
    array = indexes_of(run.manifest.spec)
    assert array is not None
    counts = {_INDEX_WORDS[mark]: run.marks.count(mark) for mark in Mark if mark in run.marks}
    failed = named(run.marks, array.first, Mark.FAILED)
    return {"count": len(run.marks), **counts, **({"failedIndexes": failed} if failed else {})}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if attempt.limits:
        data["limits"] = [
            {
                "name": limit.name,
                "asked": limit.asked,
                "effective": limit.effective,
                "enforced": limit.enforced,
                **({"message": limit.message} if limit.message else {}),
            }
            for limit in attempt.limits
        ]
    if attempt.end is not None and (usage := _usage(attempt.end.usage)):
        data["usage"] = usage
    return data


def _outcome(outcome: Outcome | None) -> dict[str, Any]:
    match outcome:
        case Exited(code):
            return {"exitCode": code}
        case Killed(signal):
            return {"signal": signal}
        case NotStarted(code, error):
            return {"exitCode": code, "error": error}
        case Unknown(why):
            return {"exitCode": None, "error": why}
        case None:
            return {}


def _usage(usage: Usage) -> dict[str, Any]:
    figures = {
        "memoryPeakBytes": usage.memory_peak_bytes,
        "cpuSeconds": usage.cpu_seconds,
        "throttledSeconds": usage.throttled_seconds,
        "ioReadBytes": usage.io_read_bytes,
        "ioWriteBytes": usage.io_write_bytes,
        "oomKills": usage.oom_kills,
        "cpuPressureSeconds": usage.cpu_pressure_seconds,
        "memoryPressureSeconds": usage.memory_pressure_seconds,
        "ioPressureSeconds": usage.io_pressure_seconds,
    }
    return {key: figure for key, figure in figures.items() if figure is not None}


def _time(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 10**6 % 1000:03d}Z"

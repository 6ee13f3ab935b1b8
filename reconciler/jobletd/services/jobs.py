"""JobService: desired state in, runs and their output out."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
import structlog

from joblet.api.v1 import job_pb2, job_pb2_grpc
from jobletd.desired import DesiredState
from jobletd.model import JobName, JobView, LogEntry, Source
from jobletd.selectors import LabelSelector
from jobletd.services import convert
from jobletd.services.access import caller
from jobletd.services.requests import (
    InvalidRequest,
    index_after,
    log_query_of,
    manifests_of,
    marks_of,
    nanoseconds_of,
    page_size_of,
    phases_of,
    ranges_of,
)
from jobletd.services.status_codes import answered

PAGE_BYTES = 8 << 20
ENTRIES_A_MESSAGE = 500
CONVERTED_KEPT = 16
audit = structlog.get_logger("audit")
Context = grpc.aio.ServicerContext[Any, Any]


class JobService(job_pb2_grpc.JobServiceServicer):
    """See schemas/joblet/v1/job.proto for what each method promises."""

    def __init__(self, desired: DesiredState, *, message_bytes: int = 2 * PAGE_BYTES) -> None:
        """message_bytes: the most that an answer may have."""
        self._desired = desired
        self._converted = LastConverted()
        self._page_bytes = message_bytes // 2

    async def Apply(self, request: job_pb2.ApplyRequest, context: Context) -> job_pb2.ApplyResponse:
        async with answered(context):
            manifests = await manifests_of(request)
            source = Source("grpc", caller.get().name)
            results = await self._desired.apply(manifests, source, dry_run=request.dry_run, take_over=request.take_over)
            for result in [] if request.dry_run else results:
                note("apply", job=result.name, action=result.action.value, generation=result.generation)
            return job_pb2.ApplyResponse(
                results=[convert.apply_result(result, dry_run=request.dry_run) for result in results]
            )
        raise AssertionError("unreachable")

    async def Run(self, request: job_pb2.RunRequest, context: Context) -> job_pb2.RunResponse:
        async with answered(context):
            run_id = await self._desired.trigger(JobName(request.name), force=request.force)
            note("run", job=request.name, run=run_id, force=request.force)
            return job_pb2.RunResponse(run_id=run_id)
        raise AssertionError("unreachable")

    async def Get(self, request: job_pb2.GetRequest, context: Context) -> job_pb2.Job:
        async with answered(context):
            return convert.job(await self._desired.get(request.ref, history=request.history))
        raise AssertionError("unreachable")

    async def List(self, request: job_pb2.ListRequest, context: Context) -> job_pb2.ListResponse:
        async with answered(context):
            views = await self._desired.list_jobs(
                selector=LabelSelector.parse(request.label_selector),
                phases=phases_of(request.phases),
                limit=page_size_of(request) + 1,
                after=request.page_token,
            )
            jobs = page_of(views, page_size_of(request), self._page_bytes)
            more = len(views) > len(jobs)
            return job_pb2.ListResponse(jobs=jobs, next_page_token=jobs[-1].name if more else "")
        raise AssertionError("unreachable")

    async def Watch(self, request: job_pb2.WatchRequest, context: Context) -> AsyncIterator[job_pb2.WatchEvent]:
        async with answered(context):
            selector = LabelSelector.parse(request.label_selector)
            async for change in self._desired.watch(request.ref or None, selector):
                yield job_pb2.WatchEvent(
                    type=change.type,
                    job=None if change.job is None else self._converted.job(change.job),
                )

    async def Delete(self, request: job_pb2.DeleteRequest, context: Context) -> job_pb2.DeleteResponse:
        async with answered(context):
            await self._desired.delete(JobName(request.name), source=Source("grpc", caller.get().name))
            note("delete", job=request.name)
            return job_pb2.DeleteResponse()
        raise AssertionError("unreachable")

    async def Stop(self, request: job_pb2.StopRequest, context: Context) -> job_pb2.StopResponse:
        async with answered(context):
            run_id = await self._desired.stop(request.ref, force=request.force)
            note("stop", ref=request.ref, run=run_id, force=request.force)
            return job_pb2.StopResponse(run_id=run_id)
        raise AssertionError("unreachable")

    async def Indexes(self, request: job_pb2.IndexesRequest, context: Context) -> job_pb2.IndexesResponse:
        async with answered(context):
            size = page_size_of(request)
            marks, after = marks_of(request.states), index_after(request.page_token)
            run, found = await self._desired.indexes(request.ref, marks, limit=size + 1, after=after)
            more = str(found[size - 1].index) if len(found) > size else ""
            indexes = [convert.index(one) for one in found[:size]]
            return job_pb2.IndexesResponse(indexes=indexes, next_page_token=more, job=run.job, run_id=run.id)
        raise AssertionError("unreachable")

    async def Retry(self, request: job_pb2.RetryRequest, context: Context) -> job_pb2.RetryResponse:
        async with answered(context):
            run_id, count = await self._desired.retry(request.ref, ranges_of(request.indexes))
            note("retry", ref=request.ref, run=run_id, indexes=count)
            return job_pb2.RetryResponse(run_id=run_id, count=count)
        raise AssertionError("unreachable")

    async def Logs(self, request: job_pb2.LogsRequest, context: Context) -> AsyncIterator[job_pb2.LogsResponse]:
        async with answered(context):
            query = log_query_of(request)
            async for batch in self._desired.logs(request.ref, request.attempt, query):
                for part in parts_of(batch, self._page_bytes):
                    yield job_pb2.LogsResponse(entries=[convert.log_entry(entry) for entry in part])

    async def Events(self, request: job_pb2.EventsRequest, context: Context) -> AsyncIterator[job_pb2.Event]:
        async with answered(context):
            since_ns = nanoseconds_of(request.since, "since") if request.HasField("since") else 0
            if request.tail < 0:
                raise InvalidRequest("tail", f"{request.tail} is negative", todo="0 means all")
            events = self._desired.events(request.ref, follow=request.follow, since_ns=since_ns, tail=request.tail)
            async for event in events:
                yield convert.event(event)


class LastConverted:
    """The latest messages of a watch: what a thousand watchers are told is made once."""

    def __init__(self) -> None:
        self._known: deque[tuple[JobView, job_pb2.Job]] = deque(maxlen=CONVERTED_KEPT)

    def job(self, view: JobView) -> job_pb2.Job:
        for known, message in reversed(self._known):
            if known is view:
                return message
        message = convert.job(view)
        self._known.append((view, message))
        return message


def parts_of(entries: Sequence[LogEntry], part_bytes: int) -> Iterator[Sequence[LogEntry]]:
    """What fits into one message each, but at least one entry."""
    start, size = 0, 0
    for place, entry in enumerate(entries):
        if place > start and (size + len(entry.data) > part_bytes or place - start >= ENTRIES_A_MESSAGE):
            yield entries[start:place]
            start, size = place, 0
        size += len(entry.data)
    if entries:
        yield entries[start:]


def page_of(views: Sequence[JobView], size: int, page_bytes: int = PAGE_BYTES) -> list[job_pb2.Job]:
    """As many as are asked for and fit into one message, but at least one."""
    jobs: list[job_pb2.Job] = []
    left_bytes = page_bytes
    for view in views[:size]:
        job = convert.job(view)
        left_bytes -= job.ByteSize()
        if jobs and left_bytes < 0:
            break
        jobs.append(job)
    return jobs


def note(change: str, **what: object) -> None:
    """One audit line for each change: who, what, which generation."""
    identity = caller.get()
    audit.info(change, client=identity.name, role=identity.role, peer=identity.address, **what)

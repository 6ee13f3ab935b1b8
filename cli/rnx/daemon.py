"""The daemon as the client sees it: one typed method a call, with a deadline, and errors made for people."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import grpc

from joblet.api.channel import open_channel
from joblet.api.v1 import (
    file_pb2,
    file_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    monitor_pb2,
    monitor_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)
from joblet.config import NodeConfig
from rnx.call_errors import explain_failure

ANSWER_SECONDS = 30.0
PAGE = 500
Answer = TypeVar("Answer")


def trace_of_this_process() -> Sequence[tuple[str, str]] | None:
    """TRACEPARENT of our own environment, as a call passes it on; None without one that is valid."""
    if "TRACEPARENT" not in os.environ:
        return None
    from joblet.trace_context import as_metadata, from_variables

    return as_metadata(from_variables(os.environ)) or None


class Daemon:
    """A connection to one node; it comes about with the first call. Every method raises ClientError."""

    def __init__(self, node: NodeConfig, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.node = node
        self._seconds = answer_seconds
        self._channel = open_channel(node)
        self._jobs: Any = cast(Any, job_pb2_grpc.JobServiceStub)(self._channel)
        self._resources: Any = cast(Any, resource_pb2_grpc.ResourceServiceStub)(self._channel)
        self._files: Any = cast(Any, file_pb2_grpc.FileServiceStub)(self._channel)
        self._monitor: Any = cast(Any, monitor_pb2_grpc.MonitorServiceStub)(self._channel)
        self._nodes: Any = cast(Any, node_pb2_grpc.NodeServiceStub)(self._channel)
        self._operation: Any = cast(Any, operation_pb2_grpc.OperationServiceStub)(self._channel)

    def close(self) -> None:
        self._channel.close()

    def apply(
        self,
        manifest: bytes,
        *,
        filename: str,
        dry_run: bool = False,
        take_over: bool = False,
        files: Sequence[dict[str, Any]] = (),
    ) -> list[job_pb2.ApplyResult]:
        """files: what each ``from`` in the manifests stands for, as in LocalFile."""
        local = [job_pb2.LocalFile(**file) for file in files]
        request = job_pb2.ApplyRequest(
            manifest=manifest, filename=filename, dry_run=dry_run, take_over=take_over, files=local
        )
        answer: job_pb2.ApplyResponse = self._call(self._jobs.Apply, request, trace_of_this_process())
        return list(answer.results)

    def find_missing(self, contents: Iterable[tuple[str, int]]) -> list[str]:
        """Which of these contents (SHA-256, size) have to be uploaded."""
        asked = [file_pb2.Content(sha256=sha256, size=size) for sha256, size in contents]
        answer: file_pb2.FindMissingResponse = self._call(
            self._files.FindMissing, file_pb2.FindMissingRequest(contents=asked)
        )
        return list(answer.sha256)

    def upload(self, messages: Iterator[file_pb2.UploadRequest]) -> None:
        """However long it takes."""
        try:
            self._files.Upload(messages)
        except grpc.RpcError as error:
            raise explain_failure(error, self.node) from error

    def trigger(self, name: str, *, force: bool = False) -> str:
        """One more run of a job; force: whatever else of it runs. Returns its id."""
        request = job_pb2.RunRequest(name=name, force=force)
        answer: job_pb2.RunResponse = self._call(self._jobs.Run, request, trace_of_this_process())
        return answer.run_id

    def get(self, ref: str, *, history: bool = False) -> job_pb2.Job:
        job: job_pb2.Job = self._call(self._jobs.Get, job_pb2.GetRequest(ref=ref, history=history))
        return job

    def list_jobs(self, *, selector: str = "", phases: Iterable[str] = ()) -> Iterator[job_pb2.Job]:
        """All matching jobs by name, page after page."""
        token = ""
        while True:
            request = job_pb2.ListRequest(label_selector=selector, phases=phases, page_size=PAGE, page_token=token)
            answer: job_pb2.ListResponse = self._call(self._jobs.List, request)
            yield from answer.jobs
            token = answer.next_page_token
            if not token:
                return

    def delete(self, name: str) -> None:
        self._call(self._jobs.Delete, job_pb2.DeleteRequest(name=name))

    def resource(self, kind: str, name: str) -> resource_pb2.Resource:
        request = resource_pb2.GetResourceRequest(kind=kind, name=name)
        resource: resource_pb2.Resource = self._call(self._resources.GetResource, request)
        return resource

    def list_resources(self, kind: str) -> list[resource_pb2.Resource]:
        """All of one kind, by name."""
        request = resource_pb2.ListResourcesRequest(kind=kind)
        answer: resource_pb2.ListResourcesResponse = self._call(self._resources.ListResources, request)
        return list(answer.resources)

    def delete_resource(self, kind: str, name: str) -> None:
        self._call(self._resources.DeleteResource, resource_pb2.DeleteResourceRequest(kind=kind, name=name))

    def sync_source(self, name: str, *, allow_delete: bool, take_over: bool) -> resource_pb2.SyncSourceResponse:
        """Look at a GitSource's repository now."""
        request = resource_pb2.SyncSourceRequest(name=name, allow_delete=allow_delete, take_over=take_over)
        answer: resource_pb2.SyncSourceResponse = self._call(self._resources.SyncSource, request)
        return answer

    def retry_workflow(
        self, name: str, *, step: str = "", whole: bool = False, force: bool = False
    ) -> resource_pb2.RetryWorkflowResponse:
        """Run a part of a workflow anew, or all of it."""
        request = resource_pb2.RetryWorkflowRequest(name=name, from_step=step, whole=whole, force=force)
        trace = trace_of_this_process()
        answer: resource_pb2.RetryWorkflowResponse = self._call(self._resources.RetryWorkflow, request, trace)
        return answer

    def stop_workflow(self, name: str, *, force: bool) -> int:
        """End its run. Returns the number of that."""
        request = resource_pb2.StopWorkflowRequest(name=name, force=force)
        answer: resource_pb2.StopWorkflowResponse = self._call(self._resources.StopWorkflow, request)
        return answer.run

    def watch_resource(self, kind: str, name: str, *, seconds: float | None) -> Iterator[resource_pb2.Resource]:
        """How it stands now and after each change."""
        request = resource_pb2.GetResourceRequest(kind=kind, name=name)
        return self._stream(self._resources.WatchResource, request, seconds)

    def indexes(
        self, ref: str, *, states: Iterable[str] = (), page_size: int = PAGE, after: int = -1
    ) -> Iterator[job_pb2.Index]:
        """The indexes of an array, those beyond ``after`` and in these states (none: any), page after page."""
        token = str(after) if after >= 0 else ""
        while True:
            request = job_pb2.IndexesRequest(ref=ref, states=states, page_size=page_size, page_token=token)
            answer: job_pb2.IndexesResponse = self._call(self._jobs.Indexes, request)
            yield from answer.indexes
            token = answer.next_page_token
            if not token:
                return

    def retry(self, ref: str, ranges: Iterable[tuple[int, int]]) -> job_pb2.RetryResponse:
        """Run indexes of an array anew; none: all that did not succeed."""
        indexes = [job_pb2.IndexRange(first=first, last=last) for first, last in ranges]
        answer: job_pb2.RetryResponse = self._call(self._jobs.Retry, job_pb2.RetryRequest(ref=ref, indexes=indexes))
        return answer

    def stop(self, ref: str, *, force: bool) -> str:
        """Stop the current run. Returns its id."""
        answer: job_pb2.StopResponse = self._call(self._jobs.Stop, job_pb2.StopRequest(ref=ref, force=force))
        return answer.run_id

    def watch(self, ref: str, *, seconds: float | None) -> Iterator[job_pb2.WatchEvent]:
        return self._stream(self._jobs.Watch, job_pb2.WatchRequest(ref=ref), seconds)

    def logs(self, request: job_pb2.LogsRequest) -> Iterator[job_pb2.LogsResponse]:
        return self._stream(self._jobs.Logs, request, None)

    def events(self, request: job_pb2.EventsRequest) -> Iterator[job_pb2.Event]:
        return self._stream(self._jobs.Events, request, None)

    def watch_usage(self, request: monitor_pb2.WatchUsageRequest) -> Iterator[monitor_pb2.NodeUsage]:
        return self._stream(self._monitor.WatchUsage, request, None)

    def profile(self, run_id: str) -> monitor_pb2.Profile:
        """What a run's last attempt used over time."""
        answer: monitor_pb2.Profile = self._call(self._monitor.GetProfile, monitor_pb2.GetProfileRequest(ref=run_id))
        return answer

    def node_info(self, *, engine_nodes: bool = False) -> node_pb2.Node:
        request = node_pb2.GetNodeRequest(engine_nodes=engine_nodes)
        node: node_pb2.Node = self._call(self._nodes.GetNode, request)
        return node

    def cordon(self, reason: str) -> None:
        self._call(self._nodes.Cordon, node_pb2.CordonRequest(reason=reason))

    def uncordon(self) -> bool:
        """Whether the node was cordoned."""
        answer: node_pb2.UncordonResponse = self._call(self._nodes.Uncordon, node_pb2.UncordonRequest())
        return answer.changed

    def log_level(self) -> operation_pb2.LogLevel:
        level: operation_pb2.LogLevel = self._call(self._operation.GetLogLevel, operation_pb2.GetLogLevelRequest())
        return level

    def set_log_level(self, level: str, seconds: float) -> operation_pb2.LogLevel:
        """level: empty for that of the configuration. seconds: 0 until further notice."""
        request = operation_pb2.SetLogLevelRequest(level=level, seconds=seconds)
        answer: operation_pb2.LogLevel = self._call(self._operation.SetLogLevel, request)
        return answer

    def drain(self, reason: str, *, stay: bool, seconds: float | None) -> Iterator[node_pb2.DrainProgress]:
        return self._stream(self._nodes.Drain, node_pb2.DrainRequest(reason=reason, stay=stay), seconds)

    def _call(
        self, method: Callable[..., Any], request: object, metadata: Sequence[tuple[str, str]] | None = None
    ) -> Any:
        try:
            return method(request, timeout=self._seconds, metadata=metadata)
        except grpc.RpcError as error:
            raise explain_failure(error, self.node) from error

    def _stream(self, method: Callable[..., Any], request: object, seconds: float | None) -> Iterator[Any]:
        """The messages of a streaming call, which is cancelled when nobody wants more of them."""
        call = method(request, timeout=seconds)
        try:
            yield from call
        except grpc.RpcError as error:
            raise explain_failure(error, self.node) from error
        finally:
            call.cancel()

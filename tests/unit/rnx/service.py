# ruff: noqa: N802  (gRPC names the methods)
"""A real gRPC server with TLS and client certificates that answers from messages which the tests lay down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from joblet.api.v1 import (
    file_pb2,
    file_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)
from joblet.pki import Authority, Role

STARTED = 1_767_322_985  # 2026-01-02T03:03:05Z
MANIFEST = "apiVersion: joblet/v1\nkind: Job\nmetadata:\n  name: hello\nspec:\n  command: [echo, hi]\n"


def make_run(run_id: str = "k3x9q2ab", *, job: str = "hello", phase: str = "COMPLETED", **more: Any) -> job_pb2.Run:
    """A run that took 2.5 s; with an exit code of 0 if it completed."""
    run = job_pb2.Run(id=run_id, job=job, phase=phase, generation=1, trigger="generation", command=["echo", "hi"])
    run.created.FromSeconds(STARTED - 1)
    if phase not in ("PENDING", "SCHEDULED", "INITIALIZING"):
        run.started.FromSeconds(STARTED)
    if phase in ("COMPLETED", "FAILED", "STOPPED"):
        run.ended.FromMilliseconds(STARTED * 1000 + 2500)
    if phase == "COMPLETED":
        run.exit_code, run.reason = 0, "Completed"
    for name, value in more.items():
        setattr(run, name, value)
    return run


def make_job(name: str = "hello", *runs: job_pb2.Run, **more: Any) -> job_pb2.Job:
    job = job_pb2.Job(name=name, uid="u-1", generation=1, observed_generation=1, source="grpc:admin", runs=runs, **more)
    job.manifest = job.manifest or MANIFEST.replace("hello", name)
    job.created.FromSeconds(STARTED - 1)
    job.updated.FromSeconds(STARTED - 1)
    return job


def entry(data: bytes, *, time_ns: int = STARTED * 10**9, stream: str = "stdout", **more: Any) -> job_pb2.LogEntry:
    return job_pb2.LogEntry(time_ns=time_ns, stream=stream, data=data, attempt=more.pop("attempt", 1), **more)


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer that is an error, with details as the daemon sends them."""

    code: grpc.StatusCode
    text: str
    details: tuple[Message, ...] = ()


def refusal(code: grpc.StatusCode, what: str, *, todo: str = "", more: tuple[Message, ...] = ()) -> Refusal:
    """As the daemon words it: the advice stands in the text and, for programs, in the details."""
    info = error_details_pb2.ErrorInfo(reason="Test", domain="joblet", metadata={"todo": todo})
    return Refusal(code, f"{what} ({todo})" if todo else what, (info, *more))


@dataclass
class Answers:
    """What the service answers, and what it was asked."""

    jobs: dict[str, job_pb2.Job] = field(default_factory=dict)
    workflows: set[str] = field(default_factory=set)  # of which nothing but the name matters
    resources: dict[str, resource_pb2.Resource] = field(default_factory=dict)  # by kind/name
    changes: list[list[resource_pb2.Resource] | Refusal] = field(default_factory=list)  # one item a WatchResource
    place: int = 0  # in the line, of a run of a workflow that is asked for
    indexes: list[job_pb2.Index] = field(default_factory=list)
    later_indexes: list[list[job_pb2.Index]] = field(default_factory=list)  # one list a call, after the first
    apply: Callable[[job_pb2.ApplyRequest], list[job_pb2.ApplyResult]] | None = None
    watch: list[list[job_pb2.WatchEvent]] = field(default_factory=list)  # one list a call; after the last: nothing more
    logs: list[list[job_pb2.LogEntry] | Refusal] = field(default_factory=list)  # one item a call
    logs_of: dict[str, list[job_pb2.LogEntry] | Refusal] = field(default_factory=dict)  # by run, before those
    events: list[job_pb2.Event] = field(default_factory=list)
    refusals: dict[str, Refusal] = field(default_factory=dict)  # by method
    requests: list[Any] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)  # that were uploaded, by SHA-256
    cordoned: bool = False
    executors: list[node_pb2.ExecutorState] = field(default_factory=list)
    engine_nodes: list[node_pb2.EngineNode] = field(default_factory=list)
    drain: list[node_pb2.DrainProgress] = field(default_factory=list)
    page_size: int = 0
    hold: threading.Event = field(default_factory=threading.Event)  # set: streams end; else they stay open

    def asked(self, kind: type[Any]) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]


class Service(
    job_pb2_grpc.JobServiceServicer,
    node_pb2_grpc.NodeServiceServicer,
    file_pb2_grpc.FileServiceServicer,
    resource_pb2_grpc.ResourceServiceServicer,
):
    """All services, from one set of answers."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def note(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self.answers.requests.append(request)
        if found := self.answers.refusals.get(method):
            refuse(found, context)

    def find(self, ref: str, context: grpc.ServicerContext) -> job_pb2.Job:
        for job in self.answers.jobs.values():
            if ref == job.name:
                return job
            for run in job.runs:
                if len(ref) >= 4 and run.id.startswith(ref):
                    found = job_pb2.Job()
                    found.CopyFrom(job)
                    del found.runs[:]
                    found.runs.append(run)
                    return found
        names = [job.name for job in self.answers.jobs.values()]
        todo = f"did you mean {names[0]}?" if names else ""
        refuse(refusal(grpc.StatusCode.NOT_FOUND, f"no job or run {ref!r}", todo=todo), context)
        raise AssertionError("abort raises")

    def Apply(self, request: job_pb2.ApplyRequest, context: grpc.ServicerContext) -> job_pb2.ApplyResponse:
        self.note("Apply", request, context)
        assert self.answers.apply is not None
        return job_pb2.ApplyResponse(results=self.answers.apply(request))

    def Run(self, request: job_pb2.RunRequest, context: grpc.ServicerContext) -> job_pb2.RunResponse:
        self.note("Run", request, context)
        return job_pb2.RunResponse(run_id=self.find(request.name, context).runs[0].id)

    def Get(self, request: job_pb2.GetRequest, context: grpc.ServicerContext) -> job_pb2.Job:
        self.note("Get", request, context)
        return self.find(request.ref, context)

    def List(self, request: job_pb2.ListRequest, context: grpc.ServicerContext) -> job_pb2.ListResponse:
        self.note("List", request, context)
        jobs = [job for name, job in sorted(self.answers.jobs.items()) if name > request.page_token]
        if request.phases:
            jobs = [job for job in jobs if job.runs and job.runs[0].phase in request.phases]
        size = self.answers.page_size or len(jobs)
        more = jobs[size - 1].name if len(jobs) > size else ""
        return job_pb2.ListResponse(jobs=jobs[:size], next_page_token=more)

    def Watch(self, request: job_pb2.WatchRequest, context: grpc.ServicerContext) -> Iterator[job_pb2.WatchEvent]:
        self.note("Watch", request, context)
        yield from self.answers.watch.pop(0) if self.answers.watch else []
        self.stay_open(context)

    def Indexes(self, request: job_pb2.IndexesRequest, context: grpc.ServicerContext) -> job_pb2.IndexesResponse:
        self.note("Indexes", request, context)
        after = int(request.page_token or -1)
        found = [one for one in self.answers.indexes if one.index > after]
        found = [one for one in found if not request.states or one.state in request.states]
        size = request.page_size or len(found)
        more = str(found[size - 1].index) if len(found) > size else ""
        if self.answers.later_indexes:
            self.answers.indexes = self.answers.later_indexes.pop(0)
        return job_pb2.IndexesResponse(indexes=found[:size], next_page_token=more)

    def Retry(self, request: job_pb2.RetryRequest, context: grpc.ServicerContext) -> job_pb2.RetryResponse:
        self.note("Retry", request, context)
        return job_pb2.RetryResponse(run_id="newrun00", count=2)

    def Delete(self, request: job_pb2.DeleteRequest, context: grpc.ServicerContext) -> job_pb2.DeleteResponse:
        self.note("Delete", request, context)
        self.find(request.name, context)
        return job_pb2.DeleteResponse()

    def Stop(self, request: job_pb2.StopRequest, context: grpc.ServicerContext) -> job_pb2.StopResponse:
        self.note("Stop", request, context)
        return job_pb2.StopResponse(run_id=self.find(request.ref, context).runs[0].id)

    def Logs(self, request: job_pb2.LogsRequest, context: grpc.ServicerContext) -> Iterator[job_pb2.LogsResponse]:
        self.note("Logs", request, context)
        if (found := self.answers.logs_of.get(request.ref)) is not None:
            if isinstance(found, Refusal):
                refuse(found, context)
            else:
                yield job_pb2.LogsResponse(entries=found)
            return
        while self.answers.logs:
            batch = self.answers.logs.pop(0)
            if isinstance(batch, Refusal):
                refuse(batch, context)
            else:
                yield job_pb2.LogsResponse(entries=batch)

    def Events(self, request: job_pb2.EventsRequest, context: grpc.ServicerContext) -> Iterator[job_pb2.Event]:
        self.note("Events", request, context)
        yield from self.answers.events

    def GetNode(self, request: node_pb2.GetNodeRequest, context: grpc.ServicerContext) -> node_pb2.Node:
        self.note("GetNode", request, context)
        cordon = node_pb2.CordonState(by="anna", reason="new disk") if self.answers.cordoned else None
        return node_pb2.Node(
            cordon=cordon, hostname="box", version="0.1.0", kernel="6.1", architecture="x86_64", cpus=2, memory_bytes=1 << 30,
            cgroup_mode="v2", running_jobs=3, queued_jobs=1,
            features=[node_pb2.Feature(name="limits.io", available=False, detail="no io controller")],
            executors=self.answers.executors, engine_nodes=self.answers.engine_nodes if request.engine_nodes else (),
        )  # fmt: skip

    def Cordon(self, request: node_pb2.CordonRequest, context: grpc.ServicerContext) -> node_pb2.CordonResponse:
        self.note("Cordon", request, context)
        self.answers.cordoned = True
        return node_pb2.CordonResponse()

    def Uncordon(self, request: node_pb2.UncordonRequest, context: grpc.ServicerContext) -> node_pb2.UncordonResponse:
        self.note("Uncordon", request, context)
        changed, self.answers.cordoned = self.answers.cordoned, False
        return node_pb2.UncordonResponse(changed=changed)

    def Drain(self, request: node_pb2.DrainRequest, context: grpc.ServicerContext) -> Iterator[node_pb2.DrainProgress]:
        self.note("Drain", request, context)
        yield from self.answers.drain
        if not self.answers.drain[-1].done:
            self.stay_open(context)

    def GetResource(
        self, request: resource_pb2.GetResourceRequest, context: grpc.ServicerContext
    ) -> resource_pb2.Resource:
        self.note("GetResource", request, context)
        if (found := self.answers.resources.get(f"{request.kind}/{request.name}")) is not None:
            return found
        if request.name not in self.answers.workflows:
            refuse(refusal(grpc.StatusCode.NOT_FOUND, f"no {request.kind} {request.name!r}"), context)
        return resource_pb2.Resource(kind=request.kind, name=request.name)

    def ListResources(
        self, request: resource_pb2.ListResourcesRequest, context: grpc.ServicerContext
    ) -> resource_pb2.ListResourcesResponse:
        self.note("ListResources", request, context)
        found = [one for key, one in sorted(self.answers.resources.items()) if key.startswith(f"{request.kind}/")]
        return resource_pb2.ListResourcesResponse(resources=found)

    def WatchResource(
        self, request: resource_pb2.GetResourceRequest, context: grpc.ServicerContext
    ) -> Iterator[resource_pb2.Resource]:
        self.note("WatchResource", request, context)
        found = self.answers.changes.pop(0) if self.answers.changes else []
        if isinstance(found, Refusal):
            refuse(found, context)
        else:
            yield from found
        self.stay_open(context)

    def StopWorkflow(
        self, request: resource_pb2.StopWorkflowRequest, context: grpc.ServicerContext
    ) -> resource_pb2.StopWorkflowResponse:
        self.note("StopWorkflow", request, context)
        return resource_pb2.StopWorkflowResponse(run=3)

    def RetryWorkflow(
        self, request: resource_pb2.RetryWorkflowRequest, context: grpc.ServicerContext
    ) -> resource_pb2.RetryWorkflowResponse:
        self.note("RetryWorkflow", request, context)
        return resource_pb2.RetryWorkflowResponse(run=3, place=self.answers.place)

    def FindMissing(
        self, request: file_pb2.FindMissingRequest, context: grpc.ServicerContext
    ) -> file_pb2.FindMissingResponse:
        self.note("FindMissing", request, context)
        missing = [one.sha256 for one in request.contents if one.sha256 not in self.answers.contents]
        return file_pb2.FindMissingResponse(sha256=missing)

    def Upload(
        self, request_iterator: Iterator[file_pb2.UploadRequest], context: grpc.ServicerContext
    ) -> file_pb2.UploadResponse:
        self.note("Upload", None, context)
        name = ""
        for message in request_iterator:
            name = message.begin.sha256 or name
            self.answers.contents[name] = self.answers.contents.get(name, b"") + message.data
        return file_pb2.UploadResponse()

    def stay_open(self, context: grpc.ServicerContext) -> None:
        """A stream that the daemon would keep open: until the client goes, or the test is over."""
        gone = threading.Event()
        context.add_callback(gone.set)
        while not gone.wait(0.02) and not self.answers.hold.is_set():
            pass


def refuse(found: Refusal, context: grpc.ServicerContext) -> None:
    if not found.details:
        context.abort(found.code, found.text)
    packed = []
    for detail in found.details:
        wrapped = AnyMessage()
        wrapped.Pack(detail)
        packed.append(wrapped)
    status = status_pb2.Status(code=found.code.value[0], message=found.text, details=packed)
    context.abort_with_status(rpc_status.to_status(status))


@dataclass(frozen=True)
class Running:
    """A service that listens, and a way to write configurations for it."""

    answers: Answers
    address: str
    authority: Authority
    directory: Path

    def config(self, name: str = "rnx-config.yml", *, authority: Authority | None = None, days: float = 30) -> Path:
        """A client configuration; days below zero: its certificate has expired."""
        issuer = authority or self.authority
        pair = issuer.issue_client("tester", Role.ADMIN, datetime.now(UTC) - timedelta(days=40), days=40 + days)
        return write_config(self.directory / name, self.address, pair.certificate, pair.key, self.authority)


def write_config(path: Path, address: str, certificate: str, key: str, authority: Authority) -> Path:
    def block(text: str) -> str:
        return "|\n" + "".join(f"      {line}\n" for line in text.splitlines())

    path.write_text(
        f'version: "3.0"\nnodes:\n  default:\n    address: {address}\n'
        f"    cert: {block(certificate)}    key: {block(key)}    ca: {block(authority.pair.certificate)}"
    )
    path.chmod(0o600)
    return path


@contextmanager
def serve(directory: Path) -> Iterator[Running]:
    """A listening service on loopback, TLS with client certificates required."""
    answers = Answers()
    authority = Authority.create(datetime.now(UTC))
    pair = authority.issue_server(["localhost"], datetime.now(UTC))
    server = grpc.server(ThreadPoolExecutor(8))
    service = Service(answers)
    job_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    node_pb2_grpc.add_NodeServiceServicer_to_server(service, server)
    file_pb2_grpc.add_FileServiceServicer_to_server(service, server)
    resource_pb2_grpc.add_ResourceServiceServicer_to_server(service, server)
    credentials = grpc.ssl_server_credentials(
        [(pair.key.encode(), pair.certificate.encode())], authority.pair.certificate.encode(), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield Running(answers, f"127.0.0.1:{port}", authority, directory)
    finally:
        answers.hold.set()
        server.stop(None).wait(10)

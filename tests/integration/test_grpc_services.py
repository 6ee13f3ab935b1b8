"""The services over real gRPC, before a desired state that answers as the test wants: errors, batches, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from joblet.api.v1 import (
    file_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    monitor_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    operation_pb2_grpc,
    resource_pb2_grpc,
)
from joblet.manifest import jobs_of, read_manifests
from jobletd import errors
from jobletd.model import JobChange, JobView, LogEntry, Source
from jobletd.services.access import AccessControl
from jobletd.services.jobs import ENTRIES_A_MESSAGE, JobService
from jobletd.services.server import ApiServer
from tests.timing import PATIENCE

WITHIN = 20 * PATIENCE
Code = grpc.StatusCode
Log = list[Any]


def job(number: int = 0) -> JobView:
    text = f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: job{number:04}}}\nspec: {{command: [x]}}\n"
    (manifest,) = jobs_of(read_manifests(text.encode(), filename="x"))
    return JobView(f"uid{number}", manifest, Source("grpc", "root"), 1, 1, 1, 1)


class Desired:
    """A desired state whose answers are set from outside."""

    def __init__(self) -> None:
        self.jobs: list[JobView] = []
        self.log: list[list[LogEntry]] = []
        self.error: Exception | None = None

    async def get(self, ref: str, *, history: bool) -> JobView:
        if self.error is not None:
            raise self.error
        return self.jobs[0]

    async def list_jobs(self, *, limit: int, after: str, **_: object) -> list[JobView]:
        return [view for view in self.jobs if view.name > after][:limit]

    async def watch(self, ref: str | None, selector: object) -> AsyncIterator[JobChange]:
        for view in self.jobs:
            yield JobChange("ADDED", view)
        if self.error is not None:
            raise self.error

    async def logs(self, ref: str, attempt: int, query: object) -> AsyncIterator[list[LogEntry]]:
        for batch in self.log:
            yield batch


class Node(node_pb2_grpc.NodeServiceServicer):
    """Breaks."""

    async def GetNode(self, request: Any, context: Any) -> node_pb2.Node:  # noqa: N802  as in the proto
        raise AssertionError("not asked for here")


class Resources(resource_pb2_grpc.ResourceServiceServicer):
    """Not asked here."""


class Files(file_pb2_grpc.FileServiceServicer):
    """Nor these."""


class Monitor(monitor_pb2_grpc.MonitorServiceServicer):
    """Nor this."""


class Operation(operation_pb2_grpc.OperationServiceServicer):
    """Nor this."""


@asynccontextmanager
async def served(tmp_path: Path, desired: Any) -> AsyncIterator[job_pb2_grpc.JobServiceStub]:
    server = ApiServer(
        AccessControl(lambda _: None),
        JobService(desired),
        Node(),
        Resources(),
        Files(),
        Monitor(),
        Operation(),
        f"{tmp_path}/s",
    )
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            yield job_pb2_grpc.JobServiceStub(channel)
    finally:
        await server.stop()


def run(test: Coroutine[Any, Any, None]) -> Log:
    async def bounded() -> None:
        async with asyncio.timeout(60 * PATIENCE):
            await test

    with structlog.testing.capture_logs() as log:
        asyncio.run(bounded())
    return log


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (errors.NoSuchJob("helo", ["hello"]), Code.NOT_FOUND, error_details_pb2.ResourceInfo),
        (errors.WrongState("job 'x' does not run"), Code.FAILED_PRECONDITION, error_details_pb2.PreconditionFailure),
        (errors.AmbiguousRef("several"), Code.INVALID_ARGUMENT, error_details_pb2.ErrorInfo),
    ],
)
def test_our_errors_are_status_codes_with_details(tmp_path: Path, error: Exception, code: Code, detail: Any) -> None:
    async def test() -> None:
        desired = Desired()
        desired.error = error
        async with served(tmp_path, desired) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Get(job_pb2.GetRequest(ref="helo"), timeout=WITHIN)
        assert refused.value.code() is code
        status = rpc_status.from_call(refused.value)
        assert any(one.Is(detail.DESCRIPTOR) for one in status.details)
        assert any(one.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for one in status.details)

    run(test())


def test_what_was_not_expected_is_told_by_a_number_that_the_log_explains(tmp_path: Path) -> None:
    said: list[str] = []

    async def test() -> None:
        desired = Desired()
        desired.error = KeyError("SECRET")
        async with served(tmp_path, desired) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Get(job_pb2.GetRequest(ref="x"), timeout=WITHIN)
        assert refused.value.code() is Code.INTERNAL
        said.append(str(refused.value.details()))

    log = run(test())
    (line,) = (line for line in log if line["log_level"] == "error")
    assert line["id"] in said[0] and line["exc_info"]
    assert "SECRET" not in said[0] and "Traceback" not in said[0]


def test_a_watcher_that_is_too_slow_is_told_so_after_what_it_could_have(tmp_path: Path) -> None:
    async def test() -> None:
        desired = Desired()
        desired.jobs = [job()]
        desired.error = errors.WatcherTooSlow("too many changes were not read in time", todo="watch again")
        async with served(tmp_path, desired) as stub:
            call = stub.Watch(job_pb2.WatchRequest(), timeout=WITHIN)
            assert (await call.read()).job.name == "job0000"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
        assert refused.value.code() is Code.RESOURCE_EXHAUSTED

    run(test())


def test_a_hundred_errors_of_a_manifest_reach_a_client_that_was_not_set_up_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        head = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: x}\nspec:\n"
        text = head + "".join(f"  wrong{number:03}-ü: 1\n" for number in range(100))
        async with served(tmp_path, Desired()) as stub:
            for filename in ("job.yml", "ü" * 2000):
                request = job_pb2.ApplyRequest(manifest=text.encode(), filename=filename)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Apply(request, timeout=WITHIN)
                assert refused.value.code() is Code.INVALID_ARGUMENT
                status = rpc_status.from_call(refused.value)
                assert any(one.Is(error_details_pb2.BadRequest.DESCRIPTOR) for one in status.details)

    run(test())


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("List", job_pb2.ListRequest(page_size=-1), "page_size"),
        ("List", job_pb2.ListRequest(phases=["done"]), "phases"),
        ("List", job_pb2.ListRequest(label_selector="a in ("), "label_selector"),
        ("Logs", job_pb2.LogsRequest(ref="x", stream="out"), "stream"),
        ("Events", job_pb2.EventsRequest(since=Timestamp(seconds=-1)), "since"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, method: str, request_: Any, field: str) -> None:
    async def test() -> None:
        async with served(tmp_path, Desired()) as stub:
            call = getattr(stub, method)(request_, timeout=WITHIN)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await (call if method == "List" else call.read())
        assert refused.value.code() is Code.INVALID_ARGUMENT
        bad = error_details_pb2.BadRequest()
        status = rpc_status.from_call(refused.value)
        assert any(one.Unpack(bad) for one in status.details)
        assert [one.field for one in bad.field_violations] == [field]

    run(test())


def test_pages_follow_each_other_without_gap_or_repetition(tmp_path: Path) -> None:
    async def test() -> None:
        desired = Desired()
        desired.jobs = [job(number) for number in range(7)]
        names, token = [], ""
        async with served(tmp_path, desired) as stub:
            while True:
                page = await stub.List(job_pb2.ListRequest(page_size=3, page_token=token), timeout=WITHIN)
                names.append([one.name for one in page.jobs])
                token = page.next_page_token
                if not token:
                    break
        assert [len(page) for page in names] == [3, 3, 1]
        assert [name for page in names for name in page] == [view.name for view in desired.jobs]

    run(test())


def test_log_entries_come_in_messages_of_a_bounded_size(tmp_path: Path) -> None:
    async def test() -> None:
        desired = Desired()
        entries = [LogEntry(number, "stdout", b"%d\n" % number, partial=False, attempt=1) for number in range(1201)]
        desired.log = [entries, entries[:1]]
        async with served(tmp_path, desired) as stub:
            got = [list(part.entries) async for part in stub.Logs(job_pb2.LogsRequest(ref="x"), timeout=WITHIN)]
        assert [len(part) for part in got] == [ENTRIES_A_MESSAGE, ENTRIES_A_MESSAGE, 201, 1]
        assert [one.time_ns for part in got[:3] for one in part] == list(range(1201))

    run(test())


def test_health_names_each_service_and_says_at_the_end_that_none_serves(tmp_path: Path) -> None:
    async def test() -> None:
        jobs = JobService(Desired())  # type: ignore[arg-type]
        server = ApiServer(
            AccessControl(lambda _: None), jobs, Node(), Resources(), Files(), Monitor(), Operation(), f"{tmp_path}/s"
        )
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", "joblet.v1.JobService", "joblet.v1.NodeService", "joblet.v1.ResourceService"):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=WITHIN)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            listed = (await stub.List(health_pb2.HealthListRequest(), timeout=WITHIN)).statuses
            assert {"", "joblet.v1.JobService", "joblet.v1.FileService"} <= listed.keys()
            assert {one.status for one in listed.values()} == {health_pb2.HealthCheckResponse.SERVING}
            watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=WITHIN)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            ended = asyncio.create_task(server.stop())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await ended

    run(test())


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("unary_unary", "joblet.v1.JobService/Get"),
        ("unary_stream", "joblet.v1.JobService/Watch"),
        ("stream_stream", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    ],
)
def test_what_is_no_message_of_the_method_is_the_callers_mistake(tmp_path: Path, kind: str, path: str) -> None:
    async def test() -> None:
        jobs = JobService(Desired())  # type: ignore[arg-type]
        server = ApiServer(
            AccessControl(lambda _: None), jobs, Node(), Resources(), Files(), Monitor(), Operation(), f"{tmp_path}/s"
        )
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            call = getattr(channel, kind)(f"/{path}")(
                iter([b"\xff\xff"]) if kind.startswith("stream") else b"\xff\xff", timeout=WITHIN
            )
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "no message of this method" in await call.details()
        await server.stop()

    run(test())


def test_the_socket_is_its_owners_alone_and_its_path_may_be_odd(tmp_path: Path) -> None:
    async def test() -> None:
        odd = tmp_path / "a b%20c"
        odd.mkdir()
        jobs = JobService(Desired())  # type: ignore[arg-type]
        server = ApiServer(
            AccessControl(lambda _: None), jobs, Node(), Resources(), Files(), Monitor(), Operation(), f"{odd}/s"
        )
        await server.start()
        assert (odd / "s").stat().st_mode & 0o777 == 0o600
        await server.stop()

    run(test())


@pytest.mark.parametrize("floods", [True, False])
def test_a_watch_that_its_client_cancels_lets_go_at_once(tmp_path: Path, floods: bool) -> None:
    async def test() -> None:
        let_go = asyncio.Event()

        class Endless(Desired):
            async def watch(self, ref: str | None, selector: object) -> AsyncIterator[JobChange]:
                try:
                    yield JobChange("ADDED", job())
                    while floods:
                        yield JobChange("MODIFIED", job())
                    await asyncio.Event().wait()
                finally:
                    let_go.set()

        async with served(tmp_path, Endless()) as stub:
            call = stub.Watch(job_pb2.WatchRequest(), timeout=WITHIN)
            await call.read()
            await asyncio.sleep(0.2)  # until a flood is held back
            call.cancel()
            await asyncio.wait_for(let_go.wait(), WITHIN)

    run(test())

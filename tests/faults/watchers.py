"""Many who watch and follow, some of whom never read: the others get all, memory stays bounded, the slow are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2, job_pb2_grpc
from jobletd.services.streams import STALLED_SECONDS
from tests.faults.figures import Memory, Report
from tests.integration.host import Host, job_host
from tests.timing import PATIENCE

A_CHANNEL = 20  # streams
FOLLOWED_BYTES = 1 << 20
FLOOD_BYTES = 16 << 20  # more than anything on the way takes of a stream that is not read
LINE = 4000
SECONDS = 300.0
WATCHED = """
apiVersion: joblet/v1
kind: Job
metadata: {{name: watched, labels: {{number: "{number}"}}, annotations: {{text: {text}}}}}
spec: {{command: ["true"], suspend: true}}
"""
CHATTY = """
apiVersion: joblet/v1
kind: Job
metadata: {{name: {name}}}
spec:
  command: [sh, -c, "while [ ! -e /work/go ]; do sleep 0.2; done; yes {line} | head -c {count}"]
  files: [{{path: go, content: ""}}]
  limits: {{logs: 128Mi}}
"""
# What a client's window takes of a stream that nobody reads: as little as HTTP/2 allows, so that the test itself stays small.
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]


def many_watchers(watchers: int, followers: int, *, changes: int, see_them_dropped: bool) -> Report:
    """A tenth of the watchers and a quarter of the followers never read."""
    report = Report()
    with job_host() as host:
        assert host.daemon is not None
        memory = Memory(host.daemon.pid)
        host.apply(WATCHED.format(number="first", text="x"))
        for name, count in (("followed", FOLLOWED_BYTES), ("flood", FLOOD_BYTES)):
            host.apply(CHATTY.format(name=name, line="x" * LINE, count=count))
            host.finished(name, within=120)
        memory.mark("before")
        asyncio.run(Crowd(host, memory, report).come(watchers, followers, changes, see_them_dropped))
        report.figures["memory of the daemon"] = str(memory)
    return report


class Crowd:
    """All of them, in one event loop."""

    def __init__(self, host: Host, memory: Memory, report: Report) -> None:
        self._host = host
        self._memory = memory
        self._report = report

    async def come(self, watchers: int, followers: int, changes: int, see_them_dropped: bool) -> None:
        async with self._stubs((watchers + followers) // A_CHANNEL + 1) as stubs:
            calls = [stubs[number % len(stubs)] for number in range(watchers + followers)]
            watching = [
                stub.Watch(job_pb2.WatchRequest(ref="watched"), timeout=SECONDS * PATIENCE) for stub in calls[:watchers]
            ]
            slow_watchers, readers = watching[: watchers // 10], watching[watchers // 10 :]
            await asyncio.gather(*(call.read() for call in watching))  # all are there
            slow = followers // 4
            following = [self._follow(stub, "flood") for stub in calls[watchers : watchers + slow]]
            begin = time.monotonic()
            reading = [self._count(self._follow(stub, "followed")) for stub in calls[watchers + slow :]]
            seen = asyncio.gather(*(self._last_number(call, changes - 1) for call in readers))
            await self._change(stubs[0], changes)
            self._memory.mark("all changed")
            numbers, counts = await seen, await asyncio.gather(*reading)
            took = time.monotonic() - begin
            self._memory.mark("all read")
            self._report.expect(set(numbers) == {str(changes - 1)}, "a watcher did not see the last change")
            self._report.expect(
                set(counts) == {FOLLOWED_BYTES}, f"followers got {set(counts)} bytes, not {FOLLOWED_BYTES}"
            )
            self._report.figures["who read"] = (
                f"{len(readers)} watchers of {changes} changes and {len(reading)} followers of {FOLLOWED_BYTES >> 20} MiB, "
                f"all in {took:.0f} s"
            )
            self._report.figures["who did not"] = f"{len(slow_watchers)} watchers, {len(following)} followers"
            if see_them_dropped:
                await self._see_dropped([*slow_watchers, *following])

    async def _see_dropped(self, slow: list[Any]) -> None:
        await asyncio.sleep(STALLED_SECONDS + 10)
        self._memory.mark("the slow dropped")
        ends = [await self._end_of(call) for call in slow]
        dropped = ends.count(grpc.StatusCode.RESOURCE_EXHAUSTED)
        self._report.expect(
            dropped == len(slow), f"{dropped} of {len(slow)} were told that they were too slow: {set(ends)}"
        )
        self._report.figures["told that they were too slow"] = f"{dropped} of {len(slow)}"

    async def _change(self, stub: Any, changes: int) -> None:
        for number in range(changes):
            text = WATCHED.format(number=number, text="x" * 20_000)
            await stub.Apply(job_pb2.ApplyRequest(manifest=text.encode()), timeout=60 * PATIENCE)
            self._memory.sample()

    def _follow(self, stub: Any, name: str) -> Any:
        return stub.Logs(job_pb2.LogsRequest(ref=name, follow=True), timeout=SECONDS * PATIENCE)

    async def _count(self, call: Any) -> int:
        count = 0
        async for batch in call:
            count += sum(len(entry.data) for entry in batch.entries)
            self._memory.sample()
        return count

    async def _last_number(self, call: Any, last: int) -> str:
        number = ""
        while (event := await call.read()) is not grpc.aio.EOF:
            number = event.job.labels["number"] if event.HasField("job") else number
            if number == str(last):
                call.cancel()
                break
        return number

    async def _end_of(self, call: Any) -> grpc.StatusCode:
        try:
            async with asyncio.timeout(30 * PATIENCE):
                while await call.read() is not grpc.aio.EOF:
                    pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        except TimeoutError:
            call.cancel()
        return cast(grpc.StatusCode, await call.code())

    @asynccontextmanager
    async def _stubs(self, count: int) -> AsyncIterator[list[Any]]:
        """Connections through the TLS front."""
        node = YAML(typ="safe").load((self._host.root / "config/rnx-config.yml").read_text())["nodes"]["default"]
        credentials = grpc.ssl_channel_credentials(*(node[key].encode() for key in ("ca", "key", "cert")))
        channels = [
            grpc.aio.secure_channel(node["address"], credentials, options=[*OPTIONS, ("test", number)])
            for number in range(count)
        ]
        try:
            yield [cast(Any, job_pb2_grpc.JobServiceStub)(channel) for channel in channels]
        finally:
            for channel in channels:
                await channel.close()

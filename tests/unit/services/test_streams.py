"""Streams that nobody reads: over a real connection, with the flow control that gRPC has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest

from jobletd.services.streams import passed_on
from tests.timing import PATIENCE

CHUNK = b"x" * 100_000
STALLED_SECONDS = 0.3


class Endless(grpc.GenericRpcHandler):
    """Answers with chunks as long as somebody takes them."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_stream_rpc_method_handler(self.answer)

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await passed_on(self.chunks(), context, STALLED_SECONDS)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield CHUNK
        finally:
            self.closed.set()


async def read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


def test_who_does_not_read_is_told_so_when_it_does_and_nothing_is_held_for_it_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        endless = Endless()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((endless,))
        server.add_insecure_port(f"unix:{tmp_path}/s")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            call: Any = channel.unary_stream("/test/Endless")
            stalled = call(b"")
            async with asyncio.timeout(60 * PATIENCE):
                await endless.closed.wait()
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await read_all(stalled)
        assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "nothing was read for too long (ask again)" in (ended.value.details() or "")
        await server.stop(None)

    asyncio.run(scenario())

"""Answers that are streams: passed on as fast as they are read, and ended for who does not read at all.

What is written is in the hands of gRPC and the kernel, which take some of it without anybody reading; then a write waits. Who
keeps one waiting for too long is told so, in the status that follows what is on its way, and nothing is held for it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
import structlog

from jobletd.errors import WatcherTooSlow
from jobletd.services.status_codes import abort

STALLED_SECONDS = 60.0
log = structlog.get_logger("grpc")


async def passed_on(
    messages: AsyncGenerator[Any, None], context: grpc.aio.ServicerContext[Any, Any], seconds: float = STALLED_SECONDS
) -> None:
    """Write the messages, each within so many seconds."""
    try:
        async with aclosing(messages):
            async for message in messages:
                async with asyncio.timeout(seconds):
                    await context.write(message)
                del message  # not to be held while the next one is waited for
    except TimeoutError:
        log.info("a stream was not read and is ended", after_seconds=seconds)
        await abort(context, WatcherTooSlow("nothing was read for too long", todo="ask again"))

"""One request to a webhook: a POST, bounded in time and in what is read of the answer, following no redirect.

Written over asyncio's streams instead of a library, since a request is ten lines and what matters here is what does not happen:
no proxy of the environment, no redirect, no cookie, no body of unknown length, no time that only each single read is bounded by.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from contextlib import suppress

import joblet
from joblet.errors import JobletError
from joblet.manifest.webhook_url import WebhookUrl, parse_webhook

ALL_SECONDS = 15.0
STATUS_LINE_BYTES = 4096


class NotDelivered(JobletError):
    """Nobody took the notification. Says the URL's origin alone: the rest may be secret."""


def signed(number: str, body: bytes, key: bytes | None, now_seconds: int) -> dict[str, str]:
    """The headers of Standard Webhooks: what receivers' libraries check. Without a key there is no signature."""
    headers = {"webhook-id": number, "webhook-timestamp": str(now_seconds)}
    if key is not None:
        content = b"%s.%d.%s" % (number.encode(), now_seconds, body)
        digest = hmac.new(key, content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


async def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float = ALL_SECONDS) -> None:
    """Deliver it. Raises NotDelivered unless the answer is 2xx, and came in time."""
    target = parse_webhook(url)
    try:
        async with asyncio.timeout(seconds):
            status = await _exchange(target, body, headers)
    except TimeoutError:
        raise NotDelivered(f"no answer within {seconds:g} s", where=target.origin) from None
    except (OSError, asyncio.LimitOverrunError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise NotDelivered(f"cannot be reached: {why}", where=target.origin) from None
    if status is None:
        raise NotDelivered("answered with something that is no HTTP", where=target.origin)
    if not 200 <= status <= 299:
        hint = "; redirects are not followed" if 300 <= status <= 399 else ""
        raise NotDelivered(f"answered with status {status}{hint}", where=target.origin)


async def _exchange(target: WebhookUrl, body: bytes, headers: Mapping[str, str]) -> int | None:
    """The status of the answer; None if it is none."""
    context = await asyncio.to_thread(ssl.create_default_context) if target.scheme == "https" else None
    reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context, limit=STATUS_LINE_BYTES)
    try:
        writer.write(_request(target, body, headers))
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
        if context is None:
            with suppress(OSError):
                await writer.wait_closed()
        else:
            writer.transport.abort()  # TLS would wait for the peer's farewell
    version, _, rest = line.decode("latin-1").partition(" ")
    code = rest[:3]
    return int(code) if version.startswith("HTTP/1.") and code.isascii() and code.isdigit() and len(code) == 3 else None


def _request(target: WebhookUrl, body: bytes, headers: Mapping[str, str]) -> bytes:
    host = target.origin.partition("://")[2]
    lines = {
        "Host": host,
        "User-Agent": f"joblet/{joblet.__version__}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {target.target} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body

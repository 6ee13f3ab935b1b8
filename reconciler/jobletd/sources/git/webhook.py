"""The webhook endpoint: a hoster's word that something was pushed. It starts a look at one repository, and can do nothing else.

``POST /gitsources/NAME`` with any body, of which only its HMAC matters; GitHub, Gitea and GitLab each have their own header. Who
has not shown the secret learns nothing, and is one line in the log, as a refused connection is.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from joblet.config.errors import ConfigError
from joblet.config.fleet_sections import SHORTEST_SECRET, WebhookSection
from joblet.config.private_file import check_private, read_private
from joblet.errors import JobletError
from jobletd.errors import NoSuchResource
from jobletd.tls_context import reason_of
from jobletd.tls_front import printable, refuse

MOST_CONNECTIONS = 32
READ_ON_BYTES, READ_ON_SECONDS = 64 << 10, 1.0
REQUEST_SECONDS = 15.0
HEAD_BYTES = 16 << 10
BODY_BYTES = 32 << 20  # GitHub sends at most 25 MiB; nothing of it is kept
BURST, A_SECOND = 30, 0.5  # requests of one address
MOST_ADDRESSES = 1024
SIGNED = (
    "x-hub-signature-256",
    "x-gitea-signature",
    "x-forgejo-signature",
)  # hex of HMAC-SHA-256, the first after sha256=
TOKEN = "x-gitlab-token"  # noqa: S105  a header's name
_ONCE = ("content-length", "transfer-encoding", TOKEN, *SIGNED)  # of two of these each reader might take another one
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_TARGET = re.compile(r"/gitsources/([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/?")
audit = structlog.get_logger("audit")
log = structlog.get_logger("webhook")


class WebhookError(JobletError):
    """The endpoint cannot be opened."""


class Refusal(Exception):
    """The answer to a request that is not followed. secret: whether it was for want of the secret."""

    def __init__(self, status: str, *, secret: bool = False) -> None:
        super().__init__(status)
        self.status = status
        self.secret = secret


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. headers: by their name in lower case."""

    method: str
    target: str
    headers: dict[str, str]


class RateBound:
    """How often each address may ask; remembers the newest addresses alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and when that was so

    def allows(self, address: str) -> bool:
        now = self._clock()
        left, then = self._left.pop(address, (float(BURST), now))
        left = min(BURST, left + (now - then) * A_SECOND)
        self._left[address] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1


class Webhook:
    """One for the daemon. pushed: starts a look at a GitSource; raises NoSuchResource, WrongState."""

    def __init__(self, settings: WebhookSection, pushed: Callable[[str], None]) -> None:
        self._settings = settings
        self._pushed = pushed
        self._rate = RateBound()
        self._secret = b""
        self._tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, settings: WebhookSection) -> None:
        """Whether there is a secret in it. Raises ConfigError."""
        secret_of(settings)

    def reconfigure(self, settings: WebhookSection) -> None:
        """Another secret, for requests to come. Raises ConfigError."""
        self._secret = secret_of(settings)

    async def start(self) -> int:
        """Listen. Returns the port. Raises WebhookError, ConfigError."""
        settings = self._settings
        self._secret = secret_of(settings)
        try:
            self._tls = tls_context(settings)
            self._server = await asyncio.start_server(
                self._accept, settings.address, settings.port, limit=HEAD_BYTES, backlog=MOST_CONNECTIONS
            )
        except (OSError, UnicodeError) as error:  # as ssl.SSLError is
            raise WebhookError(
                f"cannot serve the webhook: {getattr(error, 'strerror', None) or error}",
                where=f"{settings.address}:{settings.port}",
                todo="choose another webhook.port, mend webhook.certPath and keyPath, or set webhook.enabled: false",
            ) from error
        port = int(self._server.sockets[0].getsockname()[1])
        log.info("the webhook is served", address=f"{settings.address}:{port}", tls=self._tls is not None)
        return port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = printable(writer.get_extra_info("peername") or ("unknown", 0))
        if len(self._tasks) >= MOST_CONNECTIONS:
            refuse(address, "TOO_MANY_CONNECTIONS")
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        """One request, one answer, and the end."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                if self._tls is not None:
                    await writer.start_tls(self._tls)
                status = await self._answer(reader, writer, address)
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                await _read_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            refuse(address, f"WEBHOOK: {'TIMEOUT' if isinstance(error, TimeoutError) else reason_of(error)}")
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> str:
        try:
            if not self._rate.allows(address.rpartition(":")[0]):
                raise Refusal("429 Too Many Requests")
            request = read_head(await reader.readuntil(b"\r\n\r\n"))
            if request.method != "POST":
                raise Refusal("405 Method Not Allowed")
            length = body_length(request)
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            digest = hmac.new(self._secret, digestmod=hashlib.sha256)
            while length:
                chunk = await reader.read(min(length, 1 << 16))
                if not chunk:
                    raise asyncio.IncompleteReadError(b"", length)
                digest.update(chunk)
                length -= len(chunk)
            self._check(request, digest.hexdigest())
            return self._follow(request, address)
        except Refusal as refusal:
            refuse(address, f"WEBHOOK: {'WRONG_SECRET' if refusal.secret else refusal.status}")
            return refusal.status

    def _check(self, request: Request, digest: str) -> None:
        """Raises Refusal unless the secret was used, in any of the forms. Compares in constant time."""
        headers = request.headers
        if TOKEN in headers:
            given, wanted = headers[TOKEN], self._secret
        else:
            given = next((headers[name] for name in SIGNED if name in headers), "").removeprefix("sha256=")
            wanted = digest.encode()
        if not hmac.compare_digest(given.encode("latin-1"), wanted):
            raise Refusal("401 Unauthorized", secret=True)

    def _follow(self, request: Request, address: str) -> str:
        target = _TARGET.fullmatch(request.target.partition("?")[0])
        if target is None:
            raise Refusal("404 Not Found")
        try:
            self._pushed(target[1])
        except NoSuchResource as error:
            raise Refusal("404 Not Found") from error
        except JobletError as error:
            raise Refusal("409 Conflict") from error
        audit.info("sync", client="webhook", peer=address, resource=f"gitsource/{target[1]}")
        return "202 Accepted"


def read_head(data: bytes) -> Request:
    """Raises Refusal."""
    first, *lines = data.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Refusal("400 Bad Request")
    headers: dict[str, str] = {}
    for line in filter(None, lines):
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not _HEADER.fullmatch(name) or (name in _ONCE and name in headers):
            raise Refusal("400 Bad Request")
        headers[name] = value.strip(" \t")
    return Request(words[0], words[1], headers)


def body_length(request: Request) -> int:
    """Raises Refusal."""
    if "transfer-encoding" in request.headers:
        raise Refusal("411 Length Required")
    text = request.headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise Refusal("400 Bad Request")
    if int(text) > BODY_BYTES:
        raise Refusal("413 Content Too Large")
    return int(text)


def secret_of(settings: WebhookSection) -> bytes:
    """Raises ConfigError."""
    text = read_private(settings.secret_path).strip() if settings.secret_path is not None else settings.secret
    if len(text) < SHORTEST_SECRET:
        what = f"holds less than {SHORTEST_SECRET} characters"
        raise ConfigError(
            what, where=settings.secret_path or "webhook.secret", todo="openssl rand -hex 32 makes a secret"
        )
    return text.encode()


def tls_context(settings: WebhookSection) -> ssl.SSLContext | None:
    """For hosters, which have no certificates of ours; None for none. Raises OSError, ConfigError for a key others can read."""
    if settings.cert_path is None or settings.key_path is None:
        return None
    check_private(settings.key_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.cert_path, settings.key_path)
    return context


async def _read_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a client still sends: closing over unread bytes would reset the connection, and the answer would be lost."""
    if writer.can_write_eof():
        writer.write_eof()
    left = READ_ON_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(READ_ON_SECONDS):
            while left > 0 and (chunk := await reader.read(left)):
                left -= len(chunk)

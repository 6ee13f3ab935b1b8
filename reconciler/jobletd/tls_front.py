"""The TLS front: owns the port, verifies clients, and hands their verified identity on to gRPC on a Unix socket.

gRPC's own TLS can neither insist on TLS 1.3 nor say whose handshake failed. Here Python's ssl does both; bytes are then passed on
to gRPC's Unix socket from a socket that is bound to a path of its own, which gRPC shows as the peer, and by which ``identity``
finds the certificate again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from cryptography import x509

from joblet.pki import Role, name_of, role_of

HANDSHAKE_SECONDS = 10.0
BUFFER_BYTES = 1 << 16
log = structlog.get_logger("tls")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: the certificate's CN, its role (None: none that counts) and the peer's address."""

    name: str
    role: Role | None
    address: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts."""

    certificate: str
    key: str
    ca: str


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.3 alone, client certificates of our CA required. Raises ssl.SSLError, OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=credentials.ca)
    context.set_alpn_protocols(["h2"])
    # ssl takes a key from a file only: one that nobody else can read, for a moment.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(credentials.certificate + credentials.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


class TlsFront:
    """Listens on a port and passes verified connections on."""

    def __init__(self, credentials: Credentials, *, backend: str, peers_directory: str, max_connections: int) -> None:
        """backend: gRPC's Unix socket. peers_directory: private, for our ends of the connections to it."""
        self._context = server_context(credentials)
        self._backend = backend
        self._peers_directory = peers_directory
        self._max_connections = max_connections
        self._identities: dict[str, Identity] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int) -> int:
        """Listen; returns the port, which the kernel chose if it was 0. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, address, port, limit=BUFFER_BYTES, backlog=1024)
        actual: int = self._server.sockets[0].getsockname()[1]
        return actual

    def reload(self, credentials: Credentials) -> None:
        """New connections get these; those that stand go on. Raises what ``server_context`` does, and changes nothing then."""
        self._context = server_context(credentials)

    def identity(self, peer: str) -> Identity | None:
        """Who is behind a peer as gRPC names it (``unix:<path>``); None if it did not come through here."""
        return self._identities.get(peer.removeprefix("unix:"))

    async def close(self) -> None:
        """Stop listening and drop what is connected."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        peer = writer.get_extra_info("peername")
        address = f"{peer[0]}:{peer[1]}" if peer else "unknown"
        try:
            if len(self._connections) > self._max_connections:
                refuse(address, "TooManyConnections")
                return
            try:
                await writer.start_tls(self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS)
            except (OSError, ConnectionError, TimeoutError) as error:  # ssl.SSLError is an OSError
                refuse(address, reason_of(error))
                return
            await self._pass_on(reader, writer, address)
        except asyncio.CancelledError:
            raise
        except (OSError, ConnectionError) as error:
            log.debug("connection ended", peer=address, error=str(error))
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to gRPC whose own end is bound to ``path``."""
        backend = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            backend.bind(path)
            await asyncio.get_running_loop().sock_connect(backend, self._backend)
            return await asyncio.open_unix_connection(sock=backend, limit=BUFFER_BYTES)
        except BaseException:
            backend.close()
            raise

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(der)
        path = f"{self._peers_directory}/{secrets.token_hex(8)}"
        self._identities[path] = Identity(name_of(certificate), role_of(certificate), address)
        try:
            back_reader, back_writer = await self._connect(path)
            try:
                async with asyncio.TaskGroup() as group:
                    back = group.create_task(copy(back_reader, writer))
                    forth = group.create_task(copy(reader, back_writer))
                    # Either side's end is the end: HTTP/2 has no use for half a connection.
                    back.add_done_callback(lambda _: forth.cancel())
                    forth.add_done_callback(lambda _: back.cancel())
            finally:
                back_writer.transport.abort()
        except* (OSError, ConnectionError) as group_error:
            log.debug("connection ended", peer=address, error=str(group_error.exceptions[0]))
        finally:
            del self._identities[path]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on; a slow receiver holds the sender back, so that memory stays bounded."""
    while data := await reader.read(BUFFER_BYTES):
        writer.write(data)
        await writer.drain()


def reason_of(error: BaseException) -> str:
    """Why a handshake failed, as one word with detail, such as PEER_DID_NOT_RETURN_A_CERTIFICATE."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"CERTIFICATE_VERIFY_FAILED: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, TimeoutError):
        return "HANDSHAKE_TIMEOUT"
    return type(error).__name__


def refuse(address: str, reason: str) -> None:
    """One line for each refused connection, with the address, for people and fail2ban."""
    log.warning("connection refused", peer=address, reason=reason)


Resolver = Callable[[str], Identity | None]

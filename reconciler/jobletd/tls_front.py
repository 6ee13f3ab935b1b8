"""The TLS front: owns the port, verifies clients, and hands their verified identity on to gRPC on a Unix socket.

gRPC's own TLS can neither insist on TLS 1.3 nor say whose handshake failed. Here Python's ssl does both; bytes are then passed on
to gRPC's Unix socket from a socket that is bound to a path of its own, which gRPC shows as the peer, and by which ``identity``
finds the certificate again.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import structlog
from cryptography import x509

from joblet.pki import Role, name_of, role_of
from jobletd.metrics import instruments
from jobletd.tls_connection import CHUNK_BYTES, TlsConnection
from jobletd.tls_context import Credentials, Revocations, reason_of, server_context

__all__ = ["PEER_NAME_LENGTH", "Credentials", "Identity", "Resolver", "TlsFront"]

HANDSHAKE_SECONDS = 10.0
MAX_HANDSHAKES = 256  # at a time: who has not shown a certificate yet takes no place from those who have
BACKLOG = 1024
PEER_NAME_LENGTH = 16  # of our end's file name
# A peer that has vanished without a word: the kernel gives up on what it does not acknowledge.
LOST_PEER_MS = 60_000
OUT_OF_DESCRIPTORS_SECONDS = 0.5
log = structlog.get_logger("tls")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: the certificate's CN, its role (None: none that counts) and the peer's address."""

    name: str
    role: Role | None
    address: str


Resolver = Callable[[str], Identity | None]


class TlsFront:
    """Listens on a port and passes verified connections on."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        backend: str,
        peers_directory: str,
        max_connections: int,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        may_accept: Callable[[], bool] = lambda: True,
    ) -> None:
        """backend: gRPC's Unix socket. peers_directory: private, for our ends of the connections to it. may_accept: whether there
        are descriptors to spare; strangers wait outside as long as there are none.

        Raises CertificateError.
        """
        self._context = server_context(credentials)
        self._revocations = Revocations.of(credentials.crl)
        self._backend = backend
        self._peers_directory = peers_directory
        self._max_connections = max_connections
        self._handshake_seconds = handshake_seconds
        self._may_accept = may_accept
        self._identities: dict[str, Identity] = {}
        self._handshakes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._verified: dict[asyncio.Task[Any], tuple[x509.Certificate, str]] = {}
        self._listeners: list[socket.socket] = []

    async def start(self, address: str, port: int) -> int:
        """Listen on a name or address; returns the port, which the kernel chose if it was 0. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, place in dict.fromkeys((entry[0], entry[4]) for entry in found):
            # Several addresses of one name share the port that the first one got.
            listener = _listen(family, (place[0], port, *place[2:]))
            self._listeners.append(listener)
            port = listener.getsockname()[1]
            self._spawn(self._accept(listener))
        return port

    def reload(self, credentials: Credentials) -> None:
        """New connections get these; those that stand go on. Raises CertificateError, and changes nothing then."""
        self.replace(server_context(credentials), Revocations.of(credentials.crl), self._max_connections)

    def replace(self, context: ssl.SSLContext, revocations: Revocations, max_connections: int) -> None:
        """As ``reload``, with what was made of the credentials; connections whose certificate is revoked are cut."""
        self._context = context
        self._revocations = revocations
        self._max_connections = max_connections
        for task, (certificate, address) in list(self._verified.items()):
            if revocations.holds(certificate):
                refuse(address, "CERTIFICATE_REVOKED: while it was connected")
                task.cancel()

    def identity(self, peer: str) -> Identity | None:
        """Who is behind a peer as gRPC names it (``unix:<path>``); None if it did not come through here."""
        return self._identities.get(unquote(peer.removeprefix("unix:")))  # gRPC writes a path as a URI

    async def close(self) -> None:
        """Stop listening and drop what is connected."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            if not self._may_accept():
                await asyncio.sleep(OUT_OF_DESCRIPTORS_SECONDS)
                continue
            try:
                plain, peer = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                log.error("cannot accept connections", error=error.strerror)
                await asyncio.sleep(OUT_OF_DESCRIPTORS_SECONDS)  # until others have ended
            else:
                self._spawn(self._serve(plain, printable(peer)))

    async def _serve(self, plain: socket.socket, address: str) -> None:
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_PEER_MS)
            connection = await self._handshake(plain, address)
            if connection is not None:
                await self._pass_on(connection, address)
        except OSError as error:
            log.debug("connection ended", peer=address, error=str(error))
        finally:
            plain.close()

    async def _handshake(self, plain: socket.socket, address: str) -> TlsConnection | None:
        """The verified connection; None if it was refused."""
        if self._handshakes >= MAX_HANDSHAKES or len(self._identities) >= self._max_connections:
            refuse(address, "TOO_MANY_CONNECTIONS")
            return None
        connection = TlsConnection(plain, self._context)
        self._handshakes += 1
        try:
            async with asyncio.timeout(self._handshake_seconds):
                await connection.handshake()
            return connection
        except (ssl.SSLError, OSError) as error:  # TimeoutError is an OSError
            refuse(address, reason_of(error))
        finally:
            self._handshakes -= 1
        await connection.close()
        return None

    async def _pass_on(self, connection: TlsConnection, address: str) -> None:
        """Pass bytes both ways until one side ends, or the certificate does."""
        try:
            certificate = x509.load_der_x509_certificate(connection.peer_certificate)
            identity = Identity(name_of(certificate), role_of(certificate), address)
        except (ValueError, x509.InvalidVersion):  # OpenSSL bears more than cryptography does
            return refuse(address, "CERTIFICATE_UNREADABLE")
        if self._revocations.holds(certificate):  # since its handshake began
            return refuse(address, "CERTIFICATE_REVOKED")
        left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        path = f"{self._peers_directory}/{secrets.token_hex(PEER_NAME_LENGTH // 2)}"
        self._identities[path] = identity
        task = asyncio.current_task()
        assert task is not None
        self._verified[task] = (certificate, address)
        validity = asyncio.timeout(left.total_seconds())
        try:
            async with validity:
                with await self._connect(path) as backend:
                    await _exchange(connection, backend)
        except TimeoutError:
            if not validity.expired():
                raise
            refuse(address, "CERTIFICATE_EXPIRED: while it was connected")
        finally:
            del self._identities[path], self._verified[task]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    async def _connect(self, path: str) -> socket.socket:
        """A connection to gRPC whose own end is bound to ``path``."""
        backend = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            backend.bind(path)
            await asyncio.get_running_loop().sock_connect(backend, self._backend)
        except BaseException:
            backend.close()
            raise
        return backend


async def _exchange(connection: TlsConnection, backend: socket.socket) -> None:
    """Either side's end is the end: HTTP/2 has no use for half a connection. Raises OSError."""
    back = asyncio.ensure_future(_answers(connection, backend))
    forth = asyncio.ensure_future(_requests(connection, backend))
    try:
        await asyncio.wait((back, forth), return_when=asyncio.FIRST_COMPLETED)
        if not back.done() and forth.result() is backend:
            await asyncio.wait((back,))  # gRPC takes no more; what it said last is still to be passed on
    finally:
        back.cancel()
        forth.cancel()
        await asyncio.gather(back, forth, return_exceptions=True)
    if not back.cancelled():
        back.result()
        await connection.close()


async def _answers(connection: TlsConnection, backend: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):  # by gRPC: its way to close with requests unread
        while data := await asyncio.get_running_loop().sock_recv(backend, CHUNK_BYTES):
            await connection.write(data)


async def _requests(connection: TlsConnection, backend: socket.socket) -> TlsConnection | socket.socket:
    """Returns the side that has ended."""
    while data := await connection.read():
        try:
            await asyncio.get_running_loop().sock_sendall(backend, data)
        except (BrokenPipeError, ConnectionResetError):
            return backend
    return connection


def _listen(family: int, place: tuple[Any, ...]) -> socket.socket:
    """A listening socket. Raises OSError."""
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # ``::`` means every address of the host, IPv4 ones too.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, place[0] != "::")
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def printable(peer: tuple[Any, ...]) -> str:
    """``127.0.0.1:4711`` or ``[::1]:4711``."""
    host, port = peer[0].removeprefix("::ffff:"), peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refuse(address: str, reason: str) -> None:
    """One line for each refused connection, with the address, for people and fail2ban."""
    instruments.connections_refused.labels(reason.partition(":")[0]).inc()
    log.warning("connection refused", peer=address, reason=reason)

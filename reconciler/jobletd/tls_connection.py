"""One accepted TLS connection: Python's ssl over memory, the socket beside it.

asyncio's own TLS drops a connection whose handshake fails without sending the alert, so that the client never learns why;
and its buffers grow with what a slow peer does not take. Here nothing is read before the last piece was passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

CHUNK_BYTES = 1 << 16
GOODBYE_SECONDS = 2.0


class TlsConnection:
    """The server's side of one connection. One task may read while another one writes."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        """plain: connected, non-blocking; it stays the caller's to close."""
        self._socket = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sending = asyncio.Lock()

    async def handshake(self) -> None:
        """Raises ssl.SSLError, or OSError; ``close`` then tells the peer why."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise ConnectionResetError("closed during the handshake") from None
            else:
                return await self._flush()

    @property
    def peer_certificate(self) -> bytes:
        """The verified certificate, as DER."""
        der = self._tls.getpeercert(binary_form=True)
        assert der is not None  # the context requires one
        return der

    async def read(self) -> bytes:
        """What has come, at most CHUNK_BYTES and a record; nothing at the end. Raises OSError."""
        while True:
            data = self._decrypted()
            if self._outgoing.pending:  # an answer of TLS itself, such as to a key update
                await self._flush()
            if data is not None:
                return data
            if not await self._fill():
                return b""

    async def write(self, data: bytes) -> None:
        """Returns when the kernel has taken all of it. Raises OSError."""
        self._tls.write(data)
        await self._flush()

    async def close(self) -> None:
        """Say goodbye, or after a failed handshake its alert; then wait a little for the peer's.

        What is still unread when a socket is closed resets it, and what we wrote last would be lost with that.
        """
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
                await self._flush()
                self._socket.shutdown(socket.SHUT_WR)
                while await asyncio.get_running_loop().sock_recv(self._socket, CHUNK_BYTES):
                    pass

    def _decrypted(self) -> bytes | None:
        """What can be decrypted of what has come: nothing (b"") at the end, None if more must come first."""
        pieces: list[bytes] = []
        size = 0
        while size < CHUNK_BYTES:
            try:
                piece = self._tls.read(CHUNK_BYTES)
            except ssl.SSLWantReadError:
                return b"".join(pieces) or None
            except ssl.SSLZeroReturnError:
                piece = b""
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    async def _fill(self) -> bool:
        """Take more from the socket; False at its end."""
        data = await asyncio.get_running_loop().sock_recv(self._socket, CHUNK_BYTES)
        self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        async with self._sending:
            while data := self._outgoing.read():
                await asyncio.get_running_loop().sock_sendall(self._socket, data)

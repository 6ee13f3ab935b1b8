"""The TLS front alone: real TLS on loopback before a real gRPC server, both in this process."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from joblet.pki import Authority, CertificateError, KeyPair, Role, load_certificate
from jobletd.services.access import AccessControl, caller
from jobletd.tls_connection import CHUNK_BYTES
from jobletd.tls_context import Credentials, Revocations, server_context
from jobletd.tls_front import TlsFront
from tests.timing import PATIENCE

WITHIN = 20 * PATIENCE
MEGABYTE = 1 << 20
BULK_MESSAGES, BULK_BYTES = 400, 60_000
NOW = datetime.datetime.now(datetime.UTC)
CHECK = health_pb2.HealthCheckRequest()
Log = list[Any]


@dataclass
class Place:
    """A front, what is behind it, and whom it trusts."""

    front: TlsFront
    port: int
    authority: Authority
    peers: Path
    produced: list[int]
    callers: list[Any]

    def pair(self, role: Role | str = Role.ADMIN, *, days: float = 1) -> KeyPair:
        return self.authority.issue_client("anna", role, NOW, days=days)

    def channel(self, pair: KeyPair | None = None) -> grpc.aio.Channel:
        pair = pair or self.pair()
        ca = self.authority.pair.certificate.encode()
        credentials = grpc.ssl_channel_credentials(ca, pair.key.encode(), pair.certificate.encode())
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials)

    async def check(self, pair: KeyPair | None = None) -> None:
        async with self.channel(pair) as channel:
            await health_pb2_grpc.HealthStub(channel).Check(CHECK, timeout=WITHIN)


@asynccontextmanager
async def place(tmp_path: Path, **options: Any) -> AsyncIterator[Place]:
    """Options: those of TlsFront."""
    authority = Authority.create(NOW)
    peers = tmp_path / "p"
    peers.mkdir()
    credentials = credentials_of(authority)
    options = {"max_connections": 50, **options}
    front = TlsFront(credentials, backend=f"{tmp_path}/s", peers_directory=str(peers), **options)
    produced, callers = [0], []

    class Health(health.aio.HealthServicer):  # type: ignore[misc]
        async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
            callers.append(caller.get())
            return health_pb2.HealthCheckResponse()

        async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
            for number in range(BULK_MESSAGES):
                produced[0] += 1
                answer = health_pb2.HealthCheckResponse()
                answer.MergeFromString(b"\x7a" + varint(BULK_BYTES) + bytes([number % 256]) * BULK_BYTES)
                yield answer

    server = grpc.aio.server(interceptors=[AccessControl(front.identity)])
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    server.add_insecure_port(f"unix:{str(tmp_path).replace(' ', '%20')}/s")
    await server.start()
    try:
        port = await front.start("127.0.0.1", 0)
        yield Place(front, port, authority, peers, produced, callers)
    finally:
        await front.close()
        await server.stop(0)


def varint(number: int) -> bytes:
    """As protobuf writes numbers: the bulk travels as a field that the message does not know."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def credentials_of(authority: Authority) -> Credentials:
    server = authority.issue_server([], NOW)
    return Credentials(server.certificate, server.key, authority.pair.certificate)


def run(test: Coroutine[Any, Any, None]) -> Log:
    """Run a test; returns what was logged meanwhile."""

    async def bounded() -> None:
        async with asyncio.timeout(60 * PATIENCE):
            await test

    with structlog.testing.capture_logs() as log:
        asyncio.run(bounded())
    return log


def refusals(log: Log) -> list[str]:
    assert all(line["peer"].startswith("127.0.0.1:") for line in log if line["event"] == "connection refused")
    return [line["reason"] for line in log if line["event"] == "connection refused"]


def client_context(pair: KeyPair | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pair is not None:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(pair.certificate + pair.key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


async def alert_for(port: int, context: ssl.SSLContext) -> str:
    """What a client is told: TLS's own word."""

    def connect() -> str:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=WITHIN) as plain,
                context.wrap_socket(plain) as secure,
            ):
                return "" if secure.recv(1) else "closed"
        except ssl.SSLError as error:
            return error.reason or str(error)

    return await asyncio.to_thread(connect)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.VIEWER])
def test_the_identity_of_the_certificate_reaches_the_service(tmp_path: Path, role: Role) -> None:
    async def test() -> None:
        async with place(tmp_path) as here:
            await here.check(here.pair(role))
            (identity,) = here.callers
            assert (identity.name, identity.role) == ("anna", role)
            assert identity.address.startswith("127.0.0.1:")

    assert refusals(run(test())) == []


def test_a_path_that_grpc_writes_in_another_way_makes_nobody_root(tmp_path: Path) -> None:
    async def test() -> None:
        odd = tmp_path / "a b%20c"
        odd.mkdir()
        authority = Authority.create(NOW)
        front = TlsFront(
            credentials_of(authority), backend=f"{tmp_path}/s", peers_directory=str(odd), max_connections=9
        )
        seen = []

        class Health(health.aio.HealthServicer):  # type: ignore[misc]
            async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
                seen.append((caller.get().name, caller.get().role))
                return health_pb2.HealthCheckResponse()

        server = grpc.aio.server(interceptors=[AccessControl(front.identity)])
        health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
        server.add_insecure_port(f"unix:{tmp_path}/s")
        await server.start()
        here = Place(front, await front.start("127.0.0.1", 0), authority, odd, [], [])
        await here.check(here.pair(Role.VIEWER))
        await front.close()
        await server.stop(0)
        assert seen == [("anna", Role.VIEWER)]

    run(test())


def test_a_refused_client_is_told_why(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here:
            expired = here.authority.issue_client("anna", Role.ADMIN, NOW - datetime.timedelta(days=9), days=1)
            stranger = Authority.create(NOW).issue_client("anna", Role.ADMIN, NOW)
            server = here.authority.issue_server([], NOW)
            told = [await alert_for(here.port, client_context(pair)) for pair in (None, expired, stranger, server)]
            assert [one.removeprefix("SSLV3_ALERT_").removeprefix("TLSV1_ALERT_") for one in told] == [
                "TLSV13_ALERT_CERTIFICATE_REQUIRED",
                "CERTIFICATE_EXPIRED",
                "UNKNOWN_CA" if told[2].endswith("UNKNOWN_CA") else "DECRYPT_ERROR",
                "UNSUPPORTED_CERTIFICATE",
            ]
            assert here.callers == []

    reasons = refusals(run(test()))
    assert reasons[0] == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert reasons[1] == "CERTIFICATE_VERIFY_FAILED: certificate has expired"
    assert reasons[2].startswith("CERTIFICATE_VERIFY_FAILED: ")
    assert reasons[3] == "CERTIFICATE_VERIFY_FAILED: unsuitable certificate purpose"


def test_openssl_cannot_speak_tls_1_2(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here:
            pair = here.pair()
            (tmp_path / "pair").write_text(pair.certificate + pair.key)
            file = str(tmp_path / "pair")
            command = f"openssl s_client -connect 127.0.0.1:{here.port} -cert {file} -key {file} -tls1_2".split()
            process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            _, said = await process.communicate()
            assert process.returncode != 0 and b"protocol version" in said

    assert refusals(run(test())) == ["UNSUPPORTED_PROTOCOL"]


def test_what_is_no_tls_at_all_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here:
            for said in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""):
                reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
                writer.write(said)
                writer.write_eof()
                await reader.read()
                writer.close()

    reasons = refusals(run(test()))
    assert reasons[0] == "HTTP_REQUEST" and reasons[2] == "CLOSED_DURING_HANDSHAKE" and len(reasons) == 3


def test_who_says_nothing_is_let_go_after_the_handshakes_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path, handshake_seconds=0.2) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            assert await reader.read() == b""
            writer.close()

    assert refusals(run(test())) == ["HANDSHAKE_TIMEOUT"]


def test_one_connection_too_many_is_refused_and_a_freed_place_is_taken_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path, max_connections=1) as here:
            async with here.channel() as first:
                await health_pb2_grpc.HealthStub(first).Check(CHECK, timeout=WITHIN)
                reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
                assert await reader.read() == b""
                writer.close()
            while os.listdir(here.peers):
                await asyncio.sleep(0.01)
            await here.check()

    assert refusals(run(test())) == ["TOO_MANY_CONNECTIONS"]


def test_a_certificate_that_ends_while_it_is_in_use_ends_the_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here:
            left = datetime.datetime.now(datetime.UTC) - NOW + datetime.timedelta(seconds=4 + PATIENCE)
            pair = here.pair(days=left / datetime.timedelta(days=1))
            async with here.channel(pair) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(CHECK, timeout=WITHIN)
                while os.listdir(here.peers):
                    await asyncio.sleep(0.01)

    assert "CERTIFICATE_EXPIRED: while it was connected" in refusals(run(test()))


def test_a_session_is_never_resumed_so_that_every_connection_is_verified(tmp_path: Path) -> None:
    context = server_context(credentials_of(Authority.create(NOW)))
    assert context.num_tickets == 0
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_bytes_come_through_unharmed_and_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here, here.channel() as channel:
            number = 0
            async for answer in health_pb2_grpc.HealthStub(channel).Watch(CHECK, timeout=WITHIN):
                assert answer.SerializeToString().endswith(bytes([number % 256]) * BULK_BYTES)
                number += 1
            assert number == BULK_MESSAGES

    run(test())


def test_a_client_that_does_not_read_holds_the_sender_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here, here.channel() as channel:
            call = health_pb2_grpc.HealthStub(channel).Watch(CHECK, timeout=WITHIN)
            await call.read()
            last = -1
            while here.produced[0] != last:  # until nothing more is produced
                last = here.produced[0]
                await asyncio.sleep(0.3 * PATIENCE)
            assert last * BULK_BYTES < 16 * MEGABYTE < BULK_MESSAGES * BULK_BYTES
            call.cancel()

    run(test())


def test_a_reload_counts_for_new_connections_and_leaves_standing_ones(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here, here.channel() as standing:
            await health_pb2_grpc.HealthStub(standing).Check(CHECK, timeout=WITHIN)
            old, here.authority = here.authority, Authority.create(NOW)
            here.front.reload(credentials_of(here.authority))
            await here.check()
            await health_pb2_grpc.HealthStub(standing).Check(CHECK, timeout=WITHIN)
            stranger = old.issue_client("anna", Role.ADMIN, NOW)
            assert await alert_for(here.port, client_context(stranger)) not in ("", "closed")

    assert len(refusals(run(test()))) == 1


def test_a_certificate_that_was_revoked_is_cut_and_one_whose_handshake_began_before_comes_no_further(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with place(tmp_path) as here:
            anna, bert = here.pair(), here.pair()
            async with here.channel(anna) as cut, here.channel(bert) as kept:
                for channel in (cut, kept):
                    await health_pb2_grpc.HealthStub(channel).Check(CHECK, timeout=WITHIN)
                standing = health_pb2_grpc.HealthStub(cut).Watch(CHECK, timeout=WITHIN)
                await standing.read()
                crl = here.authority.revoke([load_certificate(anna.certificate).serial_number], NOW)
                # The context of before: as if a handshake had begun with it.
                here.front.replace(server_context(credentials_of(here.authority)), Revocations.of(crl), 50)
                assert await standing.code() is grpc.StatusCode.UNAVAILABLE
                await health_pb2_grpc.HealthStub(kept).Check(CHECK, timeout=WITHIN)
            assert await alert_for(here.port, client_context(anna)) == "closed"

    assert refusals(run(test()))[:2] == ["CERTIFICATE_REVOKED: while it was connected", "CERTIFICATE_REVOKED"]


def test_a_reload_of_what_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here:
            good, other = credentials_of(here.authority), credentials_of(Authority.create(NOW))
            for bad, said in (
                (Credentials("x", good.key, good.ca), "security.serverCert: is no certificate"),
                (Credentials(good.certificate, "x", good.ca), "security.serverKey: is no private key"),
                (Credentials(good.certificate, other.key, good.ca), "is not the key of security.serverCert"),
                (Credentials(good.certificate, good.key, "x"), "is no certificate"),
                (Credentials(good.certificate, good.key, ""), "security.caCert: the certificate is missing"),
            ):
                with pytest.raises(CertificateError, match=said):
                    here.front.reload(bad)
            await here.check()

    run(test())


def test_nothing_is_left_when_it_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        async with place(tmp_path) as here, here.channel() as channel:
            await health_pb2_grpc.HealthStub(channel).Check(CHECK, timeout=WITHIN)
            assert len(os.listdir(here.peers)) == 1
            idle, writer = await asyncio.open_connection("127.0.0.1", here.port)
            await here.front.close()
            assert os.listdir(here.peers) == []
            assert await idle.read() == b""
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", here.port)

    run(test())


def test_what_was_sent_last_arrives_though_the_server_closes_while_the_client_writes(tmp_path: Path) -> None:
    async def test() -> None:
        authority = Authority.create(NOW)
        sent = bytes(range(256)) * 2000

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(CHUNK_BYTES)
            writer.write(sent)
            await writer.drain()
            writer.close()

        backend = await asyncio.start_unix_server(answer, f"{tmp_path}/s")
        front = TlsFront(
            credentials_of(authority), backend=f"{tmp_path}/s", peers_directory=str(tmp_path), max_connections=9
        )
        port = await front.start("127.0.0.1", 0)
        context = client_context(authority.issue_client("anna", Role.ADMIN, NOW))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"x" * (1 << 21))  # more than anybody reads before the end
        assert await reader.read() == sent
        writer.transport.abort()
        await front.close()
        backend.close()
        await backend.wait_closed()

    run(test())


def test_several_addresses_share_the_port_that_the_first_one_got(tmp_path: Path) -> None:
    async def test() -> None:
        authority = Authority.create(NOW)
        front = TlsFront(
            credentials_of(authority), backend=f"{tmp_path}/s", peers_directory=str(tmp_path), max_connections=9
        )
        port = await front.start("localhost", 0)
        (_, writer) = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await front.close()

    run(test())

"""Connections to the daemon's port that go wrong: silent, slow, broken off, full of bytes that are neither TLS nor HTTP/2.

While they stand the daemon answers an honest client; once they are gone nothing of them is left, and new clients get in.
"""

from __future__ import annotations

import os
import random
import resource
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2, job_pb2_grpc
from tests.faults.fuzz.mutation import Mutation
from tests.integration.host import PATIENCE, Host, eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HEADERS = b"\x00\x00\x05\x01\x04\x00\x00\x00\x01\x82\x86\x84\x41\x00"
PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8)
WINDOW = b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff"
DATA = b"\x00\x40\x00\x00\x00\x00\x00\x00\x01" + bytes(0x4000)
HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(32)
QUIET = "{apiVersion: joblet/v1, kind: Job, metadata: {name: quiet}, spec: {command: [echo, heard]}}"
HANDSHAKE_SECONDS = 10.0  # tls_front.HANDSHAKE_SECONDS: until then a silent one holds a place
ANSWERS_BETWEEN = 25  # connections, between two questions of the honest client


@dataclass(frozen=True, slots=True)
class Flooded:
    """What was seen. worst_answer_seconds: of the honest client meanwhile."""

    connections: int
    refused_at_once: int
    worst_answer_seconds: float
    new_client_seconds: float
    descriptors_before: int
    descriptors_after: int


def flood(host: Host, *, seed: str, connections: int) -> Flooded:
    """Make so many connections, of all kinds, keep what can be kept, ask meanwhile, let go."""
    allow_descriptors(2 * connections)
    chance = random.Random(seed)
    address = "127.0.0.1", int((host.root / "run/port").read_text())
    context = client_context(host)
    host.apply(QUIET)
    ask(host.jobs)
    before = descriptors(host)
    mutation = Mutation(
        [PREFACE + SETTINGS + HEADERS, PREFACE + SETTINGS + PING * 3 + WINDOW, PREFACE + SETTINGS + HEADERS + DATA]
    )
    kinds: tuple[Callable[[int], socket.socket], ...] = (
        lambda _: plain(address, b""),
        lambda _: plain(address, HELLO[: chance.randrange(len(HELLO))]),
        lambda number: plain(address, mutation.input(seed, number)),
        lambda _: secure(address, context, b""),
        lambda _: secure(address, context, PREFACE[: chance.randrange(len(PREFACE))]),
        lambda _: secure(address, context, PREFACE + SETTINGS),
        lambda number: secure(address, context, mutation.input(seed, number)),
    )
    held: list[socket.socket] = []
    refused = 0
    worst = 0.0
    try:
        for number in range(connections):
            try:
                held.append(kinds[number % len(kinds)](number))
            except OSError:
                refused += 1
            if number % ANSWERS_BETWEEN == 0:
                worst = max(worst, ask(host.jobs))
                drip(held, chance)
        worst = max(worst, ask(host.jobs))
    finally:
        for one in held:
            close(one, chance)
    started = time.monotonic()
    eventually(lambda: gets_in(host), within=3 * HANDSHAKE_SECONDS, what="a new client gets in")
    new_client = time.monotonic() - started
    after = descriptors(host)
    with suppress(AssertionError):  # the figure is what is judged
        after = eventually(lambda: descriptors(host) <= before + 4 and descriptors(host), within=3 * HANDSHAKE_SECONDS)
    return Flooded(connections, refused, round(worst, 3), round(new_client, 3), before, after)


def plain(address: tuple[str, int], data: bytes) -> socket.socket:
    made = socket.create_connection(address, timeout=10 * PATIENCE)
    made.setblocking(False)
    with suppress(BlockingIOError, ConnectionError):
        made.send(data)
    return made


def secure(address: tuple[str, int], context: ssl.SSLContext, data: bytes) -> socket.socket:
    """With a good certificate: whoever has one may go mad too."""
    made = context.wrap_socket(socket.create_connection(address, timeout=10 * PATIENCE))
    made.setblocking(False)
    with suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError, OSError):
        made.send(data or b"")
    return made


def drip(held: list[socket.socket], chance: random.Random) -> None:
    """The slow ones: one more byte."""
    for one in chance.sample(held, min(5, len(held))):
        with suppress(OSError):
            one.send(b"\0")


def close(one: socket.socket, chance: random.Random) -> None:
    """In order, or as a crash does."""
    if chance.random() < 0.5:
        with suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.close()


def client_context(host: Host) -> ssl.SSLContext:
    node = YAML(typ="safe").load((host.root / "config/rnx-config.yml").read_text())["nodes"]["default"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(node["cert"] + node["key"])
        file.flush()
        context.load_cert_chain(file.name)
    return context


def ask(jobs: job_pb2_grpc.JobServiceStub) -> float:
    started = time.monotonic()
    jobs.Get(job_pb2.GetRequest(ref="quiet"), timeout=60 * PATIENCE)
    return time.monotonic() - started


def gets_in(host: Host) -> bool:
    """A client that was not there before."""
    node = YAML(typ="safe").load((host.root / "config/rnx-config.yml").read_text())["nodes"]["default"]
    credentials = grpc.ssl_channel_credentials(*(node[key].encode() for key in ("ca", "key", "cert")))
    with grpc.secure_channel(node["address"], credentials) as channel:
        try:
            job_pb2_grpc.JobServiceStub(channel).Get(job_pb2.GetRequest(ref="quiet"), timeout=5 * PATIENCE)
        except grpc.RpcError:
            return False
        return True


def descriptors(host: Host) -> int:
    assert host.daemon is not None
    return len(os.listdir(Path(f"/proc/{host.daemon.pid}/fd")))


def allow_descriptors(number: int) -> None:
    """For us; the daemon has its own bound on connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number + 1000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number + 1000, hard), hard))

"""Network namespaces for the networks' tests: the host's, in which the daemon lives, and the world outside of it.

All addresses are of documentation or private ranges, and no packet leaves these namespaces. They go with the process that
holds each.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from pyroute2 import IPRoute

from joblet.sandbox import syscalls
from tests.timing import PATIENCE

T = TypeVar("T")
HOST = "192.0.2.1"
WORLD = "192.0.2.2"
METADATA = "169.254.169.254"
BEHIND = "198.51.100.7"  # an address of the world that the host reaches by its default route


@dataclass
class Namespace:
    """A network namespace, held by a process that sleeps in it."""

    holder: subprocess.Popen[bytes]

    @classmethod
    def make(cls) -> Namespace:
        holder = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", "echo made; exec sleep infinity"], stdout=subprocess.PIPE
        )
        assert holder.stdout is not None and holder.stdout.readline() == b"made\n"
        return cls(holder)

    @property
    def path(self) -> str:
        return f"/proc/{self.holder.pid}/ns/net"

    def call(self, function: Callable[[], T]) -> T:
        """In a thread that is in the namespace."""
        return within(self.path, function)

    def end(self) -> None:
        self.holder.kill()
        self.holder.wait(30 * PATIENCE)
        if self.holder.stdout:
            self.holder.stdout.close()


def within(path: str, function: Callable[[], T]) -> T:
    """Call it in a thread of its own that has entered the network namespace; its sockets stay there."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
            results.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60 * PATIENCE)
    assert not thread.is_alive()
    if errors:
        raise errors[0]
    return results[0]


@dataclass
class Stage:
    """host: with lo and an interface to the world, the default route. world: everything else."""

    host: Namespace
    world: Namespace
    servers: list[Server] = field(default_factory=list)
    bare: set[str] = field(default_factory=set)  # the host's interfaces before there was any daemon

    @property
    def within(self) -> tuple[str, ...]:
        """What puts a command into the host's namespace."""
        return ("nsenter", f"--net={self.host.path}", "--")

    def serve(self, where: Namespace, address: str, port: int = 0) -> Server:
        server = where.call(lambda: Server(address, port))
        self.servers.append(server)
        return server

    def interfaces(self) -> set[str]:
        return self.host.call(lambda: {name for _, name in socket.if_nameindex()})

    def ruleset(self) -> str:
        return subprocess.run(
            [*self.within, "nft", "list", "ruleset"], check=True, capture_output=True, text=True, timeout=20 * PATIENCE
        ).stdout


class Server:
    """Answers each TCP connection and each UDP datagram with the address that it came from."""

    def __init__(self, address: str, port: int) -> None:
        self.tcp = socket.create_server((address, port))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, self.port))
        self.seen: list[str] = []
        for work in (self._answer_tcp, self._answer_udp):
            threading.Thread(target=work, daemon=True).start()

    def _answer_tcp(self) -> None:
        while True:
            try:
                connection, peer = self.tcp.accept()
            except OSError:
                return
            self.seen.append(peer[0])
            with connection:
                connection.sendall(f"{peer[0]}\n".encode())

    def _answer_udp(self) -> None:
        while True:
            try:
                _, peer = self.udp.recvfrom(2048)
            except OSError:
                return
            if not peer:
                return
            self.seen.append(peer[0])
            self.udp.sendto(f"{peer[0]}\n".encode(), peer)

    def close(self) -> None:
        for one in (self.tcp, self.udp):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes the thread
            one.close()


@contextmanager
def stage() -> Iterator[Stage]:
    """Two namespaces, connected. At the end their processes are gone, and they with them."""
    made: list[Namespace] = []
    try:
        host, world = Namespace.make(), Namespace.make()
        made += [host, world]
        host.call(lambda: _furnish_host(world.holder.pid))
        world.call(_furnish_world)
        there = Stage(host, world)
        there.bare = there.interfaces()
        try:
            yield there
        finally:
            for server in there.servers:
                server.close()
    finally:
        for namespace in made:
            namespace.end()


def _furnish_host(world: int) -> None:
    with IPRoute() as route:
        route.link("set", index=1, state="up")
        route.link("add", ifname="up0", kind="veth", peer={"ifname": "up0", "net_ns_pid": world})
        index = socket.if_nametoindex("up0")
        route.link("set", index=index, state="up")
        route.addr("add", index=index, address=HOST, prefixlen=24)
        route.route("add", dst="default", gateway=WORLD)


def _furnish_world() -> None:
    """The metadata service of a cloud, and any other address, are one hop away from the host."""
    with IPRoute() as route:
        index = socket.if_nametoindex("up0")
        for number in (1, index):
            route.link("set", index=number, state="up")
        route.addr("add", index=index, address=WORLD, prefixlen=24)
        for address in (METADATA, BEHIND):
            route.addr("add", index=1, address=address, prefixlen=32)

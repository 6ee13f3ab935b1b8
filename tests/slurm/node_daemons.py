"""A Joblet daemon on each node of a cluster, certificates of the role slurm to ask them with, and a way to them from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from joblet.sandbox import syscalls
from tests.slurm.attempts import ROOT
from tests.slurm.cluster import Cluster
from tests.slurm.hosts import Daemon
from tests.timing import PATIENCE

PORT = 50051


class NodeDaemons:
    """Those of all nodes. The nodes have been initialized."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._running: dict[str, Daemon] = {}

    def start(self, *names: str) -> None:
        for name in names:
            command = [*self._cluster.joblet_command, "serve"]
            self._cluster.path_on(name, f"{ROOT}/run/port").unlink(missing_ok=True)
            self._running[name] = self._cluster.daemon(name, command)
        for name in names:
            self._cluster.wait_until(lambda: self._listens(name), within=60, what=f"the daemon of {name} listens")  # noqa: B023

    def _listens(self, name: str) -> bool:
        daemon = self._running[name]
        assert daemon.process.poll() is None, daemon.log.read_text()
        return self._cluster.path_on(name, f"{ROOT}/run/port").exists()

    def end(self, *names: str) -> None:
        for name in names:
            daemon = self._running.pop(name)
            if daemon.process.poll() is None:
                daemon.end(signal.SIGTERM)

    def end_all(self) -> None:
        self.end(*(name for name in self._running if self._cluster.site.hosts[name].pid))


@contextmanager
def node_daemons(cluster: Cluster) -> Iterator[NodeDaemons]:
    daemons = NodeDaemons(cluster)
    try:
        daemons.start(*cluster.names)
        yield daemons
    finally:
        daemons.end_all()


def issue_client(cluster: Cluster, directory: Path, role: str = "slurm") -> Path:
    """A certificate for all nodes, which have one authority here, as ``default.yml``."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "default.yml"
    first = cluster.names[0]
    command = [*cluster.joblet_command, "certs", "issue", "--role", role, "--name", f"ctl-{role}", "--output"]
    cluster.run_on(first, [*command, str(path)])
    return path


def name_addresses(default: Path, addresses: Mapping[str, str]) -> None:
    """Beside it a file for each node, with an address of its own."""
    content = YAML(typ="safe").load(default.read_text())
    for node, address in addresses.items():
        content["nodes"]["default"]["address"] = address
        path = default.with_name(f"{node}.yml")
        with path.open("w") as stream:
            path.chmod(0o600)
            YAML().dump(content, stream)


@contextmanager
def doors(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Addresses of this host's own behind which the nodes' daemons are, for who does not live in the cluster's network."""
    loop = asyncio.new_event_loop()
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in cluster.names}
    targets = {name: cluster.site.hosts[name].address for name in cluster.names}
    network = os.open(f"/proc/{cluster.site.hosts[cluster.controller].pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        try:
            back, there = await asyncio.open_connection(address, PORT)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, there), _copy(back, writer))

    async def serve() -> None:
        for name, listener in listeners.items():
            await asyncio.start_server(
                lambda reader, writer, name=name: passed_on(reader, writer, targets[name]),  # type: ignore[misc]
                sock=listener,
            )

    def run() -> None:
        syscalls.setns(network, syscalls.CLONE_NEWNET)  # of this thread alone
        loop.run_until_complete(serve())
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, name="doors")
    thread.start()
    try:
        yield {name: f"127.0.0.1:{listener.getsockname()[1]}" for name, listener in listeners.items()}
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20 * PATIENCE)
        os.close(network)
        for listener in listeners.values():
            listener.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

"""The daemons on the nodes, asked over TLS with a client certificate of this host's: what Slurm has run there, and how it ended.

A directory holds clients' configurations as ``joblet certs issue --role slurm`` writes them: ``NODE.yml`` for one node, with its
address, and ``default.yml`` for all others, which are asked where Slurm itself finds them. They are read again when they change.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from joblet.api.channel import open_async_channel
from joblet.api.v1 import slurm_node_pb2, slurm_node_pb2_grpc
from joblet.config.client import NodeConfig, load_client_config
from joblet.config.errors import ConfigError
from joblet.errors import JobletError

DEFAULT = "default"
MANY = 100  # attempts in one question
LONGEST_WORDS = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LAST_ERROR = re.compile(r".*last error: (?:[A-Z]+: )?(?:ipv[46]:\S+ )?", re.DOTALL)


class NodeAway(JobletError):
    """A node's daemon does not answer, or not to us. Nothing was done, or it does no harm to do it again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node knows of the attempts that it was asked about. version: of Joblet there."""

    version: str
    attempts: Mapping[str, slurm_node_pb2.NodeAttempt]


@dataclass(frozen=True, slots=True)
class _Line:
    """A channel to one node. stamp: of the configuration that it was made by."""

    stamp: tuple[object, ...]
    channel: grpc.aio.Channel
    stub: Any


class NodeDaemons:
    """Used in one event loop. addresses: of nodes, as Slurm has them; may be set anew at any time."""

    def __init__(self, directory: str, port: int, seconds: float) -> None:
        """seconds: how long a call may take, but for the reading of a log."""
        self._directory = directory
        self._port = port
        self.seconds = seconds
        self._lines: dict[str, _Line] = {}
        self.addresses: dict[str, str] = {}

    async def close(self) -> None:
        lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            await line.channel.close()

    def named(self) -> list[str]:
        """The nodes that have a file of their own."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return []
        return sorted(name.removesuffix(".yml") for name in names if name.endswith(".yml") and name != f"{DEFAULT}.yml")

    # --- questions ----------------------------------------------------------------------------------------------------

    async def attempts(self, node: str, ids: Sequence[str], *, within: float) -> Answer:
        """within: seconds. Raises NodeAway."""
        version = ""
        found: dict[str, slurm_node_pb2.NodeAttempt] = {}
        for first in range(0, max(len(ids), 1), MANY):
            part = await self._attempts(node, ids[first : first + MANY], within)
            version = part.version
            found.update(part.attempts)
        return Answer(version, found)

    async def _attempts(self, node: str, ids: Sequence[str], seconds: float) -> Answer:
        request = slurm_node_pb2.ListAttemptsRequest(attempt_ids=ids)
        try:
            answer = await (await self._stub(node)).ListAttempts(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and len(ids) > 1:  # more than one message may hold
                half = len(ids) // 2
                parts = [await self._attempts(node, share, seconds) for share in (ids[:half], ids[half:])]
                return Answer(parts[0].version, {**parts[0].attempts, **parts[1].attempts})
            raise away(node, error) from error
        return Answer(answer.version, {one.attempt_id: one for one in answer.attempts})

    async def log(
        self, node: str, attempt_id: str, part: int, offset: int, *, follow: bool
    ) -> AsyncGenerator[slurm_node_pb2.FetchAttemptLogResponse]:
        """The bytes of its log from a place on. Raises NodeAway."""
        request = slurm_node_pb2.FetchAttemptLogRequest(attempt_id=attempt_id, part=part, offset=offset, follow=follow)
        call = (await self._stub(node)).FetchAttemptLog(request)
        try:
            async for block in call:
                yield block
        except grpc.aio.AioRpcError as error:
            raise away(node, error) from error
        finally:
            call.cancel()

    async def fence(self, node: str, attempt_id: str) -> tuple[bool, bytes]:
        """Whether nobody begins it there any more because of us, and the claim there is. Raises NodeAway."""
        request = slurm_node_pb2.FenceAttemptRequest(attempt_id=attempt_id)
        answer = await self._ask(node, (await self._stub(node)).FenceAttempt(request, timeout=self.seconds))
        return answer.fenced, answer.claim

    async def forget(self, node: str, attempt_id: str) -> None:
        """Raises NodeAway, also while it still clears up after it."""
        request = slurm_node_pb2.ForgetAttemptRequest(attempt_id=attempt_id)
        await self._ask(node, (await self._stub(node)).ForgetAttempt(request, timeout=self.seconds))

    async def _ask(self, node: str, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise away(node, error) from error

    # --- channels -----------------------------------------------------------------------------------------------------

    async def _stub(self, node: str) -> Any:
        """Raises NodeAway if nothing is known of how to reach it."""
        path = self._path_of(node)
        try:
            status = os.stat(path)
        except OSError as error:
            raise NodeAway(f"no certificate to ask it with: {path}: {error.strerror}", where=node) from error
        stamp = (path, status.st_ino, status.st_mtime_ns, self.addresses.get(node))
        line = self._lines.get(node)
        if line is None or line.stamp != stamp:
            config = self.config_of(node)
            if line is not None:
                await line.channel.close()
            channel = open_async_channel(config)
            line = self._lines[node] = _Line(stamp, channel, slurm_node_pb2_grpc.SlurmNodeServiceStub(channel))
        return line.stub

    def config_of(self, node: str) -> NodeConfig:
        """How it is reached. Raises NodeAway."""
        path = self._path_of(node)
        try:
            found = load_client_config(path, {}).node()
        except ConfigError as error:
            raise NodeAway(str(error), where=node) from error
        if found.address.startswith("unix:"):
            raise NodeAway(f"{path}: {found.address} is no address of another host", where=node)
        if path.endswith(f"/{DEFAULT}.yml"):
            host = self.addresses.get(node, node)
            address = f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"
            return NodeConfig(node, address, found.cert, found.key, found.ca)
        return found

    def _path_of(self, node: str) -> str:
        own = f"{self._directory}/{node}.yml"
        return own if _NAME.fullmatch(node) and os.path.exists(own) else f"{self._directory}/{DEFAULT}.yml"


def away(node: str, error: grpc.aio.AioRpcError) -> NodeAway:
    """In few words; gRPC's own begin with what everybody knows."""
    words = _LAST_ERROR.sub("", error.details() or "")
    text = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:LONGEST_WORDS]
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        text = "no answer in time"
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        text = "it is of an older version"
    is_there = code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return NodeAway(f"its daemon {'refuses' if is_there else 'does not answer'}: {text or code.name}", where=node)

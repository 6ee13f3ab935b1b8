"""Gives an attempt that may ask the daemon for something a socket of its own to do so, and the program that asks.

    <run>/upkeep/<attempt>/asker.json     who asks, and for what: for the next daemon
    <run>/upkeep/<attempt>/bound/socket   bound into the sandbox as /run/joblet/upkeep, with
    <run>/upkeep/<attempt>/bound/ask      the program

Only root can enter ``<run>``, so whoever comes by that socket is that attempt: there is no secret that could be copied, run out
or be taken along. What is behind it is no API but ``jobletd.upkeep.calls``.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from joblet.atomicfile import write_atomic
from jobletd.executor import AttemptRequest
from jobletd.model import AttemptId, LimitStatus
from jobletd.upkeep.calls import AGAIN, Answer, Asker, Calls

REQUEST_SECONDS = 10.0
REQUEST_BYTES = 4096
CONNECTIONS = 4  # of one attempt at a time
PROGRAM = Path(__file__).with_name("ask.py")
log = structlog.get_logger("upkeep")


class UpkeepProvider:
    """See ``jobletd.executor.local.provider.Provider``. A job that asks for nothing costs nothing here."""

    def __init__(self, directory: str, calls: Calls) -> None:
        """directory: in one that only root can enter."""
        self._directory = directory
        self._calls = calls
        self._listening: dict[str, asyncio.Server] = {}
        self._answering: dict[str, set[asyncio.Task[None]]] = {}

    async def attach(
        self, request: AttemptRequest, first_id: int, descriptors: list[int], limits: list[LimitStatus]
    ) -> dict[str, Any]:
        asked = request.manifest.spec.isolation.upkeep
        if not asked:
            return {}
        asker = Asker(request.manifest.metadata.name, request.run_id, request.attempt_id, tuple(map(str, asked)))
        place = self._place(request.attempt_id)
        shutil.rmtree(place, ignore_errors=True)  # of a launch that broke off
        os.makedirs(f"{place}/bound", 0o700)
        os.chmod(f"{place}/bound", 0o755)  # noqa: S103  the job's user is none of the host's
        write_atomic(f"{place}/asker.json", json.dumps(asdict(asker)).encode(), durable=False)
        write_atomic(f"{place}/bound/ask", PROGRAM.read_bytes(), 0o755, durable=False)
        await self._listen(asker)
        return {"upkeep": f"{place}/bound"}

    async def detach(self, attempt_id: AttemptId) -> None:
        server = self._listening.pop(attempt_id, None)
        if server is not None:
            server.close()
        shutil.rmtree(self._place(attempt_id), ignore_errors=True)

    async def keep_only(self, live: frozenset[AttemptId]) -> None:
        """Listen again for those of a former daemon; what it was answering is lost, and asked for anew."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        for name in os.listdir(self._directory):
            if name not in live:
                await self.detach(AttemptId(name))
            elif name not in self._listening:
                try:
                    await self._listen(_recorded(f"{self._place(name)}/asker.json"))
                except (OSError, ValueError, TypeError, KeyError) as error:
                    log.warning("an attempt cannot ask for upkeep any more", attempt=name, error=str(error))

    async def close(self) -> None:
        """Answer no more; the sockets stay for the next daemon."""
        for server in self._listening.values():
            server.close()
        self._listening.clear()
        tasks = [task for answering in self._answering.values() for task in answering]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _place(self, attempt_id: str) -> str:
        return f"{self._directory}/{attempt_id}"

    async def _listen(self, asker: Asker) -> None:
        bound = f"{self._place(asker.attempt_id)}/bound"
        with suppress(FileNotFoundError):
            os.unlink(f"{bound}/socket")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        directory = os.open(bound, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{directory}/socket")  # the path itself may be too long for a socket
            os.chmod(f"{bound}/socket", 0o666)  # noqa: S103  the job's user is none of the host's; nobody else gets here

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._serve(asker, reader, writer)

            self._listening[asker.attempt_id] = await asyncio.start_unix_server(
                serve, sock=listener, limit=REQUEST_BYTES
            )
        except BaseException:
            listener.close()
            raise
        finally:
            os.close(directory)

    async def _serve(self, asker: Asker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer. What was begun is done to its end, whether or not the job waits for it."""
        task = asyncio.current_task()
        assert task is not None
        answering = self._answering.setdefault(asker.attempt_id, set())
        answering.add(task)
        try:
            if len(answering) > CONNECTIONS:
                answer = Answer(AGAIN, "joblet: too many requests of this job at a time\n")
            else:
                answer = await self._answer(asker, reader)
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(json.dumps({"exit": answer.status, "output": answer.output}).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError) as error:
            log.debug("not heard", job=asker.job, error=str(error))
        finally:
            writer.close()
            answering.discard(task)
            if not answering:
                self._answering.pop(asker.attempt_id, None)

    async def _answer(self, asker: Asker, reader: asyncio.StreamReader) -> Answer:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await reader.readline()
        except ValueError:  # longer than REQUEST_BYTES
            line = b""
        return await self._calls.answer(asker, line)


def _recorded(path: str) -> Asker:
    """Raises OSError, ValueError, TypeError, KeyError."""
    data = json.loads(Path(path).read_text())
    return Asker(**{**data, "calls": tuple(data["calls"])})

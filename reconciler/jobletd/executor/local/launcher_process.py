"""The daemon's side of the launcher: starts it, talks to it, starts another one when it dies."""

from __future__ import annotations

import asyncio
import marshal
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

import joblet
from joblet import crash_points
from joblet.errors import JobletError
from joblet.sandbox.memory_file import made

PROTOCOL_VERSION = 1
READY_WITHIN_SECONDS = 30.0
MESSAGE_BYTES = 8192
DESCRIPTORS = 2
log = structlog.get_logger("launcher")
_CODE = "import sys; sys.path.insert(0, {root!r}); from joblet.sandbox.start import main; main()"


class LauncherDied(JobletError):
    """The launcher ended while a request was under way: whether the attempt was launched, its directory tells."""


class LauncherFailed(LauncherDied):
    """The launcher did not get ready: it died over its start, or cannot start on this host. No attempt is to blame for that."""


@dataclass(frozen=True, slots=True)
class Launched:
    """The init's pid on the host, with descriptors that are ours to close."""

    pid: int
    pidfd: int
    status_fd: int


@dataclass(frozen=True, slots=True)
class AlreadyLaunched:
    """An earlier request had launched it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It could not be launched; the exit record says why."""

    error: str


class LauncherProcess:
    """At most one launcher at a time."""

    def __init__(
        self,
        *,
        template: str,
        seccomp: Mapping[str, bytes],
        inits_cgroup: str | None,
        early: bool,
        spare_cgroups: Sequence[str] = (),
        attempts: str = "",
    ) -> None:
        """early: whether commands may be born before their cgroups are known. spare_cgroups: what may be made beforehand.
        attempts: in whose file system attempts have their directories, if files for them may be made beforehand, too."""
        self._template = template
        self._seccomp = dict(seccomp)
        self._inits_cgroup = inits_cgroup
        self._early = early
        self._spare_cgroups = list(spare_cgroups)
        self._attempts = attempts
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._waiting: dict[str, asyncio.Future[Launched | AlreadyLaunched | Refused]] = {}
        self._ready: asyncio.Future[None] | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start it if it does not run, and wait until it is ready. Raises LauncherFailed."""
        async with self._starting:
            if self._socket is not None:
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            code = _CODE.format(root=os.path.dirname(os.path.dirname(joblet.__file__)))
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", code, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=crash_points.environment(),
                    cwd="/",
                    start_new_session=True,
                )
            loop = asyncio.get_running_loop()
            self._socket = ours
            self._ready = loop.create_future()
            loop.add_reader(ours, self._readable)
            greeting = {
                "version": PROTOCOL_VERSION,
                "template": self._template,
                "seccomp": self._seccomp,
                "init_into": self._inits_cgroup,
                "early": self._early,
                "spare_cgroups": self._spare_cgroups,
                "attempts": self._attempts,
            }
            try:
                self._send(greeting)
                await asyncio.wait_for(self._ready, READY_WITHIN_SECONDS)
            except (TimeoutError, LauncherDied) as error:
                self.close()
                raise LauncherFailed(
                    "the launcher did not get ready",
                    where=str(error),
                    todo="see the lines above it in the log; joblet doctor",
                ) from error

    async def launch(
        self, spec: Mapping[str, Any], descriptors: Sequence[int] = ()
    ) -> Launched | AlreadyLaunched | Refused:
        """Launch one attempt. descriptors: what its init needs, by index. Raises LauncherDied or LauncherFailed."""
        await self.start()
        answer: asyncio.Future[Launched | AlreadyLaunched | Refused] = asyncio.get_running_loop().create_future()
        self._waiting[spec["attempt"]] = answer
        try:
            while not answer.done() and not self._send(spec, descriptors):
                await asyncio.sleep(0.001)  # its queue is full: it works on what it has
            return await answer
        finally:
            self._waiting.pop(spec["attempt"], None)

    def knows(self, profile: str) -> bool:
        return profile in self._seccomp

    def close(self) -> None:
        """Hang up: the launcher ends, its jobs run on."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> bool:
        """Send as a memfd: no limit on the size. False: not now. Who waits for an answer hears of a launcher that has died."""
        if self._socket is None:
            raise LauncherDied("the launcher has ended")
        memfd = made("launch", marshal.dumps(dict(message)))
        try:
            socket.send_fds(self._socket, [b"request"], [memfd, *descriptors])
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._died()  # at once, so that the next one to launch starts another
        finally:
            os.close(memfd)
        return True

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            self._died()
            return
        message = marshal.loads(data)  # noqa: S302  from our own child
        if message.get("ready"):
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
            return
        future = self._waiting.get(message["attempt"])
        if future is None or future.done():
            for fd in fds:  # nobody waits any more: it is found again by its directory
                os.close(fd)
        elif message.get("already"):
            future.set_result(AlreadyLaunched())
        elif "error" in message:
            future.set_result(Refused(message["error"]))
        elif len(fds) < DESCRIPTORS:  # we may have no more open: it is launched, and found by its directory
            for fd in fds:
                os.close(fd)
            future.set_result(AlreadyLaunched())
        else:
            future.set_result(Launched(message["pid"], *fds))

    def _died(self) -> None:
        log.warning("the launcher has ended; another one is started when a job wants it", waiting=len(self._waiting))
        self.close()
        error = LauncherDied("the launcher has ended", todo="another one is started")
        for future in (*self._waiting.values(), self._ready):
            if future is not None and not future.done():
                future.set_exception(error)

"""The streams behind the screen, each in a thread of its own: gRPC's iterators wait, and a screen may not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from joblet.api.v1 import job_pb2, monitor_pb2
from rnx.daemon import Daemon
from rnx.failures import ClientError, Unreachable

AGAIN_SECONDS = 1.0
LOG_LINES = 200


class Stream:
    """Follows one stream until ``close``; one that breaks because the daemon is away is asked for again.

    take: gets each message. fail: gets what went wrong, "" once it is well again. Both are called in the thread.
    """

    def __init__(
        self,
        ask: Callable[[], Iterator[Any]],
        take: Callable[[Any], None],
        fail: Callable[[str], None],
        *,
        begin: Callable[[], None] = lambda: None,
        again: bool = True,
    ) -> None:
        """begin: called before each time it is asked for. again: whether it is endless."""
        self._ask = ask
        self._take = take
        self._fail = fail
        self._begin = begin
        self._again = again
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> Stream:
        self._thread.start()
        return self

    def close(self) -> None:
        """Nothing is taken any more. The thread ends with the next message, or with the connection."""
        self._closed.set()

    def _follow(self) -> None:
        while not self._closed.is_set():
            self._begin()
            try:
                for number, message in enumerate(self._ask()):
                    if self._closed.is_set():
                        return
                    if number == 0:
                        self._tell("")
                    self._take(message)
                if not self._again:
                    return
            except Unreachable as error:
                self._tell(str(error))
            except ClientError as error:
                self._tell(str(error))
                return
            self._closed.wait(AGAIN_SECONDS)

    def _tell(self, text: str) -> None:
        if not self._closed.is_set():
            self._fail(text)


def all_jobs(daemon: Daemon) -> Iterator[job_pb2.WatchEvent]:
    return daemon.watch("", seconds=None)


def usage(daemon: Daemon, interval_ms: int) -> Iterator[monitor_pb2.NodeUsage]:
    return daemon.watch_usage(monitor_pb2.WatchUsageRequest(interval_ms=interval_ms, max_jobs=1000))


def log_of(daemon: Daemon, run_id: str) -> Iterator[job_pb2.LogsResponse]:
    return daemon.logs(job_pb2.LogsRequest(ref=run_id, follow=True, tail_lines=LOG_LINES))

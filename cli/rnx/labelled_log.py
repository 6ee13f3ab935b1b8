"""The output of several runs as one: each line begins with whose it is, and none is broken by another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from joblet.api.v1 import job_pb2
from joblet.errors import JobletError
from rnx.log_output import LogPrinter, print_run
from rnx.several import STREAMS_AT_ONCE
from rnx.watching import is_final, wait_for_run
from rnx.workflow_runs import is_over, looks

if TYPE_CHECKING:
    from rnx.daemon import Daemon

BEGUN = ("WAITING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED", "SKIPPED")


class LabelledPrinter(LogPrinter):
    """Whole lines, each with its label; what is written at the same time does not mix within a line."""

    def __init__(self, label: str, lock: threading.Lock, *, timestamps: bool) -> None:
        super().__init__(timestamps=timestamps)
        self._label = label.encode()
        self._lock = lock
        self._left = {"stdout": b"", "stderr": b""}

    def put(self, stream: str, data: bytes) -> None:
        *lines, self._left[stream] = (self._left[stream] + data).split(b"\n")
        with self._lock:
            super().put(stream, b"".join(self._label + line + b"\n" for line in lines))

    def end(self) -> None:
        """What came without the end of its line."""
        for stream in [stream for stream, data in self._left.items() if data]:
            self.put(stream, b"\n")


class LabelledLog:
    """What the runs of a workflow or an array write. request: what of each is wanted; with ``follow`` those that run are read
    at the same time, else one after the other.

    before: stands before each label. failures: by label, why an output cannot be had; that keeps no other from being shown.
    """

    def __init__(
        self,
        daemon: Daemon,
        request: job_pb2.LogsRequest,
        *,
        timestamps: bool,
        before: str = "",
        lock: threading.Lock | None = None,
    ) -> None:
        self._daemon = daemon
        self._request = request
        self._timestamps = timestamps
        self._before = before
        self._lock = lock or threading.Lock()
        self._begun: set[str] = set()
        self._pool = ThreadPoolExecutor(STREAMS_AT_ONCE)
        self._ended: SimpleQueue[Future[None]] = SimpleQueue()
        self._submitted = 0
        self.failures: dict[str, JobletError] = {}

    def workflow(self, name: str, number: int = 0) -> None:
        """Of the steps of its run, or of the one of that number; with ``follow`` from when there is one, until it has ended.
        Raises ClientError."""
        self._all(partial(self._steps, name, number))

    def array(self, run: job_pb2.Run) -> None:
        """Of its indexes. Raises ClientError."""
        self._all(partial(self._indexes, run, run.job))

    def _all(self, work: Callable[[], None]) -> None:
        if not self._request.follow:
            work()
            return
        try:
            self._submit(work)
            ended = 0
            while ended < self._submitted:  # who submits more is one of them
                self._ended.get().result()
                ended += 1
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C, or a reader who has gone, waits for nobody

    def _submit(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._submitted += 1
        self._pool.submit(work).add_done_callback(self._ended.put)

    def _steps(self, name: str, number: int) -> None:
        for workflow in looks(self._daemon, name):
            run = workflow.workflow_run
            number = number or run.number
            if run.number != number:
                return  # another one took its place
            for step in workflow.steps:
                if step.run_id:
                    self._begin(step.name, step.run_id)
            if not self._request.follow or is_over(workflow):
                return

    def _indexes(self, run: job_pb2.Run, label: str) -> None:
        """Of each that has begun; those below the mark are known to have."""
        mark, known = run.array.first - 1, set[int]()

        def look(now: job_pb2.Run) -> bool:
            nonlocal mark
            for one in self._daemon.indexes(run.id, states=BEGUN, after=mark):
                if one.index == mark + 1:
                    mark = one.index
                if one.index not in known and one.HasField("run"):
                    known.add(one.index)
                    self._start(f"{label}.{one.index}", one.run)
            return is_final(now)

        if self._request.follow:
            wait_for_run(self._daemon, run.id, look)
        else:
            look(run)

    def _begin(self, label: str, run_id: str) -> None:
        """A run is shown once, whatever it turns out to be."""
        if run_id in self._begun:
            return
        self._begun.add(run_id)
        run = self._daemon.get(run_id).runs[0]
        if run.HasField("array"):
            work = partial(self._indexes, run, label)
            work() if not self._request.follow or is_final(run) else self._submit(work)
        else:
            self._start(label, run)

    def _start(self, label: str, run: job_pb2.Run) -> None:
        """What is over is shown in its turn, whole; what runs beside all else."""
        if self._request.follow and not is_final(run):
            self._submit(partial(self._print, label, run.id))
        else:
            self._print(label, run.id)

    def _print(self, label: str, run_id: str) -> None:
        mine = job_pb2.LogsRequest()
        mine.CopyFrom(self._request)
        mine.ref = run_id
        printer = LabelledPrinter(f"{self._before}{label}  ", self._lock, timestamps=self._timestamps)
        try:
            print_run(self._daemon, mine, printer)
        except JobletError as error:
            self.failures[f"{self._before}{label}"] = error
        finally:
            with suppress(BrokenPipeError):  # told already
                printer.end()

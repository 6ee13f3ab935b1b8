"""A run's output on our own standard output and error, byte for byte; followed through restarts of the daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from joblet.api.v1 import job_pb2
from rnx.daemon import Daemon
from rnx.failures import TryAgain, Unreachable
from rnx.output.words import exact_moment
from rnx.watching import Patience

Select = Callable[[Iterable[job_pb2.LogEntry]], list[job_pb2.LogEntry]]


class LogPrinter:
    """Writes entries and remembers where it is, so that a broken connection repeats and loses nothing."""

    def __init__(self, *, timestamps: bool = False) -> None:
        self._timestamps = timestamps
        self._at_line_start = {"stdout": True, "stderr": True}
        self._last: dict[int, tuple[int, int]] = {}  # attempt: time of its last entry, how many entries have it

    def write(self, entries: Iterable[job_pb2.LogEntry]) -> None:
        """Write and flush, in the order of the entries as far as two streams have one. Raises BrokenPipeError."""
        pieces: list[bytes] = []
        stream = "stdout"
        for entry in entries:
            if entry.stream != stream:
                self._flush(stream, pieces)
                stream = entry.stream
            pieces.append(self._dated(entry) if self._timestamps else entry.data)
            time_ns, count = self._last.get(entry.attempt, (0, 0))
            self._last[entry.attempt] = (entry.time_ns, count + 1 if entry.time_ns == time_ns else 1)
        self._flush(stream, pieces)

    def _flush(self, stream: str, pieces: list[bytes]) -> None:
        if pieces:
            self.put(stream, b"".join(pieces))
            pieces.clear()

    def put(self, stream: str, data: bytes) -> None:
        """Onto our own stream of that name."""
        file = sys.stderr if stream == "stderr" else sys.stdout
        file.flush()
        file.buffer.write(data)
        file.buffer.flush()

    def _dated(self, entry: job_pb2.LogEntry) -> bytes:
        starts, self._at_line_start[entry.stream] = self._at_line_start[entry.stream], not entry.partial
        return exact_moment(entry.time_ns).encode() + b" " + entry.data if starts else entry.data

    @property
    def resume_ns(self) -> int | None:
        """From when on to ask after a break: the latest attempt's last entry. None: nothing was written yet."""
        return self._last[max(self._last)][0] if self._last else None

    def after_break(self) -> Select:
        """What to keep of a new connection's entries: those that were not written before.

        Many share one time (it is put in per chunk), so those of the last time are counted.
        """
        marks = dict(self._last)
        seen: dict[int, int] = {}

        def select(entries: Iterable[job_pb2.LogEntry]) -> list[job_pb2.LogEntry]:
            fresh = []
            for entry in entries:
                time_ns, count = marks.get(entry.attempt, (-1, 0))
                if marks and (entry.attempt < max(marks) or entry.time_ns < time_ns):
                    continue
                if entry.time_ns == time_ns:
                    seen[entry.attempt] = seen.get(entry.attempt, 0) + 1
                    if seen[entry.attempt] <= count:
                        continue
                fresh.append(entry)
            return fresh

        return select


def print_log(daemon: Daemon, request: job_pb2.LogsRequest, printer: LogPrinter) -> None:
    """Print the output of the run that a request means."""
    job = daemon.get(request.ref)
    if job.runs:
        request.ref = job.runs[0].id  # a later connection must mean the same run
    print_run(daemon, request, printer)


def print_run(daemon: Daemon, request: job_pb2.LogsRequest, printer: LogPrinter) -> None:
    """Print the answer to a request that names a run by its id. With ``follow`` a daemon that goes away in between is waited
    for."""
    patience = Patience()
    select: Select = list
    while True:
        try:
            for batch in daemon.logs(request):
                patience.reset()
                printer.write(select(batch.entries))
            return
        except (Unreachable, TryAgain) as error:  # away for a moment; or we, or who reads us, did not read for too long
            if not request.follow:
                raise
            patience.wait(error)
        select = printer.after_break()
        if printer.resume_ns is not None:
            request.since.FromNanoseconds(printer.resume_ns)
            request.ClearField("tail_lines")

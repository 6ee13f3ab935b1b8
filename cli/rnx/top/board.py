"""What the screen shows, without the screen: jobs from Watch, figures from WatchUsage, merged, filtered and sorted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from joblet.api.v1 import job_pb2, monitor_pb2
from rnx.output.bars import share
from rnx.output.words import seconds_between

HISTORY = 30  # readings that are drawn


class Order(StrEnum):
    """What the rows are sorted by."""

    CPU = "cpu"
    MEMORY = "memory"
    IO = "io"
    AGE = "age"
    NAME = "name"


@dataclass(slots=True)
class Row:
    """One job. Rates are None until there have been two readings, and while it does not run."""

    name: str
    run_id: str = ""
    phase: str = ""
    reason: str = ""
    started: float | None = None  # seconds since
    use: monitor_pb2.JobUsage | None = None
    history: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @property
    def cpu(self) -> float:
        return self.use.cpu_percent if self.use is not None else 0.0

    @property
    def memory(self) -> int:
        return int(self.use.usage.memory_bytes) if self.use is not None else 0

    @property
    def memory_share(self) -> float | None:
        """Percent of the limit; None without one."""
        if self.use is None or not self.use.memory_limit_bytes:
            return None
        return share(self.memory, self.use.memory_limit_bytes)

    @property
    def io(self) -> float:
        return self.use.io_read_rate + self.use.io_write_rate if self.use is not None else 0.0


_KEYS: dict[Order, Callable[[Row], tuple[float | str, ...]]] = {
    Order.CPU: lambda row: (-row.cpu, -row.memory, row.name),
    Order.MEMORY: lambda row: (-row.memory, row.name),
    Order.IO: lambda row: (-row.io, -row.cpu, row.name),
    Order.AGE: lambda row: (-(row.started or 0.0), row.name),
    Order.NAME: lambda row: (row.name,),
}


class Board:
    """All jobs of a node as far as it has told."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._told: set[str] = set()  # since the watch began anew
        self.reading: monitor_pb2.NodeUsage | None = None

    def begin(self) -> None:
        """A watch begins anew: what it does not tell of until it is in step was deleted meanwhile."""
        self._told.clear()

    def changed(self, event: job_pb2.WatchEvent) -> None:
        """One message of Watch."""
        if event.type == job_pb2.WatchEvent.SYNCED:
            self._rows = {name: row for name, row in self._rows.items() if name in self._told}
            return
        name = event.job.name
        if event.type == job_pb2.WatchEvent.DELETED:
            self._rows.pop(name, None)
            return
        self._told.add(name)
        row = self._rows.setdefault(name, Row(name))
        run = event.job.runs[0] if event.job.runs else None
        if run is None or run.id != row.run_id:
            row.history.clear()
        row.run_id, row.phase, row.reason = (run.id, run.phase, run.reason) if run is not None else ("", "", "")
        row.started = seconds_between(run.started, None) if run is not None and run.HasField("started") else None
        if row.phase != "RUNNING":
            row.use = None

    def measured(self, reading: monitor_pb2.NodeUsage) -> None:
        """One message of WatchUsage."""
        self.reading = reading
        used = {one.name: one for one in reading.jobs}
        for name, row in self._rows.items():
            row.use = used.get(name) if row.phase == "RUNNING" else None
            if row.use is not None:
                row.history.append(row.cpu)
                row.started = seconds_between(row.use.started, None)

    def rows(self, order: Order, *, wanted: str = "", only_running: bool = False) -> list[Row]:
        """wanted: a part of the name or the phase, in any case."""
        word = wanted.lower()
        found = [
            row
            for row in self._rows.values()
            if (word in row.name.lower() or word in row.phase.lower()) and (row.use is not None or not only_running)
        ]
        return sorted(found, key=_KEYS[order])

    def row(self, name: str) -> Row | None:
        return self._rows.get(name)

"""How an array stands: in a few words, as lines, and index by index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rnx.output.documents import run_data, stamp
from rnx.output.table import aligned
from rnx.output.terminal import printable
from rnx.output.words import duration, moment, seconds_between

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2

HEADER = ("INDEX", "STATE", "REASON", "STARTED", "DURATION", "EXIT", "ATTEMPTS", "RUN", "VALUES")
SHOWN = 20  # indexes of a large array
NOTEWORTHY = ("RUNNING", "WAITING", "FAILED", "STOPPED")


def summary(array: job_pb2.ArrayStatus) -> str:
    """``42/100 succeeded, 8 running, 1 failed``."""
    counts = (
        ("running", array.running),
        ("waiting", array.waiting),
        ("failed", array.failed),
        ("stopped", array.stopped),
        ("skipped", array.skipped),
    )
    words = [f"{array.succeeded}/{array.count} succeeded"]
    return ", ".join([*words, *(f"{count} {word}" for word, count in counts if count)])


def array_lines(array: job_pb2.ArrayStatus) -> Iterator[tuple[str, str]]:
    """Keys and values for the status of a run."""
    yield "Indexes", f"{summary(array)} ({array.first} to {array.first + array.count - 1}, {array.parallel} at a time)"
    if array.needed < array.count:
        yield "Needed", f"{array.needed} of {array.count}"
    if array.failed_indexes:
        yield "Failed", array.failed_indexes
    if array.stopped_indexes:
        yield "Stopped", array.stopped_indexes


def row(one: job_pb2.Index) -> list[str]:
    values = " ".join(f"{axis}={value}" for axis, value in sorted(one.values.items()))
    if not one.HasField("run"):
        return [str(one.index), one.state, "", "", "", "", "", "", values]
    run = one.run
    started = stamp(run, "started")
    took = duration(seconds_between(started, stamp(run, "ended")))
    code = str(run.exit_code) if run.HasField("exit_code") else ""
    return [str(one.index), one.state, run.reason, moment(started), took, code, str(len(run.attempts)), run.id, values]


def index_rows(indexes: Iterable[job_pb2.Index]) -> Iterator[str]:
    """A table as lines; the column of values is left out where there is no matrix."""
    rows = [row(one) for one in indexes]
    if rows:
        width = len(HEADER) if any(one[-1] for one in rows) else len(HEADER) - 1
        cells = [[printable(cell) or "-" for cell in one[:width]] for one in rows]
        yield from aligned([list(HEADER[:width]), *cells])


def index_data(one: job_pb2.Index) -> dict[str, Any]:
    return {
        "index": one.index,
        "state": one.state,
        "values": dict(sorted(one.values.items())),
        "run": run_data(one.run) if one.HasField("run") else None,
    }


def index_text(one: job_pb2.Index) -> str:
    """One line of a tree."""
    values = " ".join(f"{axis}={value}" for axis, value in sorted(one.values.items()))
    code = f"exit {one.run.exit_code}" if one.run.HasField("exit_code") and one.run.exit_code else ""
    reason = one.run.reason if one.run.reason != "Completed" else ""
    return " ".join(filter(None, (f"index {one.index}", one.state, reason, code, values)))


def parse_ranges(option: str, text: str) -> list[tuple[int, int]]:
    """``3,5-9`` as pairs, both ends included. Raises InvalidRequest."""
    from rnx.failures import InvalidRequest

    found = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdecimal() and len(end) <= 9 for end in ends) or int(ends[0]) > int(ends[1]):
            raise InvalidRequest(f"{option}: {part.strip()!r} is neither an index nor a range", todo="write 3,5-9")
        found.append((int(ends[0]), int(ends[1])))
    return found


def left_out(shown: Sequence[job_pb2.Index], count: int, ref: str) -> str:
    """What to say of indexes that are not shown."""
    rest = count - len(shown)
    return f"... and {rest} more; rnx status {ref} --indexes shows all" if rest > 0 else ""

"""The indexes of an array as commands show them: all of a small one, of a large one those that say something."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from rnx.output.arrays import NOTEWORTHY, SHOWN, index_rows, left_out

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2
    from rnx.daemon import Daemon


def ref_of(ref: str, index: int | None) -> str:
    """The ref of one index of what was asked for."""
    return ref if index is None else f"{ref}.{index}"


def some_indexes(daemon: Daemon, run: job_pb2.Run) -> list[job_pb2.Index]:
    """Of a large array those that run, failed or were stopped, as far as they are not too many."""
    states = () if run.array.count <= SHOWN else NOTEWORTHY
    return list(islice(daemon.indexes(run.id, states=states, page_size=SHOWN), SHOWN))


def index_lines(daemon: Daemon, run: job_pb2.Run) -> Iterator[str]:
    """A table of them, and how many there are besides."""
    shown = some_indexes(daemon, run)
    if shown:
        yield "Indexes:"
        yield from (f"  {text}" for text in index_rows(shown))
    if rest := left_out(shown, run.array.count, run.job):
        yield f"  {rest}"


def wait_for_index(daemon: Daemon, ref: str) -> None:
    """If that is an index of an array: until it has begun, or is not going to. Raises ClientError."""
    from rnx.watching import changes_of, is_final

    ref, _, number = ref.rpartition(".")
    if not ref or not (number.isascii() and number.isdecimal()):
        return
    index = int(number)
    job = daemon.get(ref)
    for run in changes_of(daemon, job.name, job.runs[0].id if job.runs else ""):
        if not run.HasField("array") or is_final(run):
            return
        found = next(daemon.indexes(run.id, page_size=1, after=index - 1), None)
        if found is None or found.index != index or found.state != "NOT_BEGUN":
            return

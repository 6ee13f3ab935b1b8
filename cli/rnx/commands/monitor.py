"""``rnx monitor``: what a node and its jobs use, once or for as long as somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from rnx.options import JsonOption
from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.api.v1 import monitor_pb2

IntervalOption = Annotated[
    str, typer.Option("--interval", metavar="DURATION", help="Between two readings: 500ms to 1h, or seconds: 5.")
]
CountOption = Annotated[int, typer.Option("--count", "-n", help="Readings, then the end; 0: until it is interrupted.")]
JobsOption = Annotated[int, typer.Option("--jobs", help="How many jobs to show, those that use most first.", min=1)]


@connected
def status(target: Target, jobs: JobsOption = 20, json: JsonOption = False) -> None:
    """Show once what the node and its jobs use, measured over half a second.

    \b
    Example:
      rnx monitor status
      rnx monitor status --json
    """
    from rnx.output.documents import print_json
    from rnx.output.usage import usage_data, usage_lines

    reading = next(readings(target, 500, jobs))
    print_json(usage_data(reading)) if json else print("\n".join(usage_lines(reading)))


@connected
def top(target: Target, jobs: JobsOption = 20, json: JsonOption = False) -> None:
    """Show once the jobs that use most.

    \b
    Example:
      rnx monitor top --jobs 5
    """
    from rnx.output.documents import print_json
    from rnx.output.table import print_table
    from rnx.output.usage import JOBS_HEADER, job_row, usage_data

    reading = next(readings(target, 500, jobs))
    if json:
        print_json(usage_data(reading)["jobs"])
    else:
        print_table(JOBS_HEADER, [job_row(one) for one in reading.jobs])


@connected
def watch(
    target: Target,
    interval: IntervalOption = "2s",
    count: CountOption = 0,
    jobs: JobsOption = 20,
    json: JsonOption = False,
) -> None:
    """Show it again and again; on a terminal in place, else one after the other. With --json each reading is one line.

    \b
    Example:
      rnx monitor watch --interval 5s
      rnx monitor watch --json --count 3
    """
    import json as encoder
    import sys

    from rnx.moments import seconds_of
    from rnx.output.usage import usage_data, usage_lines

    in_place = sys.stdout.isatty() and not json
    # As Joblet has it: a number alone is seconds.
    interval_ms = round(seconds_of("--interval", f"{interval}s" if interval.isdigit() else interval) * 1000)
    for shown, reading in enumerate(readings(target, interval_ms, jobs), start=1):
        if json:
            print(encoder.dumps(usage_data(reading)), flush=True)
        else:
            text = "\n".join(usage_lines(reading))
            print(f"\x1b[H\x1b[2J{text}" if in_place else f"{text}\n", flush=True)
        if shown == count:
            return


def readings(target: Target, interval_ms: int, jobs: int) -> Iterator[monitor_pb2.NodeUsage]:
    from joblet.api.v1 import monitor_pb2

    yield from target.daemon().watch_usage(monitor_pb2.WatchUsageRequest(interval_ms=interval_ms, max_jobs=jobs))

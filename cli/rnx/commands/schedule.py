"""``rnx schedule``: what a schedule means, before it is applied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnx.options import JsonOption

if TYPE_CHECKING:
    from joblet.manifest import JobManifest, WorkflowManifest

HEADER = ("LOCAL", "UTC", "REMARK")


def preview(
    filename: Annotated[str, typer.Argument(metavar="FILE", help="A manifest, or - for standard input.")],
    count: Annotated[int, typer.Option("--next", min=1, max=1000, metavar="N", help="How many.")] = 10,
    after: Annotated[
        str | None, typer.Option(metavar="TIME", help="From that time on, in RFC 3339, instead of from now on.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show when the jobs and workflows of a manifest would run, without a daemon.

    In the schedule's time zone and in UTC, jitter included. What a change of clocks does to it stands in the last column.

    \b
    Example:
      rnx schedule preview job.yml --next 10
      rnx schedule preview job.yml --after 2027-03-27T00:00:00Z
    """
    from joblet.manifest import JobManifest, WorkflowManifest
    from rnx.failures import InvalidRequest
    from rnx.manifest_files import read_files
    from rnx.output.documents import print_json
    from rnx.output.table import print_table

    (file,) = read_files([filename])
    runnable = [one for one in file.manifests if isinstance(one, JobManifest | WorkflowManifest)]
    scheduled = [one for one in runnable if one.spec.schedule is not None]
    if not scheduled:
        raise InvalidRequest(
            f"{file.name}: no job or workflow of it has a schedule",
            todo="rnx explain spec.schedule tells how to give it one",
        )
    start = moment_of(after) if after is not None else int(datetime.now(UTC).timestamp())
    shown = {shown_name(one): list(rows(one, start, count)) for one in scheduled}
    if json:
        print_json(shown)
        return
    for name, found in shown.items():
        if len(shown) > 1:
            print(f"{name}:")
        if found:
            print_table(HEADER, [[row["local"], row["utc"], "; ".join(row["remarks"])] for row in found])
        else:
            print("no time to come")


def shown_name(manifest: JobManifest | WorkflowManifest) -> str:
    return manifest.metadata.name if manifest.kind == "Job" else f"workflow/{manifest.metadata.name}"


def rows(job: JobManifest | WorkflowManifest, start: int, count: int) -> Iterator[dict[str, Any]]:
    """The runs to come after that second."""
    from itertools import islice
    from zoneinfo import ZoneInfo

    from joblet.schedules.oddities import oddities

    schedule = job.spec.schedule
    assert schedule is not None
    zone, jitter_seconds = ZoneInfo(schedule.timezone), schedule.jitter_ns(job.metadata.name) // 10**9
    timetable = schedule.timetable(job.metadata.name)
    before = None
    for tick in islice(timetable.ticks(start - jitter_seconds), count):
        due = datetime.fromtimestamp(tick + jitter_seconds, UTC)
        yield {
            "local": due.astimezone(zone).isoformat(timespec="seconds"),
            "utc": due.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "remarks": oddities(timetable, tick, before, zone),
        }
        before = tick


def moment_of(text: str) -> int:
    """Raises InvalidRequest."""
    from joblet.manifest.schedule_values import parse_moment
    from rnx.failures import InvalidRequest

    try:
        return parse_moment(text)
    except ValueError as error:
        raise InvalidRequest(f"--after: {error}", todo="rnx schedule preview --help") from None

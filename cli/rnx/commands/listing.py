"""``rnx list``: every job with its latest run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rnx import exit_codes
from rnx.options import Format, FormatOption, JsonOption, SelectorOption, chosen
from rnx.target import Target, connected_to_many

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2

HEADER = ("ID", "NAME", "STATUS", "STARTED", "DURATION", "EXIT", "COMMAND")
WIDE = (
    "ID",
    "NAME",
    "STATUS",
    "REASON",
    "STARTED",
    "DURATION",
    "EXIT",
    "ATTEMPTS",
    "NEXT",
    "SOURCE",
    "LABELS",
    "COMMAND",
)


@connected_to_many
def list_jobs(
    target: Target,
    output: FormatOption = Format.TABLE,
    json: JsonOption = False,
    selector: SelectorOption = "",
    phase: Annotated[
        list[str] | None, typer.Option(metavar="PHASE", help="Only jobs whose latest run is RUNNING, FAILED ...")
    ] = None,
) -> int:
    """List jobs with their latest run.

    With --all-nodes or several nodes it is one table, with the node of each. -o wide shows the next run of what has a schedule.

    \b
    Example:
      rnx list -l team=data --phase FAILED
      rnx list --json
      rnx list --node web1,web2
    """
    from rnx.output.documents import listed_data, print_json, print_yaml
    from rnx.output.table import print_table

    phases = [name.strip().upper() for text in phase or () for name in text.split(",")]
    if target.is_many:
        from rnx.merged import list_from

        return list_from(target.several(), selector, phases, chosen(output, json))
    jobs = list(target.daemon().list_jobs(selector=selector, phases=phases))
    match chosen(output, json):
        case Format.JSON:
            print_json([listed_data(job) for job in jobs])
        case Format.YAML:
            print_yaml([listed_data(job) for job in jobs])
        case Format.NAME:
            for job in jobs:
                print(job.name)
        case Format.TABLE:
            print_table(HEADER, [row(job, wide=False) for job in jobs])
        case Format.WIDE:
            print_table(WIDE, [row(job, wide=True) for job in jobs])
    return exit_codes.OK


def row(job: job_pb2.Job, *, wide: bool) -> list[str]:
    from rnx.output.documents import stamp
    from rnx.output.status import phase_of
    from rnx.output.words import duration, moment, seconds_between

    labels = ",".join(f"{key}={value}" for key, value in sorted(job.labels.items()))
    to_come = moment(stamp(job, "next_tick"))
    if not job.runs:
        reason, phase = "Suspended" if job.suspend else "", phase_of(job)
        if wide:
            return ["", job.name, phase, reason, "", "", "", "", to_come, job.source, labels, ""]
        return ["", job.name, phase, *[""] * 4]
    run = job.runs[0]
    started = stamp(run, "started")
    times = [moment(started), duration(seconds_between(started, stamp(run, "ended")))]
    code = str(run.exit_code) if run.HasField("exit_code") else ""
    if wide:
        ends = [str(len(run.attempts)), to_come, job.source, labels, what_runs(run)]
        return [run.id, job.name, run.phase, run.reason, *times, code, *ends]
    return [run.id, job.name, run.phase, *times, code, what_runs(run)]


def what_runs(run: job_pb2.Run) -> str:
    """The command; of an array how it stands as well."""
    from rnx.output.arrays import summary
    from rnx.output.status import command_text

    return f"[{summary(run.array)}] {command_text(run)}" if run.HasField("array") else command_text(run)

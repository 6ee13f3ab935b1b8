"""``rnx get`` and ``rnx describe``: jobs as they are declared, and all that is known about one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rnx import exit_codes
from rnx.options import Format, FormatOption, JsonOption, SelectorOption, chosen
from rnx.target import Target, complete_ref, connected, connected_to_many

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2, resource_pb2
    from rnx.daemon import Daemon

SHOWN_EVENTS = 20
HEADER = ("NAME", "STATUS", "REASON", "GENERATION", "UPDATED", "SOURCE")
WIDE = ("NAME", "STATUS", "REASON", "GENERATION", "UPDATED", "OBSERVED", "RUN", "NEXT", "SOURCE", "LABELS")


@connected_to_many
def get(
    target: Target,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND] [NAME]...",
            help="By name; all if none. KIND: jobs unless given.",
            autocompletion=complete_ref,
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
    json: JsonOption = False,
    selector: SelectorOption = "",
    manifest: Annotated[
        bool, typer.Option("--manifest", help="Print the manifests alone, ready for editing and rnx apply.")
    ] = False,
) -> int:
    """Show jobs, as a table or with their manifests; or what is of another kind, such as volumes; or the nodes they run on.

    -o json and -o yaml show the manifest with a status beside it. With --all-nodes or several nodes it is one table, with the
    node of each.

    \b
    Example:
      rnx get jobs -l team=data
      rnx get hello -o yaml
      rnx get hello --manifest > hello.yml
      rnx get volumes
      rnx get nodes -o wide
      rnx get jobs --all-nodes
      rnx get volume/data -o yaml
    """
    from rnx.kinds import find_kind, kind_of

    wanted = list(names or ())
    if wanted[:1] == ["nodes"]:
        from rnx.engine_nodes import show_nodes

        return show_nodes(target.daemon(), wanted[1:], chosen(output, json))
    kind = "Job"
    if wanted and (found := find_kind(wanted[0])):
        kind, wanted = found, wanted[1:]
    elif wanted and "/" in wanted[0]:
        kind = kind_of(wanted[0].partition("/")[0])
    wanted = [name.rpartition("/")[2] for name in wanted]
    if target.is_many:
        from rnx.merged import get_from

        return get_from(target.several(), kind, wanted, selector, chosen(output, json), manifests=manifest)
    daemon = target.daemon()
    if kind != "Job":
        from rnx.resources import show_resources

        resources = [daemon.resource(kind, name) for name in wanted] if wanted else daemon.list_resources(kind)
        show_resources(resources, chosen(output, json), alone=len(wanted) == 1, manifests=manifest)
        return exit_codes.OK
    jobs = [daemon.get(name) for name in wanted] if wanted else list(daemon.list_jobs(selector=selector))
    if manifest:
        print("---\n".join(job.manifest for job in jobs), end="")
    else:
        show(jobs, chosen(output, json), alone=len(wanted) == 1)
    return exit_codes.OK


def show(jobs: Sequence[job_pb2.Job], form: Format, *, alone: bool) -> None:
    """Jobs in the form that was asked for. alone: one was asked for by name, so JSON is that one and no list."""
    from rnx.output.documents import job_data, print_json, print_yaml
    from rnx.output.table import print_table

    match form:
        case Format.JSON:
            data = [job_data(job) for job in jobs]
            print_json(data[0] if alone else data)
        case Format.YAML:
            print_yaml([job_data(job) for job in jobs])
        case Format.NAME:
            for job in jobs:
                print(f"job/{job.name}")
        case Format.TABLE:
            print_table(HEADER, [[*row(job), job.source] for job in jobs])
        case Format.WIDE:
            print_table(WIDE, [[*row(job), *wide(job)] for job in jobs])


def row(job: job_pb2.Job) -> list[str]:
    from rnx.output.arrays import summary
    from rnx.output.status import phase_of
    from rnx.output.words import moment

    run = job.runs[0] if job.runs else None
    reason = "Deleting" if job.deleting else run.reason if run else "Suspended" if job.suspend else ""
    if run is not None and run.HasField("array"):
        reason = ": ".join(filter(None, (reason, summary(run.array))))
    return [job.name, phase_of(job), reason, str(job.generation), moment(job.updated)]


def wide(job: job_pb2.Job) -> list[str]:
    from rnx.output.documents import stamp
    from rnx.output.words import moment

    labels = ",".join(f"{key}={value}" for key, value in sorted(job.labels.items()))
    to_come = moment(stamp(job, "next_tick"))
    return [str(job.observed_generation), job.runs[0].id if job.runs else "", to_come, job.source, labels]


@connected
def describe(
    target: Target,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A job's name, or KIND/NAME.", autocompletion=complete_ref)
    ],
) -> None:
    """Show all that is known about a job, or about what is of another kind.

    Its latest run, or its steps; conditions, kept runs, the last events and its manifest.

    \b
    Example:
      rnx describe hello
      rnx describe workflow/nightly
      rnx describe volume/data
    """
    from rnx.kinds import split_key

    kind, short = split_key(name)
    daemon = target.daemon()
    if kind != "Job":
        for text in resource_description(daemon, daemon.resource(kind, short)):
            print(text)
        return
    job = daemon.get(short, history=True)
    for text in description(daemon, job):
        print(text)


def description(daemon: Daemon, job: job_pb2.Job) -> Iterator[str]:
    from rnx.indexes import index_lines
    from rnx.output.status import line, status_lines
    from rnx.output.terminal import printable
    from rnx.output.words import moment

    yield from status_lines(job, job.runs[0] if job.runs else None)
    if job.runs and job.runs[0].HasField("array"):
        yield from index_lines(daemon, job.runs[0])
    yield line("Job Created", moment(job.created))
    yield line("Job Updated", moment(job.updated))
    for title, mapping in (("Labels", job.labels), ("Annotations", job.annotations)):
        if mapping:
            yield f"{title}:"
            yield from (printable(f"  {key}: {value}") for key, value in sorted(mapping.items()))
    yield from _block(
        "Conditions", [["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], *map(_condition, job.conditions)]
    )
    if job.runs and job.runs[0].attempts:
        yield from course(daemon, job.runs[0])
    yield from _block(
        "Runs", [["ID", "STATUS", "REASON", "STARTED", "DURATION", "EXIT", "ATTEMPTS"], *map(_run, job.runs)]
    )
    yield from _events_and_manifest(daemon, job.name, job.manifest)


def course(daemon: Daemon, run: job_pb2.Run) -> Iterator[str]:
    """What the run's last attempt used over time, and what that says of its limits."""
    from rnx.output.advice import advice
    from rnx.output.profile import profile_lines

    attempt = run.attempts[-1]
    if lines := profile_lines(daemon.profile(run.id), attempt):
        yield f"Course of attempt {attempt.number}:"
        yield from (f"  {text}" for text in lines)
    if told := advice(attempt):
        yield "Limits that may not fit:"
        yield from (f"  {text}" for text in told)


def resource_description(daemon: Daemon, resource: resource_pb2.Resource) -> Iterator[str]:
    from rnx.output.status import line
    from rnx.output.words import moment
    from rnx.resources import ready

    yield line("Name", resource.name)
    yield line("Kind", resource.kind)
    yield line("Ready", "Deleting" if resource.deleting else ready(resource))
    for name, value in sorted(resource.status.items()):
        yield line(name.capitalize(), value)
    yield line("Used By", ", ".join(resource.used_by))
    yield line("Generation", str(resource.generation))
    yield line("Source", resource.source)
    yield line("Created", moment(resource.created))
    yield line("Updated", moment(resource.updated))
    if resource.kind == "Workflow":
        from rnx.output.workflow_status import step_lines

        yield from step_lines(resource)
    yield from _block(
        "Conditions", [["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], *map(_condition, resource.conditions)]
    )
    yield from _events_and_manifest(daemon, f"{resource.kind.lower()}/{resource.name}", resource.manifest)


def _events_and_manifest(daemon: Daemon, ref: str, manifest: str) -> Iterator[str]:
    from joblet.api.v1 import job_pb2
    from rnx.failures import NotFound
    from rnx.output.terminal import printable

    try:
        events = list(daemon.events(job_pb2.EventsRequest(ref=ref)))[-SHOWN_EVENTS:]
    except NotFound:
        events = []  # so old that none is kept
    yield from _block("Events", [["LAST", "TYPE", "REASON", "MESSAGE"], *map(_event, events)])
    yield "Manifest:"
    yield from (printable(f"  {text}") for text in manifest.splitlines())


def _block(title: str, rows: list[list[str]]) -> Iterator[str]:
    from rnx.output.table import aligned
    from rnx.output.terminal import printable

    if len(rows) > 1:
        yield f"{title}:"
        yield from (f"  {text}" for text in aligned([[printable(cell) or "-" for cell in row] for row in rows]))


def _condition(one: job_pb2.Condition) -> list[str]:
    from rnx.output.words import moment

    return [one.type, one.status, one.reason, moment(one.since), one.message]


def _run(run: job_pb2.Run) -> list[str]:
    from rnx.output.documents import stamp
    from rnx.output.words import duration, moment, seconds_between

    started, ended = stamp(run, "started"), stamp(run, "ended")
    code = str(run.exit_code) if run.HasField("exit_code") else ""
    lasted = duration(seconds_between(started, ended))
    return [run.id, run.phase, run.reason, moment(started), lasted, code, str(len(run.attempts))]


def _event(event: job_pb2.Event) -> list[str]:
    from rnx.output.words import moment

    times = f" (x{event.count})" if event.count > 1 else ""
    return [moment(event.last), event.type, event.reason, event.message + times]

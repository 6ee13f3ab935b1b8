"""``rnx events``: what happened, when, how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rnx import exit_codes
from rnx.options import Format, FormatOption, JsonOption, chosen
from rnx.target import Target, complete_ref, connected_to_many

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2

TAIL_OF_WATCH = 10  # what is shown of the past, as context
HEADER = ("LAST", "TYPE", "REASON", "JOB", "RUN", "COUNT", "MESSAGE")


@connected_to_many
def events(
    target: Target,
    ref: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="Of a job or run, or of KIND/NAME; of all if left out.",
            autocompletion=complete_ref,
        ),
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with what happens next.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only newer ones: 10m or an RFC 3339 time.")] = None,
    tail: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Of the past only the latest N; 0: all. With -w and no --since: 10.",
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
    json: JsonOption = False,
) -> int:
    """Show what happened.

    With --watch and -o json each event is one line. With --all-nodes or several nodes each has its node.

    \b
    Example:
      rnx events hello
      rnx events workflow/nightly
      rnx events --tail 20
      rnx events -w --since 10m
    """
    import json as encoder

    from joblet.api.v1 import job_pb2
    from rnx.moments import since_ns
    from rnx.output.documents import event_data, print_json, print_yaml
    from rnx.output.table import print_table
    from rnx.output.terminal import printable

    if tail is None:
        tail = TAIL_OF_WATCH if watch and since is None else 0
    request = job_pb2.EventsRequest(ref=ref.removeprefix("job/"), follow=watch, tail=tail)
    if since is not None:
        request.since.FromNanoseconds(since_ns(since))
    form = chosen(output, json)
    if target.is_many:
        from rnx.merged import events_from

        return events_from(target.several(), request, form)
    found = target.daemon().events(request)
    if watch:
        for event in found:
            text = encoder.dumps(event_data(event)) if form is Format.JSON else "  ".join(row(event))
            print(printable(text), flush=True)
    elif form in (Format.JSON, Format.YAML):
        (print_json if form is Format.JSON else print_yaml)([event_data(event) for event in found])
    else:
        print_table(HEADER, [row(event) for event in found])
    return exit_codes.OK


def row(event: job_pb2.Event) -> list[str]:
    from rnx.output.words import moment

    return [moment(event.last), event.type, event.reason, event.job, event.run_id, str(event.count), event.message]

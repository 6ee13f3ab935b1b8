"""``rnx log``: a run's output, exactly as it was written."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rnx.options import IndexOption, RefArgument
from rnx.target import Target, connected_to_many


class Stream(StrEnum):
    """Which of the two."""

    STDOUT = "stdout"
    STDERR = "stderr"


@connected_to_many
def log(
    target: Target,
    ref: RefArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, metavar="LINES", help="Only the last lines.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what is newer: 10m, or 2026-01-02T03:04:05Z.")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Put the time before each line.")] = False,
    stream: Annotated[Stream | None, typer.Option(help="Only this one of the two.")] = None,
    index: IndexOption = None,
    attempt: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Only this attempt; 0: all.")] = 0,
) -> int:
    """Print a run's output, or follow it.

    What the job wrote to its standard output comes on ours, its standard error on ours, byte for byte. Of a workflow each line
    begins with its step, of an array with its index (--tail is of each then), with --all-nodes or several nodes with its node.
    -f shows steps and indexes as they begin, until the whole has ended.

    \b
    Example:
      rnx log -f hello
      rnx log --tail 20 --timestamps k3x9q2ab
      rnx log -f sweep --index 7
      rnx log -f sweep
      rnx log -f workflow/nightly
    """
    import sys

    from joblet.api.v1 import job_pb2
    from rnx import exit_codes
    from rnx.failures import InvalidRequest
    from rnx.indexes import ref_of
    from rnx.kinds import split_ref
    from rnx.moments import since_ns
    from rnx.whole_log import print_whole

    kind, ref = split_ref(ref)
    if kind == "Workflow" and (attempt or index is not None):
        raise InvalidRequest(
            "--attempt and --index are about one job", todo=f"rnx status workflow/{ref} names its jobs"
        )
    request = job_pb2.LogsRequest(
        ref=ref_of(ref, index), attempt=attempt, follow=follow, stream=stream or "", tail_lines=tail
    )
    if since is not None:
        request.since.FromNanoseconds(since_ns(since))
    try:
        if target.is_many:
            from rnx.merged import log_from

            return log_from(target.several(), kind, request, timestamps=timestamps)
        return print_whole(target.daemon(), kind, request, timestamps=timestamps)
    except KeyboardInterrupt:
        if follow:
            print(f"\nrnx: the {kind.lower()} goes on", file=sys.stderr)
        return exit_codes.INTERRUPTED

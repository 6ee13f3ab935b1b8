"""``rnx retry``: a part of a workflow runs anew, or all of it."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx.target import Target, connected


@connected
def retry(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")],
    step: Annotated[
        str, typer.Option("--from", metavar="STEP", help="That step, and all that need it. Default: what failed.")
    ] = "",
    whole: Annotated[bool, typer.Option("--all", help="All of it, as a new run.")] = False,
) -> None:
    """Run a part of a workflow anew.

    What came before keeps its results and outputs. A workflow that still runs is left alone.

    \b
    Example:
      rnx retry nightly
      rnx retry nightly --from load
      rnx retry nightly --all
    """
    from rnx.failures import InvalidRequest

    if step and whole:
        raise InvalidRequest("--from and --all are given", todo="give one of them")
    short = name.removeprefix("workflow/")
    number = target.daemon().retry_workflow(short, step=step, whole=whole)
    print(f"workflow/{short} runs again (run {number}); rnx tree workflow/{short} --watch shows how it stands")

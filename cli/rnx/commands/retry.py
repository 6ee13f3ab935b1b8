"""``rnx retry``: what failed of an array or a workflow runs anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.api.v1 import resource_pb2
    from rnx.daemon import Daemon


@connected
def retry(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A workflow's name, or that of a job with an array.")],
    step: Annotated[
        str, typer.Option("--from", metavar="STEP", help="That step, and all that need it. Default: what failed.")
    ] = "",
    whole: Annotated[
        bool, typer.Option("--all", help="All of a workflow, as a new run, as far as its overlap lets it.")
    ] = False,
    index: Annotated[
        str, typer.Option("--index", metavar="INDEXES", help="Of an array: 3,5-9. Default: all that did not succeed.")
    ] = "",
) -> None:
    """Run what failed of a workflow or an array anew, or the part that is named.

    What came before keeps its results and outputs. What still runs is left alone. For a workflow --all is the same as rnx run
    --workflow. If a workflow and a job have the same name, workflow/NAME or job/NAME says which is meant.

    \b
    Example:
      rnx retry nightly
      rnx retry nightly --from load
      rnx retry nightly --all
      rnx retry sweep
      rnx retry sweep --index 3,5-9
    """
    from rnx.failures import InvalidRequest
    from rnx.output.arrays import parse_ranges

    if step and whole:
        raise InvalidRequest("--from and --all are given", todo="give one of them")
    if index and (step or whole):
        raise InvalidRequest("--index is for arrays, --from and --all are for workflows", todo="give one of them")
    ranges = parse_ranges("--index", index) if index else []
    daemon = target.daemon()
    kind, _, short = name.rpartition("/")
    is_array = kind == "job" or bool(index) or (not (kind or step or whole) and has_array(daemon, short))
    if kind == "" and is_array and not index and has_workflow(daemon, short):
        raise InvalidRequest(f"{short} is a job and a workflow", todo=f"rnx retry job/{short}, or workflow/{short}")
    if is_array:
        answer = daemon.retry(short, ranges)
        count = "1 index runs" if answer.count == 1 else f"{answer.count} indexes run"
        print(f"job/{short}: {count} again (run {answer.run_id}); rnx status {short} shows how it stands")
        return
    print(told(short, daemon.retry_workflow(short, step=step, whole=whole)))


def has_array(daemon: Daemon, ref: str) -> bool:
    """Whether that is a job, or a run or an index of one, with an array."""
    from rnx.failures import NotFound

    try:
        job = daemon.get(ref)
    except NotFound:
        return False
    return bool(job.runs) and (job.runs[0].HasField("array") or job.runs[0].HasField("index"))


def has_workflow(daemon: Daemon, name: str) -> bool:
    from rnx.failures import NotFound

    try:
        daemon.resource("Workflow", name)
    except NotFound:
        return False
    return True


def told(workflow: str, answer: resource_pb2.RetryWorkflowResponse) -> str:
    """What became of a wish for a run."""
    if answer.place:
        return f"workflow/{workflow} runs again after run {answer.run} has ended (place {answer.place} in the line)"
    return (
        f"workflow/{workflow} runs again (run {answer.run}); rnx tree workflow/{workflow} --watch shows how it stands"
    )

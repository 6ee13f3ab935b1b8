"""``rnx wait``: until a job runs, or has ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rnx.options import RefArgument
from rnx.target import Target, connected


class Goal(StrEnum):
    """What is waited for."""

    COMPLETED = "completed"
    FINISHED = "finished"
    RUNNING = "running"


@connected
def wait(
    target: Target,
    ref: RefArgument,
    goal: Annotated[
        Goal, typer.Option("--for", help="completed: with success; finished: in whatever way; running: it has started.")
    ] = Goal.COMPLETED,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Give up after this long: 30s, 5m.")] = None,
) -> int:
    """Wait until a job runs or has ended.

    Exit code 0: it came to that; 1: it ended otherwise; 124: not in time. A job that is gone is an error.

    \b
    Example:
      rnx wait hello --timeout 5m
      rnx wait web --for running
    """
    import sys

    from rnx import exit_codes
    from rnx.moments import seconds_of
    from rnx.output.terminal import printable, progress
    from rnx.watching import is_final, wait_for_run

    seconds = None if timeout is None else seconds_of("--timeout", timeout)
    try:
        with progress(f"waiting for {ref}") as tell:
            run = wait_for_run(
                target.daemon(),
                ref,
                lambda one: is_final(one) or (goal is Goal.RUNNING and one.phase == "RUNNING"),
                seconds=seconds,
                tell=tell,
            )
    except KeyboardInterrupt:
        print("\nrnx: the job goes on", file=sys.stderr)
        return exit_codes.INTERRUPTED
    reached = goal is Goal.FINISHED or run.phase == "COMPLETED" or (goal is Goal.RUNNING and run.phase == "RUNNING")
    message = f": {run.message}" if run.message else ""
    print(printable(f"job/{run.job} {run.phase}{f' ({run.reason})' if run.reason else ''}{message}"))
    return exit_codes.OK if reached else exit_codes.FAILURE

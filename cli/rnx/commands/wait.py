"""``rnx wait``: until a job runs, or has ended."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from rnx.options import RefArgument
from rnx.target import Target, connected_to_many

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2, resource_pb2
    from rnx.daemon import Daemon


class Goal(StrEnum):
    """What is waited for."""

    COMPLETED = "completed"
    FINISHED = "finished"
    RUNNING = "running"

    def is_over(self, run: job_pb2.Run) -> bool:
        """Whether there is nothing more to wait for."""
        from rnx.watching import is_final

        return is_final(run) or (self is Goal.RUNNING and run.phase == "RUNNING")

    def is_reached(self, run: job_pb2.Run) -> bool:
        """Whether a run that is over came to that."""
        return self is Goal.FINISHED or run.phase == "COMPLETED" or (self is Goal.RUNNING and run.phase == "RUNNING")

    def is_over_for(self, workflow: resource_pb2.Resource) -> bool:
        """The same of a workflow, which runs as long as one of its steps does."""
        from rnx.workflow_runs import has_step_that_runs, is_over

        return is_over(workflow) or (self is Goal.RUNNING and has_step_that_runs(workflow))

    def is_reached_by(self, workflow: resource_pb2.Resource) -> bool:
        """Whether the run of a workflow that is over came to that."""
        from rnx.workflow_runs import has_step_that_runs, has_succeeded

        runs = self is Goal.RUNNING and has_step_that_runs(workflow)
        return self is Goal.FINISHED or has_succeeded(workflow) or runs


@connected_to_many
def wait(
    target: Target,
    ref: RefArgument,
    goal: Annotated[
        Goal, typer.Option("--for", help="completed: with success; finished: in whatever way; running: it has started.")
    ] = Goal.COMPLETED,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Give up after this long: 30s, 5m.")] = None,
) -> int:
    """Wait until a job runs or has ended, or a workflow.

    Exit code 0: it came to that; 1: it ended otherwise; 124: not in time. A job that is gone is an error. With --all-nodes or
    several nodes it has to come to that on each that has the job.

    \b
    Example:
      rnx wait hello --timeout 5m
      rnx wait web --for running
      rnx wait workflow/nightly
    """
    import sys

    from rnx import exit_codes
    from rnx.kinds import split_ref
    from rnx.moments import seconds_of
    from rnx.output.terminal import printable, progress
    from rnx.watching import wait_for_run

    kind, ref = split_ref(ref)
    seconds = None if timeout is None else seconds_of("--timeout", timeout)
    try:
        if target.is_many:
            from rnx.merged import wait_from

            return wait_from(target.several(), (kind, ref), goal, seconds)
        if kind == "Workflow":
            return wait_for_the_workflow(target.daemon(), ref, goal, seconds)
        with progress(f"waiting for {ref}") as tell:
            run = wait_for_run(
                target.daemon(),
                ref,
                goal.is_over,
                seconds=seconds,
                tell=tell,
            )
    except KeyboardInterrupt:
        print(f"\nrnx: the {kind.lower()} goes on", file=sys.stderr)
        return exit_codes.INTERRUPTED
    print(printable(told(run)))
    return exit_codes.OK if goal.is_reached(run) else exit_codes.FAILURE


def wait_for_the_workflow(daemon: Daemon, name: str, goal: Goal, seconds: float | None) -> int:
    from rnx import exit_codes, workflow_runs
    from rnx.output.terminal import printable, progress

    with progress(f"waiting for workflow/{name}") as tell:
        workflow = workflow_runs.wait_for_workflow(daemon, name, goal.is_over_for, seconds=seconds, tell=tell)
    print(printable(workflow_runs.told(workflow)))
    return exit_codes.OK if goal.is_reached_by(workflow) else exit_codes.FAILURE


def told(run: job_pb2.Run) -> str:
    message = f": {run.message}" if run.message else ""
    return f"job/{run.job} {run.phase}{f' ({run.reason})' if run.reason else ''}{message}"

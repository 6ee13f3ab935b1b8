"""``rnx stop``: the current run ends, the job stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rnx.options import RefArgument
from rnx.target import Target, connected

if TYPE_CHECKING:
    from rnx.daemon import Daemon


@connected
def stop(
    target: Target,
    ref: RefArgument,
    force: Annotated[bool, typer.Option("--force", help="Kill it at once, without its grace.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has ended.")] = False,
) -> None:
    """Stop a job's current run, or a workflow's.

    It gets its stop signal and its grace, then everything it started is killed. The job stays; rnx delete removes it. Of a
    workflow all steps that run are stopped, and no other one begins; rnx retry goes on from there.

    \b
    Example:
      rnx stop hello
      rnx stop --force k3x9q2ab
      rnx stop --wait workflow/nightly
    """
    from rnx.kinds import split_ref
    from rnx.output.terminal import progress
    from rnx.watching import is_final, wait_for_run

    kind, name = split_ref(ref)
    daemon = target.daemon()
    if kind == "Workflow":
        stop_workflow(daemon, name, force=force, wait=wait)
        return
    run_id = daemon.stop(name, force=force)
    if not wait:
        print(f"run {run_id} stopping")
        return
    with progress(f"stopping {run_id}") as tell:
        run = wait_for_run(daemon, run_id, is_final, tell=tell)
    print(f"run {run_id} {run.phase}")


def stop_workflow(daemon: Daemon, name: str, *, force: bool, wait: bool) -> None:
    from rnx.output.terminal import progress
    from rnx.workflow_runs import is_over, wait_for_workflow

    number = daemon.stop_workflow(name, force=force)
    if not wait:
        print(f"workflow/{name} run {number} stopping")
        return
    with progress(f"stopping workflow/{name}") as tell:
        workflow = wait_for_workflow(daemon, name, is_over, tell=tell)
    print(f"workflow/{name} run {number} {workflow.workflow_run.phase}")

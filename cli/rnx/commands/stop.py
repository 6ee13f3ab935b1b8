"""``rnx stop``: the current run ends, the job stays."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx.options import RefArgument
from rnx.target import Target, connected


@connected
def stop(
    target: Target,
    ref: RefArgument,
    force: Annotated[bool, typer.Option("--force", help="Kill it at once, without its grace.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has ended.")] = False,
) -> None:
    """Stop a job's current run.

    It gets its stop signal and its grace, then everything it started is killed. The job stays; rnx delete removes it.

    \b
    Example:
      rnx stop hello
      rnx stop --force k3x9q2ab
    """
    from rnx.output.terminal import progress
    from rnx.watching import is_final, wait_for_run

    daemon = target.daemon()
    run_id = daemon.stop(ref, force=force)
    if not wait:
        print(f"run {run_id} stopping")
        return
    with progress(f"stopping {run_id}") as tell:
        run = wait_for_run(daemon, run_id, is_final, tell=tell)
    print(f"run {run_id} {run.phase}")

"""The run of a workflow: how it stands, followed through restarts of the daemon until it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rnx import exit_codes
from rnx.failures import TryAgain, Unreachable, WaitTimedOut
from rnx.output.words import duration
from rnx.watching import Patience

if TYPE_CHECKING:
    from joblet.api.v1 import resource_pb2
    from rnx.daemon import Daemon


def is_over(workflow: resource_pb2.Resource) -> bool:
    """Whether its latest run has ended, on record."""
    return workflow.HasField("workflow_run") and workflow.workflow_run.HasField("ended")


def has_succeeded(workflow: resource_pb2.Resource) -> bool:
    return is_over(workflow) and workflow.workflow_run.phase == "Succeeded"


def has_step_that_runs(workflow: resource_pb2.Resource) -> bool:
    return any(step.phase == "RUNNING" for step in workflow.steps)


def exit_code_of(workflow: resource_pb2.Resource) -> int:
    """The exit code that a client passes on for a run that is over."""
    return exit_codes.OK if has_succeeded(workflow) else exit_codes.FAILURE


def state_of(workflow: resource_pb2.Resource) -> str:
    """For people who wait."""
    status = workflow.status
    over = f" ({status['steps']} steps over)" if status.get("steps") else ""
    return f"{status.get('phase', 'Scheduled')}{over}"


def told(workflow: resource_pb2.Resource) -> str:
    """One line about its run: how it ended, and which steps did not succeed."""
    wrong = [step for step in workflow.steps if step.phase in ("FAILED", "STOPPED")]
    why = ", ".join(f"{step.name} {step.phase}{f' ({step.reason})' if step.reason else ''}" for step in wrong)
    phase = workflow.status.get("phase", "")
    return f"workflow/{workflow.name} run {workflow.workflow_run.number} {phase}{f': {why}' if why else ''}"


def looks(daemon: Daemon, name: str, *, deadline: float | None = None) -> Iterator[resource_pb2.Resource]:
    """How it stands, now and after each change, until the deadline. A mistake shows at once; only a daemon that was there is
    waited for. Raises ClientError, NotFound once the workflow is gone."""
    yield daemon.resource("Workflow", name)
    patience = Patience()
    while deadline is None or time.monotonic() < deadline:
        left = None if deadline is None else max(0.001, deadline - time.monotonic())
        try:
            for workflow in daemon.watch_resource("Workflow", name, seconds=left):
                patience.reset()
                yield workflow
        except (Unreachable, TryAgain) as error:
            if deadline is None or time.monotonic() < deadline:
                patience.wait(error)


def wait_for_workflow(
    daemon: Daemon,
    name: str,
    done: Callable[[resource_pb2.Resource], bool],
    *,
    seconds: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> resource_pb2.Resource:
    """The workflow, once ``done`` says so of it. seconds: how long, None for ever. tell: gets the state for people.

    Raises WaitTimedOut, NotFound, Unreachable.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    state = ""
    for workflow in looks(daemon, name, deadline=deadline):
        if done(workflow):
            return workflow
        state = state_of(workflow)
        if tell is not None:
            tell(f"workflow/{name}: {state}")
    todo = f"it goes on; rnx status workflow/{name} shows it"
    raise WaitTimedOut(f"workflow/{name} is {state} after {duration(seconds)}", todo=todo)

"""A workflow's run as ``Key: value`` lines with a table of its steps, and as data for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rnx.output.documents import stamp, time_of
from rnx.output.status import line
from rnx.output.table import aligned
from rnx.output.terminal import printable, styled
from rnx.output.words import duration, moment, seconds_between
from rnx.resources import step_data

if TYPE_CHECKING:
    from joblet.api.v1 import resource_pb2

STYLES = {"Running": "cyan", "Succeeded": "green", "Failed": "bold red", "Stopped": "magenta", "Stopping": "magenta"}
HEADER = ("STEP", "STATUS", "REASON", "STARTED", "DURATION", "JOB", "RUN", "MESSAGE")


def workflow_lines(workflow: resource_pb2.Resource) -> Iterator[str]:
    """All about its run and what is to come."""
    status = workflow.status
    phase = "Deleting" if workflow.deleting else status.get("phase", "") or "-"
    yield line("Workflow", workflow.name)
    if workflow.HasField("workflow_run"):
        run = workflow.workflow_run
        created, ended = stamp(run, "created"), stamp(run, "ended")
        yield line("Run", f"{run.number} ({run.trigger})")
        yield line("Status", styled(phase, STYLES.get(phase, "")))
        if run.HasField("tick"):
            yield line("Scheduled", moment(run.tick))
        yield line("Started", moment(created))
        yield line("Ended", moment(ended))
        yield line("Duration", duration(seconds_between(created, ended)))
        yield line("Over", f"{status.get('steps', '')} steps")
    else:
        yield line("Run", "-")
        yield line("Status", phase)
    if status.get("waiting"):
        yield line("Waiting", f"{status['waiting']} more in the line")
    if status.get("next"):
        yield line("Next Run", status["next"])
    yield line("Generation", str(workflow.generation))
    yield line("Source", printable(workflow.source))
    for one in workflow.conditions:
        if one.status != "True":
            yield line("Condition", printable(f"{one.type}={one.status} {one.reason}: {one.message}"))
    yield from step_lines(workflow)


def step_lines(workflow: resource_pb2.Resource) -> Iterator[str]:
    """A table of the steps, each after all that it needs."""
    rows = [[printable(cell) or "-" for cell in _row(step)] for step in workflow.steps]
    if rows:
        yield "Steps:"
        yield from (f"  {text}" for text in aligned([list(HEADER), *rows]))


def _row(step: resource_pb2.WorkflowStep) -> list[str]:
    started = stamp(step, "started")
    took = duration(seconds_between(started, stamp(step, "ended")))
    outputs = " ".join(f"{name}={text}" for name, text in sorted(step.outputs.items()))
    said = outputs if step.phase == "COMPLETED" else step.message
    return [step.name, step.phase, step.reason, moment(started), took, step.job, step.run_id, said]


def workflow_data(workflow: resource_pb2.Resource) -> dict[str, Any]:
    """The keys are a contract with scripts."""
    run = workflow.workflow_run if workflow.HasField("workflow_run") else None
    created, ended = (None, None) if run is None else (stamp(run, "created"), stamp(run, "ended"))
    return {
        "workflow": workflow.name,
        "run": None if run is None else run.number,
        "status": workflow.status.get("phase") or None,
        "trigger": None if run is None else run.trigger,
        "created": None if run is None else time_of(run, "created"),
        "ended": None if run is None else time_of(run, "ended"),
        "durationSeconds": seconds_between(created, ended),
        "tick": None if run is None else time_of(run, "tick"),
        "waiting": int(workflow.status.get("waiting") or 0),
        "nextTick": workflow.status.get("next") or None,
        "generation": workflow.generation,
        "source": workflow.source,
        "steps": [step_data(step) for step in workflow.steps],
    }

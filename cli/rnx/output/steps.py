"""A workflow as a drawing: each step below the one that it needs last, with its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rnx.output.documents import stamp
from rnx.output.terminal import PHASE_STYLES, printable, styled
from rnx.output.words import duration, seconds_between

if TYPE_CHECKING:
    from joblet.api.v1 import resource_pb2

STYLES = {**PHASE_STYLES, "WAITING": "", "SKIPPED": "", "DUE": "", "SUSPENDED": ""}
LONGEST_OUTPUT = 40


def workflow_lines(workflow: resource_pb2.Resource) -> Iterator[str]:
    """The drawing."""
    status = workflow.status
    head = [f"workflow/{workflow.name}", f"run {status['run']}" if status.get("run") else "", status.get("phase", "")]
    over = f"({status['steps']} steps over)" if status.get("steps") else ""
    to_come = f"next {status['next']}" if status.get("next") else ""
    line = f"{status['waiting']} more in the line" if status.get("waiting") else ""
    yield " ".join(filter(None, [*head, over, *filter(None, (line, to_come))]))
    yield from _drawn(list(workflow.steps), "", "")


def is_over(workflow: resource_pb2.Resource) -> bool:
    return workflow.status.get("phase") in ("Succeeded", "Failed", "Stopped")


def _drawn(steps: Sequence[resource_pb2.WorkflowStep], parent: str, before: str) -> Iterator[str]:
    order = {step.name: place for place, step in enumerate(steps)}
    children = [step for step in steps if _parent(step, order) == parent]
    for step in children:
        last = step is children[-1]
        yield f"{before}{'└─ ' if last else '├─ '}{_line(step, parent)}"
        yield from _drawn(steps, step.name, before + ("   " if last else "│  "))


def _parent(step: resource_pb2.WorkflowStep, order: dict[str, int]) -> str:
    """Of all that it needs the one that stands last; empty for who needs nothing."""
    names = [need.partition(":")[0] for need in step.needs]
    return max(names, key=lambda name: order.get(name, -1), default="")


def _line(step: resource_pb2.WorkflowStep, parent: str) -> str:
    took = duration(seconds_between(stamp(step, "started"), stamp(step, "ended")))
    others = [_need(need) for need in step.needs if need.partition(":")[0] != parent or not need.endswith(":Succeeded")]
    after = f"(after {', '.join(others)})" if others else ""
    why = ": ".join(filter(None, (step.reason, step.message))) if step.phase not in ("COMPLETED", "RUNNING") else ""
    outputs = ", ".join(f"{name}={_short(text)}" for name, text in sorted(step.outputs.items()))
    state = styled(step.phase, STYLES.get(step.phase, ""))
    parts = (step.name, state, took, after, printable(why), printable(outputs))
    return " ".join(filter(None, parts))


def _need(need: str) -> str:
    name, _, outcome = need.partition(":")
    return name if outcome == "Succeeded" else f"{name} {outcome}"


def _short(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if line == text and len(line) <= LONGEST_OUTPUT else f"{line[:LONGEST_OUTPUT]}..."

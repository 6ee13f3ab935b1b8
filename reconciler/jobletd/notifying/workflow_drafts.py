"""From a workflow's end to what is to be told: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from joblet.manifest import HookEvent, JobManifest, WorkflowManifest
from joblet.manifest.models import JobSpec, Metadata
from joblet.notification import Notification, NotifiedJob, NotifiedRun, NotifiedStep, NotifiedWorkflow
from jobletd.model import Phase, ResourceView
from jobletd.notifying.drafts import (
    MESSAGE_CHARACTERS,
    MOST_LABELS,
    NotificationDraft,
    hook_job,
    time_text,
    wants,
)
from jobletd.planning import new_run_id
from jobletd.workflows.progress import StepState
from jobletd.workflows.steps import WorkflowRun

_PHASES = {
    HookEvent.SUCCEEDED: Phase.COMPLETED,
    HookEvent.FAILED: Phase.FAILED,
    HookEvent.STOPPED: Phase.STOPPED,
}


def drafts_of_workflow(
    view: ResourceView, run: WorkflowRun, reason: str, message: str, states: Mapping[str, StepState], node: str
) -> Sequence[NotificationDraft]:
    """What the end of this run, of which the phase is final, has to be told to whom. reason: as a run of a job has one."""
    workflow = view.manifest
    assert isinstance(workflow, WorkflowManifest)
    event, found = HookEvent(run.phase), []
    told_id = new_run_id()  # a part of it may be tried anew, and it ends again
    for place, hook in enumerate(workflow.spec.notify):
        if wants(hook, event):
            number = f"{told_id}-{place}"
            body = _body(number, event, view, run, (reason, message), states, node)
            job = None if hook.command is None else hook_job(number, hook, _sandbox(workflow, hook.command), body)
            found.append(NotificationDraft(number, view.name, "", hook, body, job))
    return found


def _body(
    number: str,
    event: HookEvent,
    view: ResourceView,
    run: WorkflowRun,
    why: tuple[str, str],
    states: Mapping[str, StepState],
    node: str,
) -> str:
    reason, message = why
    labels = dict(list(view.manifest.metadata.labels.items())[:MOST_LABELS])
    steps = [
        NotifiedStep(name=one.name, phase=one.phase, reason=one.reason, message=one.message[:MESSAGE_CHARACTERS])
        for one in states.values()
    ]
    begun = [one.run.started_ns for one in states.values() if one.run is not None and one.run.started_ns is not None]
    told = NotifiedRun.model_validate(
        {
            "id": str(run.number),
            "trigger": run.trigger,
            "phase": str(_PHASES[event]),
            "reason": reason,
            "message": message[:MESSAGE_CHARACTERS],
            "attempts": 1 + max(run.tries.values(), default=0) if begun else 0,
            "created": time_text(run.created_ns),
            "started": time_text(min(begun)) if begun else None,
            "ended": time_text(run.ended_ns or run.created_ns),
        }
    )
    job = NotifiedJob(name=view.name, labels=labels, generation=run.generation, source=str(view.source))
    workflow = NotifiedWorkflow(name=view.manifest.metadata.name, run=run.number, steps=steps)
    return Notification.model_validate(
        {"id": number, "event": str(event), "node": node, "job": job, "run": told, "workflow": workflow}
    ).text()


def _sandbox(workflow: WorkflowManifest, command: tuple[str, ...]) -> JobManifest:
    """Where a command hook of a workflow runs: it has no job whose sandbox that could be, so a plain one, with its parameters."""
    spec = JobSpec.model_validate({"command": list(command), "env": dict(workflow.spec.parameters)})
    metadata = Metadata.model_construct(name=workflow.metadata.name)
    return JobManifest(apiVersion="joblet/v1", kind="Job", metadata=metadata, spec=spec)

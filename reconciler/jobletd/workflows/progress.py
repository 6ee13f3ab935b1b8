"""How a workflow stands: derived from its jobs alone, by pure functions, so that no crash can make it differ from the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from joblet.manifest import ON_FAILURE, DependencyOutcome, WorkflowManifest, WorkflowStep
from jobletd.model import JobName, JobView, Phase, Reason, Run
from jobletd.workflows.steps import RUNNING, STOPPED, STOPPING, WorkflowRun, in_order, job_name, source_of, token_of


class StepPhase(StrEnum):
    """Where a step stands that has no run yet; with one it has the run's phase."""

    WAITING = "WAITING"  # for others
    DUE = "DUE"  # its job is to be declared
    SUSPENDED = "SUSPENDED"  # it was cut short by the workflow's suspend, and runs anew after that
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"  # it cannot be declared


@dataclass(frozen=True, slots=True)
class StepState:
    """One step. reason: why it has no run, or its run's. inputs: what it gets, once it is due."""

    name: str
    job: JobName
    phase: str
    reason: str = ""
    message: str = ""
    run: Run | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.phase in (StepPhase.SKIPPED, Phase.COMPLETED, Phase.FAILED, Phase.STOPPED)

    @property
    def went_wrong(self) -> bool:
        return self.phase in (Phase.FAILED, Phase.STOPPED)

    @property
    def outputs(self) -> Mapping[str, str]:
        end = self.run.attempts[-1].end if self.run is not None and self.run.attempts else None
        return end.outputs if end is not None else {}


def states_of(workflow: WorkflowManifest, run: WorkflowRun, views: Mapping[JobName, JobView]) -> dict[str, StepState]:
    """Each step by its name, in an order in which none comes before what it needs; onFailure's job last, if it is wanted."""
    steps = {step.name: step for step in workflow.spec.steps}
    states: dict[str, StepState] = {}
    for name in in_order(workflow):
        state = _begun(workflow, name, run, views) or _not_begun(workflow, steps[name], states)
        needed = [states[need.step] for need in steps[name].all_needs]
        states[name] = _cut_off(state, needed) if run.was_stopped else state
    if workflow.spec.on_failure is not None and all(state.is_over for state in states.values()):
        failed = [state.name for state in states.values() if state.went_wrong]
        if failed:
            job = job_name(workflow.metadata.name, ON_FAILURE)
            due = StepState(ON_FAILURE, job, StepPhase.DUE, inputs={"JOBLET_FAILED_STEPS": " ".join(failed)})
            state = _begun(workflow, ON_FAILURE, run, views) or due
            if state.run is not None or not run.was_stopped:
                states[ON_FAILURE] = state
    return states


def phase_of(run: WorkflowRun, states: Mapping[str, StepState]) -> str:
    """Of the workflow: Running, Succeeded or Failed; Stopping or Stopped if somebody wanted that."""
    is_over = all(state.is_over for state in states.values())
    if run.was_stopped:
        return STOPPED if is_over else STOPPING
    if not is_over:
        return RUNNING
    return "Failed" if any(state.went_wrong for name, state in states.items() if name != ON_FAILURE) else "Succeeded"


def _begun(
    workflow: WorkflowManifest, name: str, run: WorkflowRun, views: Mapping[JobName, JobView]
) -> StepState | None:
    """As its job stands, if that is the one of this run and try."""
    job = job_name(workflow.metadata.name, name)
    view = views.get(job)
    if view is None or view.source != source_of(workflow.metadata.name) or token_of(view) != run.token(name):
        return None
    if not view.runs:
        return StepState(name, job, Phase.PENDING)
    latest = view.runs[0]
    if latest.phase is Phase.STOPPED and latest.reason is Reason.SUSPENDED:
        return StepState(name, job, StepPhase.SUSPENDED, latest.reason, "runs anew when the workflow goes on", latest)
    return StepState(name, job, latest.phase, latest.reason or "", latest.message, latest)


def _not_begun(workflow: WorkflowManifest, step: WorkflowStep, states: Mapping[str, StepState]) -> StepState:
    job = job_name(workflow.metadata.name, step.name)
    open_needs = [need.step for need in step.all_needs if not states[need.step].is_over]
    if open_needs:
        return StepState(step.name, job, StepPhase.WAITING, "Waiting", f"for {', '.join(open_needs)}")
    for need in step.all_needs:
        other = states[need.step]
        if not ended_as(other, need.outcome):
            text = f"needs {need.step} to be {need.outcome}, and it is {other.phase}"
            return StepState(step.name, job, StepPhase.SKIPPED, "NeedNotMet", text)
    for condition in step.when:
        value = states[condition.step].outputs.get(condition.output)
        if value is None or not condition.holds(value):
            found = "was not written" if value is None else f"is {value!r}"
            text = f"{condition.step}.{condition.output} {found}"
            return StepState(step.name, job, StepPhase.SKIPPED, "ConditionNotMet", text)
    inputs: dict[str, str] = {}
    for one in step.inputs:
        value = states[one.step].outputs.get(one.output)
        if value is None:
            text = f"step {one.step} did not write its output {one.output}"
            return StepState(step.name, job, StepPhase.FAILED, "OutputMissing", text)
        inputs[one.env] = value
    return StepState(step.name, job, StepPhase.DUE, inputs=inputs)


def ended_as(state: StepState, outcome: DependencyOutcome) -> bool:
    match outcome:
        case DependencyOutcome.SUCCEEDED:
            return state.phase == Phase.COMPLETED
        case DependencyOutcome.FAILED:
            return state.phase == Phase.FAILED
        case DependencyOutcome.FINISHED:
            return state.is_over


def retried(workflow: WorkflowManifest, states: Mapping[str, StepState]) -> list[str]:
    """The steps that went wrong, or did not begin because the workflow was stopped."""
    return [
        step.name
        for step in workflow.spec.steps
        if states[step.name].went_wrong or states[step.name].reason == Reason.STOPPED
    ]


def _cut_off(state: StepState, needed: Sequence[StepState]) -> StepState:
    """A step of a run that was stopped: what has not begun does not begin any more."""
    if state.phase == StepPhase.SUSPENDED:
        return replace(state, phase=Phase.STOPPED, message="")
    missed = state.phase == StepPhase.SKIPPED and any(
        other.phase == Phase.STOPPED or other.reason == Reason.STOPPED for other in needed
    )
    if state.run is not None or (state.is_over and not missed):
        return state
    message = "the workflow was stopped before it began"
    return replace(state, phase=StepPhase.SKIPPED, reason=Reason.STOPPED, message=message, inputs={})

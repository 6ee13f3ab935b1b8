"""The kind Workflow: steps that run one after the other or beside each other, and what they hand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from joblet.manifest import fields as f
from joblet.manifest.choices import DependencyOutcome, Restart
from joblet.manifest.dependency import find_cycle
from joblet.manifest.fields import ListInput, MappingInput
from joblet.manifest.hook import Hook, hook_problems
from joblet.manifest.model_base import ManifestModel, refuse
from joblet.manifest.models import JobSpec, Metadata
from joblet.manifest.nearest import nearest
from joblet.manifest.schedule import Schedule
from joblet.manifest.schedule_values import Found, schedule_problems

ON_FAILURE = "on-failure"  # what the job of onFailure is called, as a step
MAX_NAME = 63
# What of a job makes no sense in a step: when a step runs is the workflow's affair, and it has to end.
_NOT_IN_STEPS = ("depends_on", "suspend", "probe", "update", "schedule")


class StepNeed(ManifestModel):
    """A step that has to be over, and how."""

    step: f.Name = Field(description="The other step's name.")
    outcome: f.DependencyOutcomeChoice = Field(
        default=DependencyOutcome.SUCCEEDED,
        description="Succeeded; Failed; Finished: it is over, also if it was skipped.",
    )


class StepCondition(ManifestModel):
    """What an output of an earlier step has to be. One of equals and notEquals."""

    step: f.Name = Field(description="The step that wrote it.")
    output: f.OutputName = Field(description="The output's name.")
    equals: f.OptionalText = Field(default=None, description="The text that it has to be.")
    not_equals: f.OptionalText = Field(default=None, alias="notEquals", description="A text that it must not be.")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.equals is None) == (self.not_equals is None):
            raise ValueError("needs exactly one of equals and notEquals")
        return self

    def holds(self, value: str) -> bool:
        return value == self.equals if self.equals is not None else value != self.not_equals


class StepInput(ManifestModel):
    """An output of an earlier step that this one gets as an environment variable."""

    env: f.EnvName = Field(description="The variable.")
    step: f.Name = Field(description="The step that wrote it.")
    output: f.OutputName = Field(description="The output's name.")


class WorkflowStep(ManifestModel):
    """One step: a job that runs when its needs are met."""

    name: f.Name = Field(description="The step's name; its job is called workflow-step.")
    needs: Annotated[tuple[StepNeed, ...], ListInput] = Field(
        default=(),
        description="Steps that have to be over before; if one ended otherwise, this one is skipped.",
        max_length=64,
    )
    when: Annotated[tuple[StepCondition, ...], ListInput] = Field(
        default=(), description="What has to hold besides, or the step is skipped.", max_length=16
    )
    inputs: Annotated[tuple[StepInput, ...], ListInput] = Field(
        default=(), description="Outputs of earlier steps that it gets.", max_length=32
    )
    job: JobSpec = Field(description="What runs, as in a Job.")

    @property
    def all_needs(self) -> tuple[StepNeed, ...]:
        """With those that follow from its conditions and inputs: who wrote an output has succeeded, if nothing else is said."""
        said = {need.step: need for need in self.needs}
        for name in (*(one.step for one in self.when), *(one.step for one in self.inputs)):
            said.setdefault(name, StepNeed(step=name))
        return tuple(said.values())


class OnFailure(ManifestModel):
    """What runs once if the workflow has failed, when nothing of it runs any more."""

    job: JobSpec = Field(
        description="What runs, as in a Job; $JOBLET_FAILED_STEPS has the names of the steps that failed."
    )


class WorkflowSpec(ManifestModel):
    """Steps, and what they need of each other."""

    parameters: dict[f.EnvName, f.Argument] = Field(
        default={}, description="Environment variables of all steps; a step's own come first."
    )
    steps: Annotated[tuple[WorkflowStep, ...], ListInput] = Field(
        description="The steps, in any order; those that need nothing of each other run at once.",
        min_length=1,
        max_length=64,
    )
    on_failure: Annotated[OnFailure | None, MappingInput] = Field(
        default=None, alias="onFailure", description=str(OnFailure.__doc__)
    )
    schedule: Annotated[Schedule | None, MappingInput] = Field(
        default=None, description="When it runs by itself: as of a job, without overlap: Allow."
    )
    notify: Annotated[tuple[Hook, ...], ListInput] = Field(
        default=(), description="Who is told how the workflow ends, after onFailure; as of a job.", max_length=16
    )
    suspend: f.Flag = Field(
        default=False,
        description="true: it is kept and does not run; steps that run are stopped, and run anew afterwards.",
    )

    @property
    def work(self) -> tuple[object, ...]:
        """What a run of it does; the rest says when, and who hears of it."""
        return self.parameters, self.steps, self.on_failure

    @model_validator(mode="wrap")
    @classmethod
    def _check_rules(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        spec = handler(data)
        raw = _rule_problems(data) if isinstance(data, dict) else ()
        refuse("WorkflowSpec", [*raw, *_step_problems(spec)])
        return spec


def _step_problems(spec: WorkflowSpec) -> Iterator[Found]:
    """What is wrong between the steps, each with its path below the spec."""
    steps: dict[str, WorkflowStep] = {}
    for place, step in enumerate(spec.steps):
        where = ("steps", place)
        if step.name in steps:
            yield (*where, "name"), f"has two steps of the name {step.name}"
        if step.name == ON_FAILURE:
            yield (*where, "name"), f"has a step of the name {ON_FAILURE}, which is that of onFailure's job"
        steps.setdefault(step.name, step)
        for path, problem in _job_problems(step.job):
            yield (*where, "job", *path), f"step {step.name}: {problem}"
    for place, step in enumerate(spec.steps):
        for path, problem in _link_problems(step, steps):
            yield ("steps", place, *path), f"step {step.name} {problem}"
    needs = {name: [need.step for need in step.all_needs if need.step in steps] for name, step in steps.items()}
    if cycle := find_cycle(needs):
        place = next(place for place, step in enumerate(spec.steps) if step.name == cycle[0])
        yield ("steps", place), f"has steps that wait for each other for ever: {' -> '.join(cycle)}"
    if spec.on_failure is not None:
        for path, problem in _job_problems(spec.on_failure.job):
            yield ("onFailure", "job", *path), f"step {ON_FAILURE}: {problem}"


def _link_problems(step: WorkflowStep, steps: Mapping[str, WorkflowStep]) -> Iterator[Found]:
    """What is wrong with what a step has from others, each with its path below the step."""
    named: list[tuple[tuple[str, int], str]] = [(("needs", place), one.step) for place, one in enumerate(step.needs)]
    used: list[tuple[tuple[str, int], str, str]] = [
        *((("when", place), one.step, one.output) for place, one in enumerate(step.when)),
        *((("inputs", place), one.step, one.output) for place, one in enumerate(step.inputs)),
    ]
    for path, other in [*named, *((path, other) for path, other, _ in used)]:
        if other not in steps:
            near = nearest(other, steps)
            hint = f"did you mean {near}?" if near else ", ".join(steps)
            yield (*path, "step"), f"needs {other}, and there is no such step ({hint})"
    for path, other, output in used:
        if other in steps and steps[other].job.array is not None:
            what = f"uses the output {output} of step {other}, which has an array: each index has its own"
            yield (*path, "output"), what
        elif other in steps and output not in steps[other].job.outputs:
            yield (*path, "output"), f"uses the output {output}, which is not among the outputs of step {other}"
    variables: set[str] = set()
    for place, one in enumerate(step.inputs):
        if one.env in variables or one.env in step.job.env:
            yield ("inputs", place, "env"), f"gets the variable {one.env} twice"
        variables.add(one.env)


def _rule_problems(spec: Mapping[str, object]) -> Iterator[Found]:
    """Broken rules of a raw spec about what it shares with jobs: paths below it, and what is wrong."""
    yield from schedule_problems(spec)
    schedule = spec.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("overlap") == "Allow":
        what = "Allow is not for workflows, of which one run goes on at a time; use Queue, or several workflows"
        yield ("schedule", "overlap"), what
    hooks = spec.get("notify")
    for position, hook in enumerate(hooks if isinstance(hooks, (list, tuple)) else ()):
        if not isinstance(hook, Mapping):
            continue
        yield from hook_problems(position, hook)
        events = hook.get("on")
        for place, event in enumerate(events if isinstance(events, (list, tuple)) else ()):
            if event == "TimedOut":
                what = "TimedOut is not for workflows, which have no timeout of their own; use Failed"
                yield ("notify", position, "on", place), what


def _job_problems(job: JobSpec) -> Iterator[Found]:
    """What a step's job may not have, each with its path below the job."""
    for name in _NOT_IN_STEPS:
        if name in job.model_fields_set:
            key = JobSpec.model_fields[name].alias or name
            yield (key,), f"{key} is not for steps; the workflow says when a step runs"
    if job.restart is Restart.ALWAYS:
        yield ("restart",), "restart: Always is not for steps, which have to end"
    for place, file in enumerate(job.files):
        if file.source is not None or file.sha256 is not None:
            yield ("files", place), "files of steps have content or link; uploaded ones are for jobs alone"


class WorkflowManifest(ManifestModel):
    """One YAML document that declares one workflow."""

    api_version: f.ApiVersion = Field(alias="apiVersion", description="The version of this form: joblet/v1.")
    kind: f.WorkflowKind = Field(description="What is declared: Workflow.")
    metadata: Metadata = Field(description=str(Metadata.__doc__))
    spec: WorkflowSpec = Field(description=str(WorkflowSpec.__doc__))

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name in (*(step.name for step in self.spec.steps), *([ON_FAILURE] if self.spec.on_failure else [])):
            if len(job_name := f"{self.metadata.name}-{name}") > MAX_NAME:
                raise ValueError(
                    f"the job of step {name} would be called {job_name}, which is longer than {MAX_NAME} letters"
                )
        return self

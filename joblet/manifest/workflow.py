"""The kind Workflow: steps that run one after the other or beside each other, and what they hand on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from joblet.manifest import fields as f
from joblet.manifest.dependency import find_cycle
from joblet.manifest.fields import ListInput, MappingInput
from joblet.manifest.model_base import ManifestModel
from joblet.manifest.models import JobSpec, Metadata

ON_FAILURE = "on-failure"  # what the job of onFailure is called, as a step
MAX_NAME = 63
# What of a job makes no sense in a step: when a step runs is the workflow's affair, and it has to end. Also fields to come.
_NOT_IN_STEPS = ("depends_on", "suspend", "probe", "update", "schedule", "array", "matrix")


class StepNeed(ManifestModel):
    """A step that has to be over, and how."""

    step: f.Name = Field(description="The other step's name.")
    outcome: f.DependencyOutcomeChoice = Field(
        default=f.DependencyOutcome.SUCCEEDED,
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problem := next(self._problems(), None):
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        names = [step.name for step in self.steps]
        if twice := next((name for name in names if names.count(name) > 1), None):
            yield f"has two steps of the name {twice}"
        if ON_FAILURE in names:
            yield f"has a step of the name {ON_FAILURE}, which is that of onFailure's job"
        steps = {step.name: step for step in self.steps}
        for step in self.steps:
            for need in step.all_needs:
                if need.step not in steps:
                    yield f"step {step.name} needs {need.step}, and there is no such step ({', '.join(names)})"
            uses = [*((one.step, one.output) for one in step.when), *((one.step, one.output) for one in step.inputs)]
            for other, output in uses:
                if other in steps and output not in steps[other].job.outputs:
                    yield f"step {step.name} uses the output {output}, which is not among the outputs of step {other}"
            variables = [one.env for one in step.inputs]
            if again := next((name for name in variables if variables.count(name) > 1 or name in step.job.env), None):
                yield f"step {step.name} gets the variable {again} twice"
        if cycle := find_cycle({step.name: [need.step for need in step.all_needs] for step in self.steps}):
            yield f"has steps that wait for each other for ever: {' -> '.join(cycle)}"
        jobs = [(step.name, step.job) for step in self.steps]
        for name, job in [*jobs, *([(ON_FAILURE, self.on_failure.job)] if self.on_failure else [])]:
            yield from (f"step {name}: {problem}" for problem in _job_problems(job))


def _job_problems(job: JobSpec) -> Iterator[str]:
    for name in _NOT_IN_STEPS:
        if name in job.model_fields_set:
            key = JobSpec.model_fields[name].alias or name
            yield f"{key} is not for steps; the workflow says when a step runs"
    if job.restart is f.Restart.ALWAYS:
        yield "restart: Always is not for steps, which have to end"
    if any(file.source is not None or file.sha256 is not None for file in job.files):
        yield "files of steps have content or link; uploaded ones are for jobs alone"


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

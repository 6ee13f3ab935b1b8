"""From a workflow to the jobs of its steps: pure functions.

Which run of the workflow, and which try, a step's job belongs to stands in its environment, so in its spec. A further run or try
is another spec, which starts a run, and the same one applied again starts none: that a step runs once a try needs no record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from joblet.manifest import ON_FAILURE, JobManifest, WorkflowManifest
from joblet.manifest.models import JobSpec, Metadata
from joblet.manifest.schedule_values import format_moment
from jobletd.model import JobName, JobView, Source

KIND = "workflow"
RUNNING, STOPPING, STOPPED = "Running", "Stopping", "Stopped"
RUN, TRY = "JOBLET_WORKFLOW_RUN", "JOBLET_WORKFLOW_TRY"


@dataclass(frozen=True, slots=True)
class WorkflowRun:
    """One run of a workflow: one a generation or a tick of its schedule, and one each time that somebody asks for all of it anew.

    tries: how often each step was tried anew; those that were not are not there. phase: Running, Succeeded, Failed; Stopping as
    long as something still runs of one that was stopped, then Stopped; so is one whose place another one takes. trigger:
    generation | schedule | manual | forced. manifest: what it runs, as it was when it began (None: a record of before; the one
    that is declared).
    """

    workflow: str
    number: int
    generation: int
    created_ns: int
    tries: Mapping[str, int]
    phase: str = RUNNING
    ended_ns: int | None = None
    trigger: str = "generation"
    tick_seconds: int | None = None
    manifest: WorkflowManifest | None = None

    @property
    def goes_on(self) -> bool:
        """Whether something of it may still run."""
        return self.phase in (RUNNING, STOPPING)

    @property
    def was_stopped(self) -> bool:
        """Whether no more of its steps begin."""
        return self.phase in (STOPPING, STOPPED)

    def token(self, step: str) -> tuple[str, str]:
        return str(self.number), str(self.tries.get(step, 0) + 1)


def source_of(workflow: str) -> Source:
    return Source(KIND, workflow)


def job_name(workflow: str, step: str) -> JobName:
    return JobName(f"{workflow}-{step}")


def token_of(view: JobView) -> tuple[str, str]:
    """Which run and try of its workflow a step's job belongs to."""
    env = view.manifest.spec.env
    return env.get(RUN, ""), env.get(TRY, "")


def step_job(
    workflow: WorkflowManifest, step: str, spec: JobSpec, run: WorkflowRun, more: Mapping[str, str]
) -> JobManifest:
    """The job of a step in that run and its present try. more: variables besides: its inputs."""
    name = workflow.metadata.name
    number, tried = run.token(step)
    own = {"JOBLET_WORKFLOW": name, "JOBLET_STEP": step, RUN: number, TRY: tried}
    if run.tick_seconds is not None:
        own["JOBLET_SCHEDULED"] = format_moment(run.tick_seconds)
    env = {**workflow.spec.parameters, **spec.env, **more, **own}
    labels = {**workflow.metadata.labels, "joblet/workflow": name}
    metadata = Metadata.model_construct(name=job_name(name, step), labels=labels)
    return JobManifest(apiVersion="joblet/v1", kind="Job", metadata=metadata, spec=spec.model_copy(update={"env": env}))


def all_jobs(workflow: WorkflowManifest) -> Iterator[JobManifest]:
    """The jobs of all steps, as far as they are known beforehand."""
    run = WorkflowRun(workflow.metadata.name, 1, 1, 0, {})
    for step in workflow.spec.steps:
        yield step_job(workflow, step.name, step.job, run, {})
    if workflow.spec.on_failure is not None:
        yield step_job(workflow, ON_FAILURE, workflow.spec.on_failure.job, run, {})


def in_order(workflow: WorkflowManifest) -> list[str]:
    """The names of the steps, each after all that it needs, else as they are written."""
    steps = {step.name: step for step in workflow.spec.steps}
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in done:
            for need in steps[name].all_needs:
                visit(need.step)
            done[name] = None

    for name in steps:
        visit(name)
    return list(done)


def with_dependents(workflow: WorkflowManifest, names: Iterable[str]) -> set[str]:
    """These steps, and all that need them, directly or not."""
    found = set(names)
    for name in in_order(workflow):
        step = next(one for one in workflow.spec.steps if one.name == name)
        if any(need.step in found for need in step.all_needs):
            found.add(name)
    return found

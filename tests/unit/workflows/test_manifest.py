"""What a workflow's manifest may say, and what is told of one that makes no sense."""

from __future__ import annotations

import pytest

from joblet.manifest import ManifestErrors, WorkflowManifest, read_manifests
from jobletd.model import Source
from jobletd.policy import NotAllowed, Policy
from jobletd.workflows.steps import WorkflowRun, all_jobs, in_order, step_job, with_dependents

DIAMOND = """
apiVersion: joblet/v1
kind: Workflow
metadata: {name: wf, labels: {team: data}}
spec:
  parameters: {DAY: monday, MODE: full}
  steps:
    - {name: end, needs: [{step: left}, {step: right, outcome: Finished}], job: {command: [d]}}
    - {name: left, needs: [{step: start}], job: {command: [b], env: {MODE: quick}}}
    - {name: right, inputs: [{env: ROWS, step: start, output: rows}], job: {command: [c]}}
    - {name: start, job: {command: [a], outputs: [rows]}}
"""


def read(text: str) -> WorkflowManifest:
    (manifest,) = read_manifests(text.encode(), filename="wf.yml")
    assert isinstance(manifest, WorkflowManifest)
    return manifest


def test_steps_have_an_order_in_which_none_comes_before_what_it_needs() -> None:
    manifest = read(DIAMOND)
    assert in_order(manifest) == ["start", "left", "right", "end"]
    assert with_dependents(manifest, ["right"]) == {"right", "end"}
    assert with_dependents(manifest, ["start"]) == {"start", "left", "right", "end"}


def test_a_step_s_job_has_the_parameters_and_says_to_what_it_belongs() -> None:
    manifest = read(DIAMOND)
    run = WorkflowRun("wf", 3, 1, 0, {"left": 1})
    job = step_job(manifest, "left", manifest.spec.steps[1].job, run, {"ROWS": "7"})
    assert job.metadata.name == "wf-left"
    assert job.metadata.labels == {"team": "data", "joblet/workflow": "wf"}
    assert job.spec.env == {
        **{"DAY": "monday", "MODE": "quick", "ROWS": "7", "JOBLET_WORKFLOW": "wf", "JOBLET_STEP": "left"},
        **{"JOBLET_WORKFLOW_RUN": "3", "JOBLET_WORKFLOW_TRY": "2"},
    }
    assert Source.parse("workflow:wf").file == ""


def steps(text: str, more: str = "") -> str:
    return f"apiVersion: joblet/v1\nkind: Workflow\nmetadata: {{name: wf}}\nspec: {{steps: [{text}]{more}}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (steps("{name: a, job: {command: [x]}}, {name: a, job: {command: [x]}}"), "two steps of the name a"),
        (
            steps(
                "{name: a, job: {command: [x], outputs: [o], array: {to: 3}}}, "
                "{name: b, inputs: [{env: O, step: a, output: o}], job: {command: [x]}}"
            ),
            "step b uses the output o of step a, which has an array",
        ),
        (steps("{name: a, needs: [{step: b}], job: {command: [x]}}"), "step a needs b, and there is no such step"),
        (
            steps(
                "{name: a, needs: [{step: b}], job: {command: [x]}}, {name: b, needs: [{step: c}], job: {command: [x]}}, "
                "{name: c, needs: [{step: a}], job: {command: [x]}}"
            ),
            "wait for each other for ever: a -> b -> c -> a",
        ),
        (
            steps(
                "{name: a, job: {command: [x]}}, {name: b, inputs: [{env: A, step: a, output: o}], job: {command: [x]}}"
            ),
            "uses the output o, which is not among the outputs of step a",
        ),
        (steps("{name: a, job: {command: [x], restart: Always}}"), "restart: Always is not for steps"),
        (steps("{name: a, job: {command: [x], dependsOn: [{job: b}]}}"), "dependsOn is not for steps"),
        (steps("{name: a, job: {command: [x], suspend: true}}"), "suspend is not for steps"),
        (steps("{name: a, job: {command: [x], files: [{path: f, from: f}]}}"), "uploaded ones are for jobs alone"),
        (steps("{name: on-failure, job: {command: [x]}}"), "which is that of onFailure's job"),
        (steps("{name: a, job: {}}"), "needs a command or a script"),
        (steps("{name: a, job: {command: [x], outputs: [../x]}}"), "is no name of an output"),
        (steps("{name: " + "a" * 61 + ", job: {command: [x]}}"), "is longer than 63 letters"),
        (
            steps(
                "{name: a, job: {command: [x], outputs: [o]}}, {name: b, when: [{step: a, output: o}], job: {command: [x]}}"
            ),
            "exactly one of equals and notEquals",
        ),
        (steps(""), "the list is empty"),
    ],
)
def test_a_workflow_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ManifestErrors, match=message):
        read(text)


ALLOW = "Allow is not for workflows, of which one run goes on at a time; use Queue, or several workflows"
MANY = """
apiVersion: joblet/v1
kind: Workflow
metadata: {name: wf}
spec:
  steps:
    - {name: extract, job: {command: [x]}}
    - {name: extract, job: {command: [x], restart: Always}}
    - name: load
      needs: [{step: extrct}]
      inputs: [{env: ROWS, step: extract, output: rows}]
      job: {command: [x], dependsOn: [{job: other}]}
    - {name: one, needs: [{step: two}], job: {command: [x]}}
    - {name: two, needs: [{step: one}], job: {command: [x]}}
  schedule: {every: 1h, overlap: Allow}
"""


def test_all_that_is_wrong_is_told_at_once_each_where_it_is() -> None:
    with pytest.raises(ManifestErrors) as caught:
        read(MANY)
    assert [(one.line, one.path, one.message.partition(" (")[0]) for one in caught.value.errors] == [
        (8, "spec.steps[1].name", "has two steps of the name extract"),
        (8, "spec.steps[1].job.restart", "step extract: restart: Always is not for steps, which have to end"),
        (10, "spec.steps[2].needs[0].step", "step load needs extrct, and there is no such step"),
        (
            11,
            "spec.steps[2].inputs[0].output",
            "step load uses the output rows, which is not among the outputs of step extract",
        ),
        (
            12,
            "spec.steps[2].job.dependsOn",
            "step load: dependsOn is not for steps; the workflow says when a step runs",
        ),
        (13, "spec.steps[3]", "has steps that wait for each other for ever: one -> two -> one"),
        (
            15,
            "spec.schedule.overlap",
            "Allow is not for workflows, of which one run goes on at a time; use Queue, or several workflows",
        ),
    ]
    assert "did you mean extract?" in str(caught.value)


def test_a_step_may_ask_for_no_more_than_a_job() -> None:
    manifest = read(steps("{name: a, job: {command: [x], isolation: {network: host}}}"))
    with pytest.raises(NotAllowed, match=r"job wf-a: spec\.isolation\.network"):
        Policy().check(manifest)
    assert [job.metadata.name for job in all_jobs(manifest)] == ["wf-a"]

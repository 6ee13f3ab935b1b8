"""Workflows from an apply to their end: order, conditions, outputs, failures, retries, changes, removal; whoever dies when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from joblet.manifest import read_manifests
from jobletd.errors import OwnershipConflict, WrongState
from jobletd.model import JobName, Phase
from tests.unit.reconciler.world import CLIENT, Fuse, World, job, play

KEY = JobName("workflow/wf")
CHAIN = """
apiVersion: joblet/v1
kind: Workflow
metadata: {name: wf}
spec:
  steps:
    - {name: a, job: {command: [a], outputs: [rows]}}
    - {name: b, needs: [{step: a}], job: {command: [b]}}
    - {name: c, inputs: [{env: ROWS, step: a, output: rows}], job: {command: [c]}}
    - {name: d, needs: [{step: b}, {step: c}], job: {command: [d]}}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.host.outputs["wf-a"] = {"rows": "12"}
    return world


async def apply(world: World, text: str = CHAIN) -> None:
    await world.desired.apply(read_manifests(text.encode(), filename="wf.yml"), CLIENT)
    await world.settle()


async def phases(world: World) -> dict[str, str]:
    shown = await world.desired.get_resource(KEY)
    _, states = world.workflows.progress(shown.view)
    return {name: str(state.phase) for name, state in states.items()}


async def status(world: World) -> dict[str, str]:
    return dict((await world.desired.get_resource(KEY)).status)


def live(world: World) -> set[str]:
    return {launched.request.manifest.metadata.name for launched in world.host.live()}


async def exit(world: World, name: str, code: int = 0) -> None:  # noqa: A001  as a command does
    (attempt,) = [
        launched.request.attempt_id
        for launched in world.host.live()
        if launched.request.manifest.metadata.name == f"wf-{name}"
    ]
    await world.exit(code, attempt)


def launches(world: World) -> list[str]:
    return [request.manifest.metadata.name.removeprefix("wf-") for request in world.host.launches]


def test_steps_run_in_order_those_that_can_at_once_and_get_what_was_handed_on(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world)
        assert live(world) == {"wf-a"}
        assert await status(world) == {"phase": "Running", "run": "1", "steps": "0/4"}
        await exit(world, "a")
        assert live(world) == {"wf-b", "wf-c"}
        assert (await world.view("wf-c")).manifest.spec.env["ROWS"] == "12"
        assert str((await world.view("wf-c")).source) == "workflow:wf"
        await exit(world, "b")
        assert (await phases(world))["d"] == "WAITING"
        await exit(world, "c")
        await exit(world, "d")
        assert await status(world) == {"phase": "Succeeded", "run": "1", "steps": "4/4"}
        assert [event.reason for event in await world.events("workflow/wf")][-2:] == ["Started", "Succeeded"]
        await world.restart()
        await apply(world)
        assert launches(world) == ["a", "b", "c", "d"]

    play(scenario, world)


def test_what_needs_a_step_that_failed_is_skipped_and_the_rest_goes_on(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world)
        await exit(world, "a")
        await exit(world, "b", 3)
        assert (await status(world))["phase"] == "Running"
        await exit(world, "c")
        assert await phases(world) == {"a": "COMPLETED", "b": "FAILED", "c": "COMPLETED", "d": "SKIPPED"}
        assert (await status(world))["phase"] == "Failed"
        event = (await world.events("workflow/wf"))[-1]
        assert (event.type, event.reason) == ("Warning", "Failed") and "b: FAILED (ExitCode" in event.message

    play(scenario, world)


def test_a_retry_runs_what_failed_and_what_needs_it_and_nothing_else(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world)
        with pytest.raises(WrongState, match="still runs"):
            await world.workflows.retry("wf")
        await exit(world, "a")
        await exit(world, "b", 3)
        await exit(world, "c")
        await world.workflows.retry("wf")
        await world.settle()
        assert live(world) == {"wf-b"}
        await exit(world, "b")
        await exit(world, "d")
        assert await status(world) == {"phase": "Succeeded", "run": "1", "steps": "4/4"}
        assert launches(world) == ["a", "b", "c", "b", "d"]
        with pytest.raises(WrongState, match="no step of workflow 'wf' failed"):
            await world.workflows.retry("wf")
        with pytest.raises(WrongState, match="has no step 'x'"):
            await world.workflows.retry("wf", step="x")
        await world.workflows.retry("wf", step="c")
        await world.settle()
        assert live(world) == {"wf-c"}
        await exit(world, "c")
        await exit(world, "d")
        await world.workflows.trigger("wf", force=False)
        await world.settle()
        assert live(world) == {"wf-a"} and (await status(world))["run"] == "2"

    play(scenario, world)


BRANCHES = """
apiVersion: joblet/v1
kind: Workflow
metadata: {name: wf}
spec:
  steps:
    - {name: a, job: {command: [a], outputs: [rows]}}
    - {name: some, when: [{step: a, output: rows, notEquals: "0"}], job: {command: [b]}}
    - {name: none, when: [{step: a, output: rows, equals: "0"}], job: {command: [c]}}
    - {name: rescue, needs: [{step: some, outcome: Failed}], job: {command: [d]}}
    - {name: always, needs: [{step: some, outcome: Finished}, {step: none, outcome: Finished}], job: {command: [e]}}
  onFailure: {job: {command: [f]}}
"""


def test_conditions_and_outcomes_decide_who_runs(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world, BRANCHES)
        await exit(world, "a")
        assert live(world) == {"wf-some"}
        await exit(world, "some")
        assert live(world) == {"wf-always"}
        await exit(world, "always")
        wanted = {"a": "COMPLETED", "some": "COMPLETED", "none": "SKIPPED", "rescue": "SKIPPED", "always": "COMPLETED"}
        assert await phases(world) == wanted
        assert (await status(world))["phase"] == "Succeeded"

    play(scenario, world)


def test_on_failure_runs_once_when_nothing_else_does_and_is_told_what_failed(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world, BRANCHES)
        await exit(world, "a")
        await exit(world, "some", 1)
        assert live(world) == {"wf-rescue", "wf-always"}
        await exit(world, "always")
        await exit(world, "rescue")
        assert live(world) == {"wf-on-failure"}
        assert (await world.view("wf-on-failure")).manifest.spec.env["JOBLET_FAILED_STEPS"] == "some"
        assert (await status(world))["phase"] == "Running"
        await exit(world, "on-failure")
        assert (await status(world))["phase"] == "Failed"
        await world.workflows.retry("wf")
        await world.settle()
        await exit(world, "some", 1)
        await exit(world, "always")
        await exit(world, "rescue")
        assert live(world) == {"wf-on-failure"}

    play(scenario, world)


def test_an_output_that_was_not_written_fails_who_needs_it(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.outputs.clear()
        await apply(world)
        await exit(world, "a")
        await exit(world, "b")
        assert await phases(world) == {"a": "COMPLETED", "b": "COMPLETED", "c": "FAILED", "d": "SKIPPED"}
        assert (await status(world))["phase"] == "Failed"

    play(scenario, world)


def test_a_changed_workflow_starts_anew_and_what_is_no_step_any_more_goes(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world)
        await exit(world, "a")
        await apply(world, CHAIN.replace("    - {name: d, needs: [{step: b}, {step: c}], job: {command: [d]}}\n", ""))
        assert live(world) == {"wf-a"} and (await status(world))["run"] == "2"
        await exit(world, "a")
        await exit(world, "b")
        await exit(world, "c")
        assert (await status(world))["phase"] == "Succeeded"
        assert set(world.registry.views) == {"wf-a", "wf-b", "wf-c"}
        assert all(run.phase is not Phase.FAILED for view in world.registry.views.values() for run in view.runs)

    play(scenario, world)


def test_a_step_may_have_an_array_whose_outcome_counts(world: World) -> None:
    text = CHAIN.replace("{command: [b]}", "{command: [b], array: {to: 2, success: {atLeast: 2}}}")

    async def scenario(world: World) -> None:
        await apply(world, text)
        await exit(world, "a")
        await exit(world, "c")
        indexes = [one.request.attempt_id for one in world.host.live()]
        assert len(indexes) == 3 and "d" not in launches(world)
        for attempt, code in zip(indexes, (0, 1, 0), strict=True):
            await world.exit(code, attempt)
        assert (await phases(world))["b"] == "COMPLETED" and live(world) == {"wf-d"}

    play(scenario, world)


def test_a_label_starts_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world)
        await apply(world, CHAIN.replace("{name: wf}", "{name: wf, labels: {a: b}}"))
        assert launches(world) == ["a"]

    play(scenario, world)


def test_a_workflow_that_is_deleted_takes_its_jobs_along(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world)
        await exit(world, "a")
        await world.desired.delete(KEY, source=CLIENT)
        await world.settle()
        await world.advance(1)
        assert not world.registry.views and KEY not in world.registry.resources
        await apply(world)
        assert (await status(world))["run"] == "1" and live(world) == {"wf-a"}

    play(scenario, world)


def test_a_step_s_job_is_nobody_else_s_and_a_name_that_is_taken_is_waited_for(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="wf-b"))
        await apply(world)
        with pytest.raises(OwnershipConflict):
            await world.desired.delete(JobName("wf-a"), source=CLIENT)
        await exit(world, "a")
        assert (await phases(world))["b"] == "DUE"
        assert "belongs to grpc:admin" in (await world.events("workflow/wf"))[-1].message
        await world.desired.delete(JobName("wf-b"), source=CLIENT)
        await world.settle()
        await world.advance(60)
        assert "wf-b" in live(world)

    play(scenario, world)


async def to_the_end(world: World) -> None:
    """Whatever runs ends well, until nothing is left to do."""
    for _ in range(12):
        if (await status(world)).get("phase") in ("Succeeded", "Failed"):
            return
        for launched in world.host.live():
            world.host.exit(launched.request.attempt_id, 0)
        await world.settle()
        await world.advance(61)


def walked(directory: Path, fuse: Fuse) -> None:
    """The chain, to its end by a daemon that dies where the fuse says, and by the next one."""
    directory.mkdir()
    world = World(directory)
    world.host.outputs["wf-a"] = {"rows": "12"}

    async def first_daemon(world: World) -> None:
        await apply(world)
        await to_the_end(world)

    async def scenario(world: World) -> None:
        walk = asyncio.create_task(first_daemon(world))
        blown = asyncio.create_task(world.fuse.blown.wait())
        await asyncio.wait({walk, blown}, return_when=asyncio.FIRST_COMPLETED)
        walk.cancel()
        blown.cancel()
        await world.restart()
        await apply(world)  # who was not answered asks again
        await to_the_end(world)
        assert await phases(world) == {"a": "COMPLETED", "b": "COMPLETED", "c": "COMPLETED", "d": "COMPLETED"}
        assert sorted(launches(world)) == ["a", "b", "c", "d"]

    play(scenario, world, fuse=fuse)


def test_each_step_runs_once_a_try_wherever_the_daemon_dies(tmp_path: Path) -> None:
    counted = Fuse()
    walked(tmp_path / "whole", counted)
    steps = len(counted.steps)
    assert steps > 30
    for at in range(0, steps, 5):
        walked(tmp_path / str(at), Fuse(at))

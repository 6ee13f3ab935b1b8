"""A workflow that somebody stops: what runs ends, nothing more begins, and it may go on from there."""

from __future__ import annotations

import asyncio

import pytest

from jobletd.errors import NoSuchResource, WrongState
from jobletd.model import JobName, Reason, ShownResource
from tests.unit.reconciler.world import World, play
from tests.unit.schedules.passing import end_all, set_clock
from tests.unit.workflows.test_scheduled_workflows import (
    HOURLY,
    KEY,
    TEN,
    apply,
    hours,
    launched,
    live,
    reasons,
    status,
    told,
    workflow,
)

WIDE = """{name: a, job: {command: [a]}}, {name: other, job: {command: [o]}},
    {name: b, needs: [{step: a}], job: {command: [b]}}, {name: c, needs: [{step: a, outcome: Finished}], job: {command: [c]}}"""
ON_FAILURE = "onFailure: {job: {command: [f]}}, "
TELL = "notify: [{on: [Stopped, Failed, Succeeded], command: [x]}], "


async def phases(world: World) -> dict[str, str]:
    _, states = world.workflows.progress((await world.desired.get_resource(KEY)).view)
    return {name: f"{state.phase} {state.reason}".strip() for name, state in states.items()}


def test_what_runs_is_stopped_nothing_more_begins_and_its_end_is_told_when_it_has_come(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        await apply(world, workflow(ON_FAILURE + TELL, steps=WIDE))
        assert live(world) == {"a", "other"}
        run = await world.workflows.stop("wf", force=False)
        await world.settle()
        assert run.number == 1 and all(one.cancels for one in world.host.live())
        assert (await status(world))["phase"] == "Stopping" and not await told(world)
        await world.workflows.stop("wf", force=True)
        await world.settle()
        assert not live(world)
        assert await phases(world) == {
            "a": "STOPPED Stopped",
            "other": "STOPPED Stopped",
            "b": "SKIPPED Stopped",
            "c": "SKIPPED Stopped",
        }
        assert await status(world) == {"phase": "Stopped", "run": "1", "steps": "4/4"}
        assert (await reasons(world))[-2:] == ["Stopping", "Stopped"]
        (body,) = await told(world)
        assert (body.event, body.run.phase, body.run.reason) == ("Stopped", "STOPPED", "Stopped")
        with pytest.raises(WrongState, match="does not run"):
            await world.workflows.stop("wf", force=False)

    play(scenario, world)


def test_a_retry_goes_on_with_what_was_stopped_and_what_never_began(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world, workflow(steps=WIDE))
        await world.workflows.stop("wf", force=False)
        await world.settle()
        assert (await status(world))["phase"] == "Stopped"
        await world.restart()
        assert (await status(world))["phase"] == "Stopped" and not live(world)
        await world.workflows.retry("wf")
        await world.settle()
        assert live(world) == {"a", "other"}
        await end_all(world)
        assert await status(world) == {"phase": "Succeeded", "run": "1", "steps": "4/4"}

    play(scenario, world)


def test_the_daemon_dies_between_the_stop_and_the_end(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        await apply(world, workflow())
        await world.workflows.stop("wf", force=False)
        await world.restart()
        assert (await status(world))["phase"] == "Stopping" and world.host.live()[0].cancels
        await world.workflows.stop("wf", force=True)
        await world.settle()
        assert (await world.run("wf-a")).force
        assert (await status(world))["phase"] == "Stopped" and launched(world) == ["a 1 -"]

    play(scenario, world)


def test_what_waits_in_the_line_does_not_run_and_the_next_tick_does(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ", overlap: Queue"))
        with pytest.raises(WrongState, match="does not run"):
            await world.workflows.stop("wf", force=False)
        await hours(world, 3, exits=False)
        assert (await status(world))["waiting"] == "2"
        await world.workflows.stop("wf", force=False)
        await world.settle()
        assert launched(world) == ["a 1 11"] and "waiting" not in await status(world)
        assert (await world.run("wf-a")).reason is Reason.STOPPED
        await hours(world, 1, exits=False)
        assert launched(world) == ["a 1 11", "a 2 14"]

    play(scenario, world)


def test_a_suspended_workflow_that_is_stopped_does_not_go_on_afterwards(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world, workflow())
        await apply(world, workflow("suspend: true, "))
        await world.workflows.stop("wf", force=False)
        await world.settle()
        await apply(world, workflow("suspend: false, "))
        assert await phases(world) == {"a": "STOPPED Suspended", "b": "SKIPPED Stopped"}
        assert (await status(world))["phase"] == "Stopped"
        await world.workflows.retry("wf")
        await world.settle()
        await end_all(world)
        assert (await status(world))["phase"] == "Succeeded"

    play(scenario, world)


def test_changed_steps_start_a_stopped_workflow_anew(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world, workflow())
        await world.workflows.stop("wf", force=False)
        await world.settle()
        await apply(world, workflow(steps="{name: z, job: {command: [z]}}"))
        assert live(world) == {"z"} and (await status(world))["run"] == "2"

    play(scenario, world)


def test_who_watches_a_workflow_hears_of_its_steps_its_end_and_its_removal(world: World) -> None:
    async def scenario(world: World) -> None:
        heard: list[ShownResource] = []

        async def watch() -> None:
            async for shown in world.desired.watch_resource(KEY):
                heard.append(shown)  # noqa: PERF401  it ends with an error

        await apply(world, workflow())
        watching = asyncio.create_task(watch())
        await world.settle()
        await end_all(world)
        assert [heard[0].status["steps"], heard[-1].status["phase"]] == ["0/2", "Succeeded"]
        await world.desired.delete(KEY, source=None)
        await world.settle()
        with pytest.raises(NoSuchResource):
            await watching

    play(scenario, world)


def test_a_name_that_is_not_there_is_met_with_what_may_have_been_meant(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world, workflow())
        with pytest.raises(NoSuchResource) as unknown:
            await world.workflows.stop("wff", force=False)
        assert unknown.value.nearest == ("workflow/wf",)
        for name, nearest in (("wf", "workflow/wf"), ("wf-aa", "wf-a")):
            with pytest.raises(Exception, match="no job or run") as missed:
                await world.desired.get(name)
            assert missed.value.nearest[0] == nearest  # type: ignore[attr-defined]
        with pytest.raises(NoSuchResource) as taken:
            await world.desired.get_resource(JobName("workflow/wf-a"))
        assert "wf-a" in taken.value.nearest
        with pytest.raises(NoSuchResource) as other:
            await world.desired.get_resource(JobName("volume/xyz"))
        assert other.value.nearest == ()

    play(scenario, world)

"""What follows from probes: the condition Ready, restarts, and a new run that takes over once it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from jobletd.model import AttemptId, Phase, Reason
from jobletd.probing.prober import Prober
from tests.unit.reconciler.world import World, job, play

PROBE = "restart: Always, probe: {tcp: 80, interval: 10s, startup: 30s"
SERVICE = PROBE + "}"
ROLLING = SERVICE + ", update: {maxUnavailable: 0}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@asynccontextmanager
async def probing(world: World) -> AsyncIterator[Prober]:
    prober = Prober(world.registry, world.executor, world.resources, world.reconciler.nudge)
    task = asyncio.create_task(prober.run())
    try:
        await settle(world, prober)
        yield prober
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settle(world: World, prober: Prober) -> None:
    for _ in range(6):  # each may give the other something to do
        await asyncio.sleep(0)
        await prober.settle()
        await world.settle()


async def advance(world: World, prober: Prober, seconds: float) -> None:
    await world.advance(seconds)
    await settle(world, prober)


async def ready(world: World) -> tuple[str, str, str] | None:
    view = await world.view()
    found = [one for one in view.conditions if one.type == "Ready"]
    return (found[0].status, found[0].reason, found[0].message) if found else None


def live(world: World) -> list[AttemptId]:
    return [launched.request.attempt_id for launched in world.host.live()]


def launched_unwell(world: World) -> None:
    """Whatever is launched from now on is not well."""
    world.host.on_launch = lambda launched: world.host.unwell.update({launched.request.attempt_id: "no"})


def test_a_service_is_ready_once_a_probe_was_well_and_not_after_three_that_were_not(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            launched_unwell(world)
            await world.apply(job(SERVICE))
            await settle(world, prober)
            assert await ready(world) == ("False", "Starting", "no probe was well yet: no")
            (attempt,) = live(world)
            del world.host.unwell[attempt]
            await advance(world, prober, 1)
            run = await world.run()
            assert await ready(world) == ("True", "Probed", f"run {run.id} serves")
            world.host.unwell[attempt] = "port 80: Connection refused"
            for status in ("True", "True", "False"):
                await advance(world, prober, 10)
                assert (await ready(world) or ("",))[0] == status
            assert await ready(world) == ("False", "ProbeFailed", "port 80: Connection refused")
            assert live(world) == [attempt]
            reasons = await world.reasons()
            assert [one for one in reasons if "eady" in one] == ["NotReady", "Ready", "NotReady"]

    play(scenario, world)


def test_a_service_that_is_to_be_restarted_is_stopped_and_started_again(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            launched_unwell(world)
            await world.apply(job(PROBE + ", onFailure: Restart}"))
            await settle(world, prober)
            (first,) = live(world)
            for _ in range(29):
                await advance(world, prober, 1)
            assert live(world) == [first]
            for _ in range(3):
                await advance(world, prober, 1)
            assert live(world) == []
            assert (await world.run()).phase is Phase.SCHEDULED
            assert "ProbeFailed" in await world.reasons()
            await advance(world, prober, 10)
            assert len(live(world)) == 1 and live(world) != [first]

    play(scenario, world)


def test_a_service_of_which_nobody_can_tell_is_not_ready_and_runs_on(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            await world.apply(job(PROBE + ", onFailure: Restart}"))
            await settle(world, prober)
            (first,) = live(world)
            assert (await ready(world) or ("",))[0] == "True"
            world.host.silent = "its node has told nothing"
            for _ in range(6):
                await advance(world, prober, 10)
            assert await ready(world) == ("False", "ProbeFailed", "its node has told nothing")
            assert live(world) == [first]
            world.host.silent = ""
            await advance(world, prober, 10)
            assert (await ready(world) or ("",))[0] == "True"
            assert "ProbeFailed" not in await world.reasons()

    play(scenario, world)


def test_a_service_that_ended_is_not_ready(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            await world.apply(job(SERVICE))
            await settle(world, prober)
            await world.exit(1)
            await settle(world, prober)
            assert await ready(world) == ("False", "NotRunning", "its command does not run")

    play(scenario, world)


def test_a_restart_of_the_daemon_takes_nothing_for_not_ready_that_is(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            await world.apply(job(SERVICE))
            await settle(world, prober)
        await world.restart()
        async with probing(world) as prober:
            await settle(world, prober)
            assert (await ready(world) or ("",))[0] == "True"
            assert "NotReady" not in await world.reasons()

    play(scenario, world)


def test_without_a_probe_there_is_no_condition(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            await world.apply(job(SERVICE))
            await settle(world, prober)
            (attempt,) = live(world)
            await world.apply(job("restart: Always"))
            await settle(world, prober)
            assert live(world) == [attempt] and await ready(world) is None

    play(scenario, world)


def test_a_new_run_takes_over_once_it_is_ready_and_not_before(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            await world.apply(job(ROLLING))
            await settle(world, prober)
            (old,) = live(world)
            launched_unwell(world)
            result = await world.apply(job(ROLLING, command="[sleep, '2']"))
            assert result.consequence == "starts a new run, and stops the current one once that is ready"
            await advance(world, prober, 5)
            _, new = live(world)
            runs = (await world.view()).runs
            assert (await ready(world) or ("", "", ""))[
                2
            ] == f"run {runs[1].id} serves; run {runs[0].id} is not ready yet"
            del world.host.unwell[new]
            await advance(world, prober, 1)
            assert live(world) == [new]
            history = await world.history()
            assert [(run.phase, run.reason) for run in history] == [
                (Phase.RUNNING, None),
                (Phase.STOPPED, Reason.SUPERSEDED),
            ]
            assert history[1].attempts[-1].id == old
            assert "Relieved" in await world.reasons()

    play(scenario, world)


def test_a_new_run_that_fails_leaves_the_old_one_serving_and_a_further_change_replaces_it(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            await world.apply(job(ROLLING))
            await settle(world, prober)
            (old,) = live(world)
            launched_unwell(world)
            await world.apply(job(ROLLING, command="[sleep, '2']"))
            await settle(world, prober)
            broken = live(world)[1]
            await world.exit(1, broken)
            await settle(world, prober)
            assert live(world) == [old] and (await world.run()).phase is Phase.SCHEDULED
            world.host.on_launch = None
            await world.apply(job(ROLLING, command="[sleep, '3']"))
            await settle(world, prober)
            (new,) = live(world)
            assert new not in (old, broken)
            assert [run.phase for run in await world.history()] == [Phase.RUNNING, Phase.STOPPED, Phase.STOPPED]

    play(scenario, world)


def test_a_change_under_way_goes_on_after_a_restart_of_the_daemon(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            await world.apply(job(ROLLING))
            await settle(world, prober)
            launched_unwell(world)
            await world.apply(job(ROLLING, command="[sleep, '2']"))
            await settle(world, prober)
        assert len(live(world)) == 2
        await world.restart()
        world.host.unwell.clear()
        async with probing(world) as prober:
            await settle(world, prober)
            assert len(live(world)) == 1
            assert (await world.run()).phase is Phase.RUNNING

    play(scenario, world)


def test_what_serves_until_the_new_one_is_ready_is_stopped_and_deleted_with_it(world: World) -> None:
    async def scenario(world: World) -> None:
        async with probing(world) as prober:
            await world.apply(job(ROLLING))
            await settle(world, prober)
            launched_unwell(world)
            await world.apply(job(ROLLING, command="[sleep, '2']"))
            await settle(world, prober)
            assert len(live(world)) == 2
            await world.delete()
            await settle(world, prober)
            assert live(world) == [] and not world.registry.views

    play(scenario, world)

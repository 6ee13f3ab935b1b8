"""Cordon and drain: nothing is launched, what runs goes on to its end, and both outlive the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jobletd.errors import WrongState
from jobletd.maintenance import EXIT_SECONDS, LOOK_SECONDS, DrainProgress
from jobletd.model import Phase, Reason
from tests.unit.reconciler.world import World, job, play


def started(world: World) -> list[str]:
    return [launch.manifest.metadata.name for launch in world.host.launches]


async def drained(world: World, seen: list[DrainProgress], *, stay: bool = False) -> None:
    async for progress in world.maintenance.drain("anna", "new disk", stay=stay):
        seen += (progress,)


async def draining(world: World, seen: list[DrainProgress]) -> asyncio.Task[None]:
    """A drain that has begun to wait."""
    task = asyncio.create_task(drained(world, seen))
    while not seen:
        await asyncio.sleep(0)
    return task


def test_a_cordoned_host_launches_nothing_and_what_waits_says_why(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, initial: 1s}", name="before"))
        await world.maintenance.cordon("anna", "new disk")
        await world.apply(job(name="after"))
        run = await world.run("after")
        assert (run.phase, run.reason, run.queue_position) == (Phase.PENDING, Reason.CORDONED, 1)
        assert run.message == "anna cordoned this host: new disk; rnx uncordon lets it launch again"
        progressing = next(one for one in (await world.view("after")).conditions if one.type == "Progressing")
        assert (progressing.reason, progressing.message) == ("Cordoned", run.message)
        assert (await world.run("before")).phase is Phase.RUNNING
        await world.exit(1)
        await world.advance(5)
        assert (await world.run("before")).reason is Reason.CORDONED, "a retry is a launch too"
        assert await world.maintenance.uncordon("bert")
        await world.settle()
        assert sorted(started(world)) == ["after", "before", "before"]
        assert [event.message for event in await world.events("") if not event.job] == ["by anna: new disk", "by bert"]
        assert not await world.maintenance.uncordon("bert")

    play(scenario, world)


def test_a_cordon_outlives_the_daemon(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("restart: Always", name="running"))
        await world.maintenance.cordon("anna", "")
        await world.apply(job(name="waiting"))
        await world.restart()
        assert world.registry.cordon is not None
        assert (world.registry.cordon.by, started(world)) == ("anna", ["running"])
        assert (await world.run("waiting")).reason is Reason.CORDONED
        await world.maintenance.uncordon("anna")
        await world.settle()
        assert started(world) == ["running", "waiting"]

    play(scenario, world)


def test_a_place_that_was_kept_when_the_cordon_came_is_not_used(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.apply(job(name="second"))
        world.host.exit(world.live_attempt())  # the daemon has not looked yet
        await world.maintenance.cordon("anna", "")
        await world.settle()
        assert started(world) == ["first"]
        assert world.reconciler.running == 0

    play(scenario, World(tmp_path, max_concurrent=1))


def test_a_drain_waits_for_jobs_then_stops_services_then_ends_the_daemon(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("restart: Always", name="service"))
        await world.apply(job(name="once"))
        seen: list[DrainProgress] = []
        drain = await draining(world, seen)
        assert seen == [DrainProgress(2, 0, ("service", "once"))]  # type: ignore[arg-type]
        await world.exit(0, next(a for a in world.host.attempts if a.startswith("once-")))
        while not drain.done():
            await world.advance(LOOK_SECONDS)
        assert seen[-1] == DrainProgress(0, 1, done=True)
        await world.advance(EXIT_SECONDS)
        assert world.exited
        assert (await world.run("once")).phase is Phase.COMPLETED
        assert (await world.run("service")).reason is Reason.CORDONED
        await world.restart()
        assert started(world) == ["service", "once"]
        await world.maintenance.uncordon("anna")
        await world.settle()
        assert started(world) == ["service", "once", "service"]
        assert len((await world.run("service")).attempts) == 2

    play(scenario, world)


def test_a_drained_daemon_may_stay(world: World) -> None:
    async def scenario(world: World) -> None:
        await drained(world, [], stay=True)
        await world.advance(EXIT_SECONDS)
        assert not world.exited
        assert world.registry.cordon is not None

    play(scenario, world)


def test_who_stops_waiting_leaves_the_host_cordoned_and_what_runs_alone(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        drain = await draining(world, [])
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)
        await world.exit(0)
        await world.advance(60)
        assert not world.exited
        assert world.registry.cordon is not None

    play(scenario, world)


def test_a_drain_ends_when_somebody_lifts_the_cordon(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        drain = await draining(world, [])
        await world.maintenance.uncordon("bert")
        await world.advance(LOOK_SECONDS)
        with pytest.raises(WrongState, match="uncordoned meanwhile"):
            await drain
        assert not world.exited

    play(scenario, world)

"""A host without room starts nothing, fails nothing, and goes on by itself in the order that was."""

from __future__ import annotations

from pathlib import Path

from jobletd.model import Phase
from jobletd.reconciler import ROOM_SECONDS
from tests.unit.reconciler.world import World, job, play


def test_nothing_is_started_without_room_and_all_is_once_there_is(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.no_room = "the disk is full"
        for name in ("a", "b"):
            await world.apply(job(name=name))
        assert not world.host.launches
        assert (await world.run("a")).phase is Phase.PENDING
        await world.advance(10 * ROOM_SECONDS)
        assert not world.host.launches
        world.no_room = ""
        await world.advance(ROOM_SECONDS)
        assert len(world.host.live()) == 2

    play(scenario, World(tmp_path))


def test_the_order_of_those_who_wait_for_a_place_stays(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.no_room = "the disk is full"
        for name in ("b", "a", "c"):
            world.clock.now_ns += 1
            await world.apply(job(name=name))
        world.no_room = ""
        for name in ("b", "a", "c"):
            await world.advance(ROOM_SECONDS)
            assert world.live_attempt().startswith(name)
            await world.exit()

    play(scenario, World(tmp_path, max_concurrent=1))


def test_a_job_can_be_stopped_and_deleted_meanwhile(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.no_room = "the disk is full"
        await world.apply(job())
        await world.stop()
        assert (await world.run()).phase is Phase.STOPPED
        await world.delete()
        assert not world.registry.views

    play(scenario, World(tmp_path))

"""An init that ends before its command was started: its attempt is handed over again, at once and then later each time."""

from __future__ import annotations

from pathlib import Path

from jobletd.model import Phase
from jobletd.relaunches import FIRST_SECONDS, LONGEST_SECONDS
from tests.unit.reconciler.world import World, job, play


def lose_init(world: World) -> None:
    """As if nothing had ever come of its launch."""
    attempt = world.live_attempt()
    world.host.attempts.pop(attempt)
    world.host.launches.clear()
    world.host.nudge(attempt)


def test_the_pause_before_each_launch_is_longer_than_the_one_before(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.host.starts_at_once = False
        await world.apply(job())
        lose_init(world)
        await world.settle()
        assert len(world.host.launches) == 1  # the first time at once
        pause = FIRST_SECONDS
        for _ in range(5):
            lose_init(world)
            await world.settle()
            assert world.host.launches == []
            await world.advance(pause * 0.9)
            assert world.host.launches == []
            await world.advance(pause * 0.2)
            assert len(world.host.launches) == 1
            pause *= 2
        assert (await world.run()).phase is Phase.INITIALIZING
        assert "Relaunched" in await world.reasons()

    play(scenario, World(tmp_path))


def test_the_pause_is_bounded_and_begins_anew_once_the_command_runs(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.host.starts_at_once = False
        await world.apply(job())
        for _ in range(20):
            lose_init(world)
            await world.advance(LONGEST_SECONDS)
            assert len(world.host.launches) == 1
        world.host.start(world.live_attempt())
        await world.settle()
        lose_init(world)
        await world.settle()
        assert len(world.host.launches) == 1

    play(scenario, World(tmp_path))


def test_a_stop_does_not_wait_for_the_pause(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.host.starts_at_once = False
        await world.apply(job())
        for _ in range(12):
            lose_init(world)
            await world.advance(LONGEST_SECONDS)
        lose_init(world)
        await world.settle()
        await world.stop()
        await world.settle()
        assert (await world.run()).phase is Phase.STOPPED

    play(scenario, World(tmp_path))

"""The wall clock may say anything: timers do not listen to it, and what is on record stays in its order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from joblet.clock import BootTime, Moment
from jobletd.model import Phase, Reason
from tests.unit.reconciler.world import World, job, play

DAY = 86_400.0
JUMPS = pytest.mark.parametrize("jump", [DAY, -DAY, 3600.0, -3600.0, 7.0, -7.0])


WITH_AND_WITHOUT_RESTART = pytest.mark.parametrize("restarted", [False, True], ids=["same daemon", "next daemon"])


@JUMPS
@WITH_AND_WITHOUT_RESTART
def test_the_pause_before_a_retry_is_as_long_whatever_the_wall_clock_does(
    world: World, jump: float, restarted: bool
) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, initial: 10s, max: 24h}"))
        await world.exit(1)
        await world.advance(4)
        if restarted:
            await world.crash()
        world.clock.set_wall(jump)
        if restarted:
            await world.boot()
            await world.settle()
        await world.advance(5.9)
        assert len(world.host.launches) == 1
        await world.advance(0.1)
        assert len(world.host.launches) == 2

    play(scenario, world)


@JUMPS
@WITH_AND_WITHOUT_RESTART
def test_the_time_limit_is_as_long_whatever_the_wall_clock_does(world: World, jump: float, restarted: bool) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("timeout: 100s, retry: {limit: 9, initial: 10s, max: 10s}"))
        await world.advance(60)
        if restarted:
            await world.crash()
        world.clock.set_wall(jump)
        if restarted:
            await world.boot()
            await world.settle()
        await world.exit(1)
        await world.advance(10)
        assert world.host.launches[-1].deadline_seconds == pytest.approx(30)
        world.clock.set_wall(-jump)
        await world.advance(25)
        await world.exit(1)
        await world.advance(5)
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.TIMED_OUT)

    play(scenario, world)


@JUMPS
def test_an_end_that_nobody_saw_pauses_no_longer_than_it_is_to(world: World, jump: float) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, initial: 10s, max: 24h}"))
        live = world.live_attempt()
        await world.crash()
        world.host.exit(live, 1)
        world.clock.pass_time(2)
        world.clock.set_wall(jump)
        await world.boot()
        await world.settle()
        await world.advance(10)
        assert len(world.host.launches) == 2

    play(scenario, world)


@pytest.mark.parametrize(
    ("wrong", "waits"),
    [(0.0, True), (DAY, False), (-DAY, False)],
    ids=["right", "a day ahead", "a day behind"],
)
def test_after_a_reboot_the_wall_clock_alone_tells_and_a_wrong_one_delays_nothing(
    world: World, wrong: float, waits: bool
) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, initial: 10s, max: 10s}"))
        await world.exit(1)
        await world.crash()
        world.host.reboot()
        world.clock.set_wall(wrong)
        await world.boot()
        await world.settle()
        assert len(world.host.launches) == (1 if waits else 2)
        await world.advance(10)
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_a_clock_behind_at_boot_gives_a_run_no_more_than_its_whole_time_again(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("timeout: 100s, retry: {limit: 1, initial: 1s, max: 1s}"))
        await world.crash()
        world.host.reboot()
        world.clock.set_wall(-DAY)
        await world.boot()
        await world.settle()
        await world.advance(1)
        assert world.host.launches[-1].deadline_seconds == pytest.approx(100)

    play(scenario, world)


@JUMPS
def test_the_latest_run_is_the_one_made_last_whatever_the_wall_clock_said(world: World, jump: float) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("env: {N: '1'}"))
        await world.exit(0)
        world.clock.set_wall(jump)
        result = await world.apply(job("env: {N: '2'}"))
        await world.exit(3)
        before = [run.id for run in (await world.desired.get("job", history=True)).runs]
        assert before[0] == result.run_id
        await world.restart()
        assert (await world.run()).id == result.run_id
        assert [run.id for run in (await world.desired.get("job", history=True)).runs] == before

    play(scenario, world)


@pytest.mark.parametrize(
    ("recorded", "passed"),
    [
        (lambda now: (now.wall_ns - 5, now.boot.plus(-3)), 3),
        (lambda now: (now.wall_ns + 5, now.boot.plus(-3)), 3),
        (lambda now: (now.wall_ns - 5, None), 5),
        (lambda now: (now.wall_ns + 5, None), 0),
        (lambda now: (now.wall_ns - 5, BootTime("other", 1)), 5),
        (lambda now: (now.wall_ns - 5, now.boot.plus(3)), 0),
    ],
)
def test_how_long_ago_something_was(recorded: Callable[[Moment], tuple[int, BootTime | None]], passed: int) -> None:
    now = Moment(1_000, BootTime("this", 100))
    assert now.since_ns(*recorded(now)) == passed


def test_a_time_since_boot_is_written_and_read() -> None:
    moment = BootTime("c0ffee-0", 123)
    assert BootTime.parse(str(moment)) == moment

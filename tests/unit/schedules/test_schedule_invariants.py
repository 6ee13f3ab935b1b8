"""Whatever clocks, people, commands and power cuts do, in any order: at most one run for each tick, and no schedule stalls."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobletd.errors import WrongState
from jobletd.model import JobName
from jobletd.schedules.due import BEHIND_SECONDS, SECOND_NS
from tests.unit.reconciler.world import Fuse, World, job, run_loop
from tests.unit.schedules.passing import end_all, outage, set_clock, ticks

PERIOD_SECONDS = 600
SPECS = tuple(
    job(f"schedule: {{{when}, overlap: {overlap}, missed: {missed}}}, history: {{keep: 1000}}")
    for when, overlap, missed in (
        ("every: 10m", "Forbid", "once"),
        ("every: 10m, jitter: 9m", "Queue", "all"),
        ("cron: '*/10 * * * *', timezone: Australia/Lord_Howe", "Replace", "skip"),
        ("cron: '*/10 * * * *'", "Allow", "all, missedLimit: 3"),
        ("every: 10m, suspend: true", "Forbid", "all"),
    )
)
operations = st.one_of(
    st.tuples(st.just("apply"), st.sampled_from(SPECS)),
    st.tuples(st.just("pass"), st.sampled_from((1, 60, 599, 601, 3000))),
    st.tuples(st.just("jump"), st.sampled_from((-7200, -601, -30, 30, 601, 90_000))),
    st.tuples(st.just("exit"), st.sampled_from((0, 1))),
    st.tuples(st.just("trigger"), st.booleans()),
    st.tuples(st.just("stop")),
    st.tuples(st.just("stubborn"), st.booleans()),
    st.tuples(st.just("crash"), st.integers(0, 8), st.sampled_from((0, 601, 7200))),
    st.tuples(st.just("reboot"), st.sampled_from((5, 601))),
)


async def do(world: World, operation: tuple[object, ...]) -> None:
    match operation:
        case ("apply", str(text)):
            await world.apply(text)
        case ("pass", int(seconds)):
            await world.advance(seconds)
        case ("jump", int(seconds)):
            world.clock.set_wall(seconds)
        case ("exit", int(code)):
            for launched in world.host.live()[:1]:
                await world.exit(code, launched.request.attempt_id)
        case ("trigger", bool(force)):
            with suppress(WrongState):
                await world.desired.trigger(JobName("job"), force=force)
        case ("stop",):
            with suppress(WrongState):
                await world.stop()
        case _:
            await do_to_the_host(world, operation)
    await world.settle()


async def do_to_the_host(world: World, operation: tuple[object, ...]) -> None:
    match operation:
        case ("stubborn", bool(ignores)):
            world.host.ignores_stop = ignores
        case ("crash", int(steps), int(seconds)):
            world.fuse.at = len(world.fuse.steps) + steps
            await world.advance(seconds)
            await world.crash()
            await world.boot(Fuse())
        case ("reboot", int(seconds)):
            await outage(world, seconds, reboot=True)


def falls_too_far_behind(world: World, operation: tuple[object, ...], furthest_ns: int) -> bool:
    """A clock that is behind by more than is waited for is believed, and ticks may come again (decision 0041)."""
    match operation:
        case ("jump", int(seconds)):
            return furthest_ns - world.clock.now_ns - seconds * SECOND_NS > BEHIND_SECONDS * SECOND_NS
        case _:
            return False


async def check(world: World) -> None:
    found = Counter(await ticks(world))
    assert [tick for tick, count in found.items() if count > 1] == []
    attempts = Counter(launch.attempt_id for launch in world.host.launches)
    assert set(attempts.values()) <= {1}


async def check_that_it_goes_on(world: World) -> None:
    """Whatever was done to it, after the time that a clock may be behind the next ticks come as ever."""
    world.host.ignores_stop = False
    await world.apply(SPECS[0])
    for _ in range(32):
        await world.advance(PERIOD_SECONDS)
        await end_all(world)
    before = len(await ticks(world))
    for _ in range(3):
        await world.advance(PERIOD_SECONDS)
        await end_all(world)
    assert len(await ticks(world)) == before + 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operations, max_size=20))
@example([("apply", SPECS[2]), ("reboot", 601), ("jump", -7200), ("jump", -7200)])
def test_each_tick_has_at_most_one_run_and_no_schedule_stalls(sequence: list[tuple[object, ...]]) -> None:
    async def whole(world: World) -> None:
        world.host.may_overlap = True
        set_clock(world, "2026-10-03T10:00")
        await world.boot()
        await world.apply(SPECS[0])
        furthest_ns = world.clock.now_ns
        for operation in sequence:
            if not falls_too_far_behind(world, operation, furthest_ns):
                await do(world, operation)
            furthest_ns = max(furthest_ns, world.clock.now_ns)
        await check(world)
        await check_that_it_goes_on(world)
        await check(world)
        await world.crash()

    with tempfile.TemporaryDirectory() as directory:
        run_loop(whole(World(Path(directory))))


@pytest.mark.parametrize("overlap", ["Forbid", "Replace", "Queue", "Allow"])
def test_a_daemon_may_die_at_any_step_of_a_tick(tmp_path: Path, overlap: str) -> None:
    """Each step in turn: what follows is one run for each tick, and one launch for each run."""

    async def whole(world: World, at: int | None) -> int:
        world.host.may_overlap = overlap == "Allow"
        set_clock(world, "2026-06-01T10:55")
        await world.boot()
        await world.apply(job(f'schedule: {{cron: "0 * * * *", overlap: {overlap}, missed: all}}'))
        begun = len(world.fuse.steps)
        if at is not None:
            world.fuse.at = begun + at
        await world.advance(300)
        await world.advance(3600)  # the second tick finds the first run
        steps = len(world.fuse.steps) - begun
        await world.crash()
        await world.boot(Fuse())
        await world.settle()
        await world.advance(60)
        for _ in range(3):
            await end_all(world)
        expected = ["2026-06-01T11:00", "2026-06-01T12:00"]
        found = await ticks(world)
        assert found == expected or (overlap in ("Forbid", "Replace") and found in ([expected[0]], [expected[1]]))
        launched = [launch.run_id for launch in world.host.launches]
        assert len(launched) == len(set(launched))
        if overlap in ("Queue", "Allow"):  # the others pass over runs, or stop them before their launch
            assert set(launched) == {run.id for run in await world.history()}
        assert world.host.broken_promises == []
        await world.crash()
        return steps

    def play_once(at: int | None) -> int:
        directory = tmp_path / f"at-{at}"
        directory.mkdir()
        return run_loop(asyncio.wait_for(whole(World(directory), at), None))

    steps = play_once(None)
    assert steps >= 8
    for at in range(steps):
        play_once(at)

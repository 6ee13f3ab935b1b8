"""The daemon's own shutdown: what it stops is on record, and goes on afterwards as its policy says."""

from __future__ import annotations

import asyncio

import pytest

from jobletd.model import AttemptId, Exited, Phase, Reason
from jobletd.reconciler import UNRECORDED_SECONDS
from jobletd.store import StoreError
from tests.unit.reconciler.world import World, job, play


def attempt_of(world: World, name: str) -> AttemptId:
    return next(attempt for attempt in world.host.attempts if attempt.rsplit("-", 2)[0] == name)


def test_a_shutdown_stops_what_runs_and_leaves_what_waits(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="once"))
        await world.apply(job(name="waiting", spec="retry: {limit: 1}"))
        world.host.exit(attempt_of(world, "waiting"), 1)
        await world.settle()
        await world.reconciler.stop_all()
        assert world.host.live() == []
        once = await world.run("once")
        assert (once.phase, once.reason) == (Phase.STOPPED, Reason.SHUTDOWN)
        await world.restart()
        assert (await world.run("once")).phase is Phase.STOPPED, "nobody said that it may run twice"
        assert (await world.run("waiting")).reason is Reason.BACK_OFF
        assert world.host.live() == []

    play(scenario, world)


@pytest.mark.parametrize("policy", ["restart: Always", "restart: OnFailure", "retry: {limit: 1}"])
def test_what_its_policy_lets_go_on_has_another_attempt_of_the_same_run_at_the_next_start(
    world: World, policy: str
) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(policy))
        first = await world.run()
        await world.reconciler.stop_all()
        stopped = await world.run()
        assert (stopped.phase, stopped.reason, stopped.attempts[0].phase) == (
            Phase.SCHEDULED,
            Reason.SHUTDOWN,
            Phase.STOPPED,
        )
        assert "Interrupted" in await world.reasons()
        await world.restart()
        again = await world.run()
        assert (again.id, again.phase, len(again.attempts)) == (first.id, Phase.RUNNING, 2)

    play(scenario, world)


def test_a_shutdown_does_not_wait_for_room_on_a_full_disk(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        world.host.ignores_stop = True
        stopping = asyncio.ensure_future(world.reconciler.stop_all())
        await world.settle()
        world.store.is_full = True
        await world.advance(2 * UNRECORDED_SECONDS)
        assert not stopping.done()  # its grace is not over
        world.host.end(world.live_attempt(), Exited(143), Reason.STOPPED)
        await world.settle()
        assert not stopping.done()
        await world.advance(UNRECORDED_SECONDS)
        with pytest.raises(StoreError, match="how 1 runs ended cannot be recorded"):
            await stopping
        world.store.is_full = False
        await world.restart()
        ended = await world.run()
        assert (ended.phase, ended.reason, len(ended.attempts)) == (Phase.STOPPED, Reason.SHUTDOWN, 1)

    play(scenario, world)


def test_codes_that_forbid_a_retry_are_not_those_of_a_command_that_was_told_to_end(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, neverOnExitCodes: [143]}"))
        world.host.ignores_stop = True
        stopping = asyncio.ensure_future(world.reconciler.stop_all())
        await world.settle()
        world.host.end(world.live_attempt(), Exited(143), Reason.STOPPED)
        await stopping
        await world.restart()
        assert (await world.run()).phase is Phase.RUNNING

    play(scenario, world)


def test_who_ends_well_while_being_stopped_is_done(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1}"))
        world.host.ignores_stop = True
        stopping = asyncio.ensure_future(world.reconciler.stop_all())
        await world.settle()
        await world.exit(0)
        await stopping
        await world.restart()
        assert (await world.run()).phase is Phase.COMPLETED
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_a_daemon_that_dies_in_the_middle_of_its_shutdown_has_forgotten_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("restart: Always"))
        world.host.ignores_stop = True
        stopping = asyncio.ensure_future(world.reconciler.stop_all())
        await world.settle()
        await world.restart()
        assert stopping.cancelled()
        world.host.ignores_stop = False
        await world.exit(1)
        assert (await world.run()).phase is Phase.RUNNING
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_told_again_it_kills_who_makes_use_of_its_grace(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        world.host.ignores_stop = True
        stopping = asyncio.ensure_future(world.reconciler.stop_all())
        await world.settle()
        assert not stopping.done()
        await world.reconciler.hurry()
        await stopping
        assert world.host.live() == []

    play(scenario, world)


@pytest.mark.parametrize("end", ["stop", "delete", "replace"])
def test_a_person_has_the_last_word_over_what_a_shutdown_would_let_go_on(world: World, end: str) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("restart: Always"))
        world.host.ignores_stop = True
        await world.reconciler.stop_runs(lambda _: True)
        await world.settle()
        match end:
            case "stop":
                await world.stop()
            case "delete":
                await world.delete()
            case "replace":
                await world.apply(job("restart: Always", command="[sleep, '2']"))
        await world.exit(143)
        commands = [launched.request.manifest.spec.command for launched in world.host.live()]
        assert commands == ([("sleep", "2")] if end == "replace" else [])

    play(scenario, world)

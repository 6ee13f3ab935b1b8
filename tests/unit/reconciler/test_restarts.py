"""The daemon dies at every step it takes, and its successor brings the same end about without running anything twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jobletd.model import AttemptId, Exited, JobName, Phase, Reason, Unknown
from tests.unit.reconciler.world import CLIENT, Fuse, World, job, manifests, play, run_loop

RETRIED = job("retry: {limit: 2, initial: 10s}")


async def apply(world: World, text: str) -> None:
    await world.until_dead(world.desired.apply(manifests(text), CLIENT))


async def runs_and_completes(world: World) -> None:
    await apply(world, job())
    for launched in world.host.live():
        world.host.exit(launched.request.attempt_id, 0)
    await world.settle()


async def fails_and_waits(world: World) -> None:
    await apply(world, RETRIED)
    for launched in world.host.live():
        world.host.exit(launched.request.attempt_id, 1)
    await world.settle()


async def is_replaced(world: World) -> None:
    await apply(world, job(command="[sleep, '0']"))
    await apply(world, job())


async def is_changed_in_place(world: World) -> None:
    await apply(world, job("limits: {memory: 1Mi}"))
    await apply(world, job("limits: {memory: 64Mi}"))


async def is_stopped(world: World) -> None:
    await apply(world, job())
    if not world.fuse.blown.is_set():
        await world.until_dead(world.desired.stop("job", force=False))


async def is_deleted(world: World) -> None:
    await apply(world, job())
    if not world.fuse.blown.is_set():
        await world.until_dead(world.desired.delete(JobName("job"), source=CLIENT))


Scenario = Callable[[World], Awaitable[None]]
SCENARIOS: list[Scenario] = [
    runs_and_completes,
    fails_and_waits,
    is_replaced,
    is_changed_in_place,
    is_stopped,
    is_deleted,
]


def steps_of(scenario: Scenario, directory: Path) -> int:
    async def count() -> int:
        world = World(directory)
        await world.boot()
        await scenario(world)
        steps = len(world.fuse.steps)
        await world.crash()
        return steps

    return run_loop(count())


async def finish(world: World) -> None:
    """Let everything come to its end, well."""
    if JobName("job") not in await world.desired.owners():
        return
    for _ in range(5):
        await world.advance(60)
        for launched in world.host.live():
            world.host.exit(launched.request.attempt_id, 0)
        await world.settle()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_death_at_any_step_runs_nothing_twice_and_loses_nothing(scenario: Scenario, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    steps = steps_of(scenario, tmp_path / "whole")
    assert steps >= 8

    async def die_at(step: int) -> None:
        directory = tmp_path / str(step)
        directory.mkdir()
        world = World(directory)
        await world.boot(Fuse(at=step))
        await scenario(world)
        assert world.fuse.blown.is_set(), f"step {step} was never reached"
        recorded = "after write" in world.fuse.steps  # the first write is the apply's
        await world.crash()
        await world.boot()
        await world.settle()
        await finish(world)
        assert world.host.broken_promises == []
        assert world.host.live() == []
        ids = [launch.attempt_id for launch in world.host.launches]
        assert len(ids) == len(set(ids))
        attempts = await world.all_attempts()
        assert {attempt.id for attempt in attempts} == set(ids), (
            "an attempt without a launch, or a launch without a record"
        )
        assert all(attempt.end is not None for attempt in attempts)
        assert sorted(world.host.forgotten + world.host.pruned) == sorted({*world.host.forgotten, *world.host.pruned})
        assert world.host.attempts == {}
        for view in world.registry.views.values():
            assert all(run.phase.is_final for run in view.runs)
            assert view.observed_generation == view.generation
        if recorded and scenario is not is_deleted:
            ends = {Phase.COMPLETED, Phase.STOPPED} if scenario is is_stopped else {Phase.COMPLETED}
            assert (await world.run()).phase in ends, "what was on record was not brought to its end"
        await world.crash()

    for step in range(steps):
        run_loop(die_at(step))


def test_a_running_job_is_adopted_and_its_end_recorded(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        attempt = world.live_attempt()
        await world.crash()
        world.host.exit(attempt, 4)  # while no daemon looks
        await world.boot()
        await world.settle()
        run = await world.run()
        assert (run.phase, run.outcome) == (Phase.FAILED, Exited(4))
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_the_pause_before_a_retry_survives_a_restart(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(RETRIED)
        await world.exit(1)
        await world.advance(4)
        await world.restart()
        await world.advance(5.9)
        assert len(world.host.launches) == 1
        await world.advance(0.1)
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_the_time_limit_goes_on_while_no_daemon_runs(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("timeout: 60s, retry: {limit: 2, initial: 10s}"))
        await world.exit(1)
        await world.crash()
        world.clock.pass_time(60)
        await world.boot()
        await world.settle()
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.TIMED_OUT)

    play(scenario, world)


@pytest.mark.parametrize(
    ("spec", "phase"),
    [
        ("", Phase.FAILED),
        ("retry: {limit: 1}", Phase.SCHEDULED),
        ("retry: {limit: 1, onExitCodes: [75]}", Phase.FAILED),
        ("restart: OnFailure, retry: {onExitCodes: [75]}", Phase.SCHEDULED),
    ],
)
def test_a_reboot_ends_what_ran_and_the_retry_rules_decide(world: World, spec: str, phase: Phase) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(spec))
        await world.crash()
        world.host.reboot()
        await world.boot()
        await world.settle()
        run = await world.run()
        assert run.phase is phase
        (attempt,) = run.attempts
        assert attempt.end is not None
        assert attempt.end.reason is Reason.NODE_REBOOT and isinstance(attempt.end.outcome, Unknown)

    play(scenario, world)


def test_an_intent_from_before_a_reboot_is_not_launched_again(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.crash()
        await world.boot(Fuse(at=4))  # before, after the apply; before, after the intent; before the launch
        await apply(world, job("retry: {limit: 1}"))
        assert world.fuse.steps[-1] == "before submit"
        await world.crash()
        world.host.reboot()
        await world.boot()
        await world.settle()
        run = await world.run()
        assert (run.phase, run.reason, world.host.launches) == (Phase.SCHEDULED, Reason.BACK_OFF, [])
        (attempt,) = run.attempts
        assert attempt.end is not None and attempt.end.reason is Reason.NODE_REBOOT
        await world.advance(10)
        assert [launch.number for launch in world.host.launches] == [2]

    play(scenario, world)


def test_what_belongs_to_nothing_on_record_is_freed_at_the_start(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        await world.crash()
        stray = next(iter(world.host.attempts.values()))
        world.host.attempts[AttemptId("other-abcdefgh-1")] = stray
        await world.boot()
        await world.settle()
        assert world.host.pruned == ["other-abcdefgh-1"]
        assert (await world.run()).phase is Phase.RUNNING

    play(scenario, world)

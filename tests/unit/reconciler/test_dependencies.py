"""dependsOn: a run waits for what other jobs' latest runs come to, and ends if they come to something else."""

from __future__ import annotations

import asyncio

import pytest

from joblet.manifest import find_cycle
from jobletd.dependencies import DependencyCycle
from jobletd.model import JobName, Phase, Reason
from tests.unit.reconciler.world import CLIENT, World, job, manifests, play

AFTER = "dependsOn: [{job: first}]"


def second(outcome: str = "Succeeded", more: str = "") -> str:
    return job(f"dependsOn: [{{job: first, outcome: {outcome}}}]{more}", name="second")


@pytest.mark.parametrize(
    ("outcome", "code", "runs"),
    [
        ("Succeeded", 0, True),
        ("Succeeded", 1, False),
        ("Failed", 1, True),
        ("Failed", 0, False),
        ("Finished", 0, True),
        ("Finished", 1, True),
    ],
)
def test_a_run_starts_when_the_other_job_ended_as_it_should(world: World, outcome: str, code: int, runs: bool) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.apply(second(outcome))
        waiting = await world.run("second")
        first = await world.run("first")
        assert (waiting.phase, waiting.reason) == (Phase.PENDING, Reason.WAITING)
        assert waiting.message == f"job first has not ended yet: its run {first.id} is RUNNING"
        await world.exit(code)
        run = await world.run("second")
        if runs:
            assert run.phase is Phase.RUNNING
        else:
            assert (run.phase, run.reason, run.attempts) == (Phase.FAILED, Reason.DEPENDENCY_FAILED, ())
            assert f"run {first.id} ended as" in run.message

    play(scenario, world)


def test_a_job_that_does_not_exist_is_waited_for_and_said_so(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(second())
        (condition,) = [one for one in (await world.view("second")).conditions if one.type == "Progressing"]
        assert (condition.status, condition.reason) == ("True", "Waiting")
        assert condition.message == "job first does not exist; apply a manifest of it"
        await world.apply(job(name="first"))
        assert len(world.host.launches) == 1
        await world.exit(0)
        assert (await world.run("second")).phase is Phase.RUNNING

    play(scenario, world)


def test_it_waits_for_the_run_of_what_is_declared_now(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.exit(0)
        await world.apply(job(name="first", command="[sleep, '2']"))
        await world.apply(second())
        assert (await world.run("second")).phase is Phase.PENDING
        await world.exit(0)
        assert (await world.run("second")).phase is Phase.RUNNING

    play(scenario, world)


def test_a_failed_dependency_does_not_hold_back_a_retry_of_what_has_begun(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.exit(0)
        await world.apply(second(more=", retry: {limit: 1, initial: 1s}"))
        await world.apply(job(name="first", command="[sleep, '2']"))
        second_run = await world.run("second")
        await world.exit(1, (await world.run("first")).attempts[-1].id)
        assert (await world.run("first")).phase is Phase.FAILED
        await world.exit(1, second_run.attempts[-1].id)
        await world.advance(1)
        assert len((await world.run("second")).attempts) == 2

    play(scenario, world)


def test_a_dependency_that_is_deleted_or_suspended_is_waited_for_until_it_runs_again(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.apply(second())
        await world.delete("first")
        assert (await world.run("second")).message == "job first does not exist; apply a manifest of it"
        await world.apply(job("suspend: true", name="first"))
        assert (await world.run("second")).message == "job first is suspended"
        await world.apply(job(name="first"))
        await world.exit(0)
        assert (await world.run("second")).phase is Phase.RUNNING

    play(scenario, world)


def test_who_waits_goes_on_waiting_after_a_restart(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.apply(second())
        await world.restart()
        assert (await world.run("second")).reason is Reason.WAITING
        await world.exit(0)
        assert (await world.run("second")).phase is Phase.RUNNING

    play(scenario, world)


def test_who_waits_holds_no_place(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(second())
        await world.apply(job(name="first"))
        assert (await world.run("first")).phase is Phase.RUNNING

    world.max_concurrent = 1
    play(scenario, world)


def test_a_changed_dependency_counts_for_the_run_that_waits_and_restarts_none(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(second())
        waiting = await world.run("second")
        result = await world.apply(job(name="second"))
        run = await world.run("second")
        assert (run.id, run.phase) == (waiting.id, Phase.RUNNING) and result.generation == 2
        await world.apply(second())
        assert (await world.run("second")).id == waiting.id and len(world.host.live()) == 1

    play(scenario, world)


def test_a_run_that_its_dependency_failed_runs_anew_when_that_is_changed(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.apply(second())
        await world.exit(1)
        assert (await world.run("second")).reason is Reason.DEPENDENCY_FAILED
        await world.apply(second("Finished"))
        assert (await world.run("second")).phase is Phase.RUNNING

    play(scenario, world)


def test_a_cycle_is_refused_with_its_members_and_nothing_of_it_is_declared(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("dependsOn: [{job: c}]", name="b"))
        both = manifests(f"{job('dependsOn: [{job: b}]', name='a')}---\n{job('dependsOn: [{job: a}]', name='c')}")
        for dry_run in (True, False):
            with pytest.raises(DependencyCycle, match=r"b -> c -> a -> b|c -> a -> b -> c|a -> b -> c -> a"):
                await world.desired.apply(both, CLIENT, dry_run=dry_run)
        with pytest.raises(DependencyCycle, match="d -> d"):
            await world.apply(job("dependsOn: [{job: d}]", name="d"))
        assert set(world.registry.views) == {JobName("b")}

    play(scenario, world)


def test_two_applies_at_once_make_no_cycle_together(world: World) -> None:
    async def scenario(world: World) -> None:
        a, b = job("dependsOn: [{job: b}]", name="a"), job("dependsOn: [{job: a}]", name="b")
        applies = (world.desired.apply(manifests(text), CLIENT) for text in (a, b))
        results = await asyncio.gather(*applies, return_exceptions=True)
        assert sum(isinstance(result, DependencyCycle) for result in results) == 1
        assert len(world.registry.views) == 1

    play(scenario, world)


def test_a_cycle_is_found_wherever_it_lies() -> None:
    assert find_cycle({1: [2, 3], 2: [4], 3: [4], 4: []}) == ()
    assert find_cycle({1: [2], 2: [3], 3: [4], 4: [2]}) == (2, 3, 4, 2)
    assert find_cycle({1: [1]}) == (1, 1)
    assert find_cycle({n: [n + 1] for n in range(5000)}) == ()

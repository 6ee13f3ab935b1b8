"""Who owns a job: one source at a time, and how it goes from one to another without a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobletd.errors import OwnershipConflict
from jobletd.model import Action, JobName, Source
from jobletd.saves import Save
from tests.unit.reconciler.world import CLIENT, World, job, manifests, play

SPOOL = Source("spool", "a.yml")
NAME = JobName("job")


def git(commit: str, file: str = "jobs/a.yml", name: str = "fleet") -> Source:
    return Source("git", f"{name}@{commit}:{file}")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("owner", [SPOOL, git("1a2b"), CLIENT], ids=str)
def test_another_source_gets_a_conflict_with_the_owners_name(world: World, owner: Source) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(), owner)
        for other in (Source("spool", "b.yml"), git("1a2b", name="other"), Source("grpc", "ann")):
            if other.owner == owner.owner:
                continue
            with pytest.raises(OwnershipConflict, match=str(owner)):
                await world.apply(job(), other)
            with pytest.raises(OwnershipConflict, match=str(owner)):
                await world.desired.delete(NAME, source=other)
        assert (await world.view()).source == owner

    play(scenario, world)


@pytest.mark.parametrize(("before", "after"), [(SPOOL, CLIENT), (git("1a2b"), CLIENT), (SPOOL, git("1a2b"))], ids=str)
def test_a_job_that_is_taken_over_does_not_restart(world: World, before: Source, after: Source) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(), before)
        run = await world.run()
        (result,) = await world.desired.apply(manifests(job()), after, take_over=True)
        await world.settle()
        assert (result.action, result.generation) == (Action.CONFIGURED, 1)
        assert result.consequence == f"taken over from {before}; nothing restarts"
        (again,) = await world.desired.apply(manifests(job()), after, take_over=True)
        assert again.action is Action.UNCHANGED
        assert (await world.view()).source == after and (await world.run()).id == run.id
        assert "OwnerChanged" in await world.reasons()
        with pytest.raises(OwnershipConflict):
            await world.apply(job(), before)
        await world.restart()
        assert (await world.view()).source == after

    play(scenario, world)


def test_a_dry_run_of_a_take_over_takes_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(), SPOOL)
        await world.desired.apply(manifests(job()), CLIENT, take_over=True, dry_run=True)
        assert (await world.view()).source == SPOOL

    play(scenario, world)


def test_commits_and_files_of_one_repository_are_one_owner(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(), git("1a2b"))
        await world.apply(job(), git("3c4d"))
        assert (await world.view()).source == git("1a2b"), "it became what it is with the first"
        await world.apply(job(), git("5e6f", "b.yml"))
        assert (await world.view()).source == git("5e6f", "b.yml")
        await world.apply(job(labels="{team: data}"), git("7a8b", "b.yml"))
        assert (await world.view()).source == git("7a8b", "b.yml")
        assert (await world.view()).generation == 1

    play(scenario, world)


def test_only_what_a_person_stopped_is_drift(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        assert await world.desired.stopped_by_hand() == set()
        await world.stop()
        assert await world.desired.stopped_by_hand() == {NAME}
        run_id = await world.desired.trigger(NAME, trigger="drift", why="it was stopped")
        await world.settle()
        assert (await world.run()).id == run_id and await world.desired.stopped_by_hand() == set()
        await world.exit(1)
        assert await world.desired.stopped_by_hand() == set(), "it has ended by itself"

    play(scenario, world)


def test_a_finished_run_stays_in_line_after_its_history_is_gone(world: World) -> None:
    """argo-cd#8586: a job whose finished run had been cleaned up was taken for drift and ran again."""

    async def scenario(world: World) -> None:
        await world.apply(job())
        await world.exit()
        async with world.registry.lock(NAME):
            await world.registry.save(Save(replace(world.registry.views[NAME], runs=()), job=True))
        assert await world.desired.stopped_by_hand() == set()
        await world.apply(job())
        assert (await world.view()).runs == ()

    play(scenario, world)

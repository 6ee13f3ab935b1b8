"""An executor that has an engine of its own behind it: what a run waits for there, where it is, what restarts it."""

from __future__ import annotations

from dataclasses import replace

from jobletd.model import End, Exited, Phase, Place, Reason
from jobletd.store.rows import end_from_json, end_to_json
from tests.unit.reconciler.world import World, job, play


def test_why_an_attempt_waits_is_told_until_it_runs(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.starts_at_once = False
        world.host.pending_why = "waits in Slurm's queue as job 17: Resources"
        await world.apply(job())
        run = await world.run()
        assert (run.phase, run.reason, run.message) == (Phase.INITIALIZING, Reason.QUEUED, world.host.pending_why)
        world.host.pending_why = ""
        world.host.start(world.live_attempt())
        await world.settle()
        run = await world.run()
        assert (run.phase, run.reason, run.message) == (Phase.RUNNING, None, "")

    play(scenario, world)


def test_limits_that_cannot_change_in_place_restart_the_job(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.changes_limits = False
        await world.apply(job("limits: {memory: 64Mi}"))
        result = await world.apply(job("limits: {memory: 128Mi}"))
        assert result.consequence == "stops the current run and starts a new one"
        assert len(world.host.launches) == 2
        again = await world.apply(job("limits: {memory: 128Mi}, history: {keep: 3}"))
        assert again.consequence == "changes nothing that runs"
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_where_an_attempt_was_is_kept_with_its_end() -> None:
    here = End(Exited(0), Reason.COMPLETED, 5)
    there = replace(here, place=Place("slurm", "17", "n2"))
    assert end_from_json(end_to_json(here)) == here
    assert end_from_json(end_to_json(there)) == there
    assert str(there.place) == "slurm job 17 on n2"

"""What is declared and no job: applied, waited for, kept while it is used, removed, and still there after a restart."""

from __future__ import annotations

import pytest

from joblet.manifest import read_manifests
from jobletd.errors import NoSuchJob, OwnershipConflict, WrongState
from jobletd.model import Action, JobName, Phase, Reason, Source
from tests.unit.reconciler.world import CLIENT, World, play

VOLUME = """
apiVersion: joblet/v1
kind: Volume
metadata: {name: data}
spec: {size: 64Mi}
"""
JOB = """
apiVersion: joblet/v1
kind: Job
metadata: {name: user}
spec:
  command: ["true"]
  volumes: [{name: data, path: /data}]
"""
DATA = JobName("volume/data")
SPOOL = Source("spool", "data.yml")


async def apply(world: World, text: str, source: Source = CLIENT) -> list[Action]:
    results = await world.desired.apply(read_manifests(text.encode(), filename="test.yml"), source)
    await world.settle()
    return [result.action for result in results]


def test_it_is_made_and_says_that_it_is_ready(world: World) -> None:
    async def scene(world: World) -> None:
        assert await apply(world, VOLUME) == [Action.CREATED]
        assert world.volumes.there == {"data"}
        shown = await world.desired.get_resource(DATA)
        assert [(one.type, one.status) for one in shown.view.conditions] == [("Ready", "True")]
        assert shown.status == {"used": "0"}
        assert [one.view.name for one in await world.desired.list_resources("Volume")] == [DATA]
        assert await apply(world, VOLUME) == [Action.UNCHANGED]
        assert (await world.desired.get_resource(DATA)).view.generation == 1

    play(scene, world)


def test_a_changed_spec_is_a_new_generation_and_a_label_is_none(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, VOLUME)
        assert await apply(world, VOLUME.replace("64Mi", "128Mi")) == [Action.CONFIGURED]
        labelled = VOLUME.replace("64Mi", "128Mi").replace("{name: data}", "{name: data, labels: {a: b}}")
        assert await apply(world, labelled) == [Action.CONFIGURED]
        assert (await world.desired.get_resource(DATA)).view.generation == 2

    play(scene, world)


def test_what_its_kind_refuses_changes_nothing(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, VOLUME)
        with pytest.raises(WrongState):
            await apply(world, VOLUME.replace("64Mi", "64Mi, type: memory") + "---" + JOB)
        assert "user" not in world.registry.views
        assert (await world.desired.get_resource(DATA)).view.generation == 1

    play(scene, world)


def test_a_job_waits_for_what_it_uses_and_says_so(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, JOB)
        run = (await world.desired.get("user")).runs[0]
        assert (run.phase, run.reason) == (Phase.PENDING, Reason.WAITING)
        assert run.message == "volume/data does not exist; apply a manifest of it"
        world.volumes.broken = "No space left on device"
        await apply(world, VOLUME)
        assert "No space left" in (await world.desired.get("user")).runs[0].message
        world.volumes.broken = ""
        await world.advance(1)
        await world.settle()
        assert (await world.desired.get("user")).runs[0].phase is Phase.RUNNING

    play(scene, world)


def test_it_is_kept_while_a_run_uses_it(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, VOLUME + "---" + JOB)
        assert (await world.desired.get_resource(DATA)).users == ("user",)
        with pytest.raises(WrongState, match="used by user"):
            await world.desired.delete(DATA, source=CLIENT)
        await world.desired.delete(JobName("user"), source=CLIENT)
        await world.settle()
        await world.desired.delete(DATA, source=CLIENT)
        await world.settle()
        assert world.volumes.there == set()
        with pytest.raises(NoSuchJob):
            await world.desired.get_resource(DATA)

    play(scene, world)


def test_it_belongs_to_its_source(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, VOLUME, SPOOL)
        assert (await world.desired.owners())[DATA] == SPOOL
        with pytest.raises(OwnershipConflict):
            await apply(world, VOLUME)
        with pytest.raises(OwnershipConflict):
            await world.desired.delete(DATA, source=CLIENT)
        await world.desired.transfer(DATA, SPOOL, CLIENT)
        assert await apply(world, VOLUME.replace("64Mi", "65Mi")) == [Action.CONFIGURED]

    play(scene, world)


def test_it_is_there_after_a_restart_before_any_launch(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, VOLUME)
        await world.restart()
        assert world.volumes.there == {"data"}
        assert await apply(world, VOLUME) == [Action.UNCHANGED]

    play(scene, world)

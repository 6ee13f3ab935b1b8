"""Contents that jobs name: they have to be there, stay as long as they are named, and go afterwards."""

from __future__ import annotations

import hashlib
import os

import pytest

from joblet.manifest import jobs_of, read_manifests
from jobletd.blobs.collector import GRACE_SECONDS, BlobCollector
from jobletd.blobs.naming import ContentMissing, LocalFile, with_contents
from jobletd.blobs.upload import Upload
from jobletd.model import Action, JobName
from tests.unit.reconciler.world import CLIENT, World, job, play

DATA = b"content"
SHA = hashlib.sha256(DATA).hexdigest()
NAMING = f"files: [{{path: a, sha256: {SHA}, size: {len(DATA)}}}]"


def put(world: World, data: bytes = DATA) -> str:
    upload = Upload(world.blobs)
    sha256 = hashlib.sha256(data).hexdigest()
    upload.begin(sha256, len(data))
    upload.write(data)
    upload.finish()
    upload.close()
    return world.blobs.path(sha256)


def test_a_job_whose_content_is_not_there_changes_nothing(world: World) -> None:
    async def scene(world: World) -> None:
        with pytest.raises(ContentMissing, match="does not have the content"):
            await world.apply(job(NAMING))
        with pytest.raises(ContentMissing, match="rnx apply -f"):
            await world.apply(job("files: [{path: a, from: ./x}]"))
        assert not world.registry.views
        put(world)
        assert (await world.apply(job(NAMING))).action is Action.CREATED
        assert (await world.apply(job(NAMING))).action is Action.UNCHANGED

    play(scene, world)


def test_a_dry_run_asks_for_no_content(world: World) -> None:
    async def scene(world: World) -> None:
        manifests = read_manifests(job(NAMING).encode(), filename="x.yml")
        (result,) = await world.desired.apply(manifests, CLIENT, dry_run=True)
        assert result.action is Action.CREATED and not world.registry.views

    play(scene, world)


def test_a_content_stays_while_a_job_or_an_open_run_names_it_and_then_has_its_grace(world: World) -> None:
    async def scene(world: World) -> None:
        collector = BlobCollector(world.blobs, world.registry, world.clock)
        path = put(world)
        await world.apply(job(NAMING))
        await world.advance(2 * GRACE_SECONDS)
        age(world, path)
        assert collector.sweep() == 0
        world.host.ignores_stop = True
        await world.apply(job("files: [{path: a, content: x}]"))  # the run of the old generation still ends
        assert collector.sweep() == 0
        world.host.ignores_stop = False
        await world.exit(0, world.host.live()[0].request.attempt_id)
        assert collector.sweep() == 1 and not there(path)
        unused = put(world, b"for an apply to come")
        assert collector.sweep() == 0 and there(unused)

    play(scene, world)


def there(path: str) -> bool:
    return os.path.exists(path)


def age(world: World, path: str) -> None:
    before = world.clock.wall_ns() / 1e9 - 2 * GRACE_SECONDS
    os.utime(path, (before, before))


def test_contents_of_a_deleted_job_go(world: World) -> None:
    async def scene(world: World) -> None:
        path = put(world)
        await world.apply(job(NAMING))
        await world.exit(0)
        await world.delete()
        assert JobName("job") not in world.registry.views
        age(world, path)
        assert BlobCollector(world.blobs, world.registry, world.clock).sweep() == 1

    play(scene, world)


def test_what_from_stands_for_takes_its_place_with_its_mode_unless_one_is_given() -> None:
    text = job("files: [{path: a, from: ./x}, {path: b, mode: '0600', from: x}, {path: c, from: y}]")
    manifests = with_contents(read_manifests(text.encode(), filename="x"), {"x": LocalFile(SHA, 7, 0o755)})
    found = [(file.path, file.mode, file.sha256, file.size, file.source) for file in jobs_of(manifests)[0].spec.files]
    assert found == [("a", 0o755, SHA, 7, None), ("b", 0o600, SHA, 7, None), ("c", 0o644, None, None, "y")]

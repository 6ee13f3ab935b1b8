"""A database of yesterday on the host of today: what runs goes on, what ended since is not run again."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from joblet.manifest import read_manifests
from jobletd.backup.settling import PutBack, mark
from jobletd.backup.snapshot import copy_database
from jobletd.model import Phase, Reason
from tests.unit.reconciler.world import CLIENT, World, job, manifests, run_loop

RETRIED = job("retry: {limit: 3, initial: 10s}")
SERVICE = job("restart: Always, retry: {initial: 1s}")
Step = Callable[[World], Awaitable[None]]


def backup(world: World) -> None:
    copy_database(world.path, f"{world.path}.backup")
    with closing(sqlite3.connect(f"{world.path}.backup", isolation_level=None)) as connection:
        mark(connection, PutBack("the backup", world.clock.wall_ns()))


def replace_database(world: World) -> None:
    for suffix in ("-wal", "-shm"):
        Path(world.path + suffix).unlink(missing_ok=True)
    shutil.copyfile(f"{world.path}.backup", world.path)


def journal_of(world: World) -> Path:
    (file,) = Path(world.journal_directory).iterdir()
    return file


async def lose_the_database(world: World) -> None:
    await world.crash()
    replace_database(world)
    await world.boot()
    await world.settle()


def play(directory: Path, before: Step, since: Step, after: Step) -> World:
    """before: then comes the backup; since: then the database is lost; after: on the daemon that started from the backup."""
    world = World(directory)

    async def whole() -> None:
        await world.boot()
        await before(world)
        backup(world)
        world.clock.now_ns += 10**9
        await since(world)
        await lose_the_database(world)
        try:
            await after(world)
        finally:
            await world.crash()
        assert world.host.broken_promises == []
        assert world.marked() is None

    run_loop(whole())
    return world


async def nothing(_: World) -> None:
    pass


def applied(text: str) -> Step:
    async def step(world: World) -> None:
        await world.apply(text)

    return step


def test_a_job_that_is_newer_than_the_backup_and_runs_is_adopted(tmp_path: Path) -> None:
    async def after(world: World) -> None:
        attempt = world.live_attempt()
        run = await world.run()
        assert (run.phase, [one.id for one in run.attempts]) == (Phase.RUNNING, [attempt])
        assert (await world.apply(job())).action == "unchanged"
        await world.exit(3)
        assert (await world.run()).reason is Reason.EXIT_CODE

    world = play(tmp_path, nothing, applied(job()), after)
    assert len(world.host.launches) == 1


def test_a_job_that_is_newer_than_the_backup_and_has_ended_is_not_run_again_when_its_source_comes_back(
    tmp_path: Path,
) -> None:
    async def since(world: World) -> None:
        await world.apply(RETRIED)
        await world.exit(0)

    async def after(world: World) -> None:
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.LOST)
        assert "not started again" in run.message
        assert "Lost" in await world.reasons()
        assert (await world.apply(RETRIED)).action == "unchanged"
        await world.advance(100)

    world = play(tmp_path, nothing, since, after)
    assert len(world.host.launches) == 1


def test_a_run_that_the_backup_saw_running_and_that_has_ended_since_is_not_run_again(tmp_path: Path) -> None:
    async def since(world: World) -> None:
        await world.exit(0)

    async def after(world: World) -> None:
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.LOST)
        await world.advance(100)

    world = play(tmp_path, applied(RETRIED), since, after)
    assert len(world.host.launches) == 1


def test_a_retry_that_is_newer_than_the_backup_is_adopted_with_its_run(tmp_path: Path) -> None:
    async def before(world: World) -> None:
        await world.apply(RETRIED)
        await world.exit(1)

    async def since(world: World) -> None:
        await world.advance(10)
        assert world.live_attempt().endswith("-2")

    async def after(world: World) -> None:
        await world.exit(0)
        run = await world.run()
        assert (run.phase, [one.number for one in run.attempts]) == (Phase.COMPLETED, [1, 2])

    world = play(tmp_path, before, since, after)
    assert len(world.host.launches) == 2


def test_what_waited_at_the_backup_and_was_never_launched_is_launched(tmp_path: Path) -> None:
    async def before(world: World) -> None:
        world.no_room = "none"
        await world.desired.apply(manifests(job()), CLIENT)

    async def since(world: World) -> None:
        await world.settle()
        world.no_room = ""

    async def after(world: World) -> None:
        await world.exit(0)
        assert (await world.run()).phase is Phase.COMPLETED

    world = play(tmp_path, before, since, after)
    assert len(world.host.launches) == 1


def test_a_newer_generation_is_adopted_and_the_one_of_the_backup_does_not_come_back(tmp_path: Path) -> None:
    async def since(world: World) -> None:
        await world.apply(job("restart: Always", command="[sleep, '2']"))

    async def after(world: World) -> None:
        view = await world.view()
        assert view.generation == 2
        assert len(world.host.live()) == 1
        assert world.host.live()[0].request.manifest.spec.command == ("sleep", "2")
        assert [run.phase for run in await world.history()] == [Phase.RUNNING, Phase.FAILED]

    world = play(tmp_path, applied(SERVICE), since, after)
    assert len(world.host.launches) == 2


def test_a_service_whose_attempt_has_ended_since_goes_on_with_a_new_one(tmp_path: Path) -> None:
    async def since(world: World) -> None:
        await world.exit(1)

    async def after(world: World) -> None:
        run = await world.run()
        assert (run.phase, [one.number for one in run.attempts]) == (Phase.RUNNING, [1, 2])
        assert run.attempts[0].end is not None and run.attempts[0].end.reason is Reason.LOST

    play(tmp_path, applied(SERVICE), since, after)


def test_a_job_that_was_deleted_since_does_not_come_back(tmp_path: Path) -> None:
    async def since(world: World) -> None:
        await world.delete()

    async def after(world: World) -> None:
        assert not world.registry.views
        assert not world.host.live()
        await world.apply(job())  # and may come anew
        assert len(world.host.live()) == 1

    world = play(tmp_path, applied(SERVICE), since, after)
    assert len(world.host.launches) == 2


def test_an_attempt_that_is_on_no_record_is_stopped(tmp_path: Path) -> None:
    async def since(world: World) -> None:
        await world.apply(job())
        journal_of(world).write_bytes(b"")  # as a power cut may leave it

    async def after(world: World) -> None:
        assert len(world.host.pruned) == 1

    play(tmp_path, nothing, since, after)


def test_a_daemon_that_is_killed_over_it_leaves_the_rest_to_the_next_one(tmp_path: Path) -> None:
    async def since(world: World) -> None:
        await world.apply(job(name="other"))
        await world.exit(0)

    async def after(world: World) -> None:
        assert (await world.run()).reason is Reason.LOST
        with closing(sqlite3.connect(world.path, isolation_level=None)) as connection:
            mark(connection, PutBack("the backup", 0))  # as if it had not been taken off
        await world.restart()
        assert {(await world.run(name)).reason for name in ("job", "other")} == {Reason.LOST}

    async def both(world: World) -> None:
        await world.exit(0, world.live_attempt())
        await since(world)

    world = play(tmp_path, applied(job()), both, after)
    assert len(world.host.launches) == 2


@pytest.mark.parametrize("torn", [1, 20, 200])
def test_a_line_of_the_journal_that_was_cut_off_spoils_no_other(tmp_path: Path, torn: int) -> None:
    async def since(world: World) -> None:
        await world.apply(job(name="a"))
        file = journal_of(world)
        data = file.read_bytes()
        await world.apply(job(name="b"))
        cut = file.read_bytes()[len(data) :][:torn]
        with file.open("wb") as stream:  # b's line is torn, and a later daemon goes on after it
            stream.write(data + cut)
        await world.apply(job(name="c"))

    async def after(world: World) -> None:
        assert sorted(world.registry.views) == ["a", "c"]
        assert len(world.host.pruned) == 1

    play(tmp_path, nothing, since, after)


def test_a_schedule_makes_up_for_no_tick_that_came_since_the_backup(tmp_path: Path) -> None:
    async def since(world: World) -> None:
        await world.advance(60)
        await world.exit(0)

    async def after(world: World) -> None:
        assert len(world.host.launches) == 1
        await world.advance(60)
        assert len(world.host.launches) == 2

    play(tmp_path, applied(job("schedule: {every: 1m, missed: all}")), since, after)


def indexes(world: World) -> list[str]:
    return [one.manifest.spec.env["JOBLET_ARRAY_INDEX"] for one in world.host.launches]


async def end_all(world: World) -> None:
    while live := world.host.live():
        for one in live:
            world.host.exit(one.request.attempt_id)
        await world.settle()


def test_an_array_since_the_backup_goes_on_and_no_index_runs_twice(tmp_path: Path) -> None:
    async def since(world: World) -> None:
        await world.apply(job("array: {from: 3, to: 8, parallel: 2}"))
        world.host.exit(world.host.live()[0].request.attempt_id)
        await world.settle()
        assert indexes(world) == ["3", "4", "5"]

    async def after(world: World) -> None:
        await end_all(world)
        run = await world.run()
        assert indexes(world) == ["3", "4", "5", "6", "7", "8"]
        # How index 3 ended was on record in the database that is lost.
        assert (run.phase, run.marks) == (Phase.FAILED, "fsssss")
        assert (await world.run("job.3")).reason is Reason.LOST
        assert set(world.registry.views) == {"job"}

    play(tmp_path, nothing, since, after)


def test_an_array_that_ran_at_the_backup_goes_on_where_it_is(tmp_path: Path) -> None:
    async def before(world: World) -> None:
        await world.apply(job("array: {to: 5, parallel: 2}"))

    async def since(world: World) -> None:
        for one in world.host.live():
            world.host.exit(one.request.attempt_id)
        await world.settle()
        assert indexes(world) == ["0", "1", "2", "3"]

    async def after(world: World) -> None:
        await end_all(world)
        assert indexes(world) == ["0", "1", "2", "3", "4", "5"]
        assert (await world.run()).marks == "ffssss"

    play(tmp_path, before, since, after)


def test_an_array_of_a_job_that_was_deleted_since_the_backup_leaves_no_open_index(tmp_path: Path) -> None:
    async def before(world: World) -> None:
        await world.apply(job("array: {to: 5, parallel: 2}"))

    async def since(world: World) -> None:
        await world.delete()

    async def after(world: World) -> None:
        assert world.registry.views == {} and world.host.live() == []
        count = "SELECT count(*) FROM runs WHERE is_final = 0"
        assert await world.store.read(lambda connection: connection.execute(count).fetchone()) == (0,)


def test_a_workflow_makes_up_for_no_tick_that_came_since_the_backup(tmp_path: Path) -> None:
    text = (
        "{apiVersion: joblet/v1, kind: Workflow, metadata: {name: wf}, spec: {schedule: {every: 1m, missed: all}, "
        "steps: [{name: a, job: {command: [a]}}]}}"
    )

    async def before(world: World) -> None:
        await world.desired.apply(read_manifests(text.encode(), filename="wf.yml"), CLIENT)
        await world.settle()

    async def since(world: World) -> None:
        await world.advance(60)
        await world.exit(0)

    async def after(world: World) -> None:
        assert len(world.host.launches) == 1
        await world.advance(60)
        assert len(world.host.launches) == 2

    play(tmp_path, before, since, after)

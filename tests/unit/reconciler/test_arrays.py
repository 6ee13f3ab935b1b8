"""Arrays: each index runs once, under its own rules, and the array ends as its success policy says, whatever dies when."""

from __future__ import annotations

import pytest

from joblet.manifest import read_manifests
from jobletd.arrays.index_runs import job_part
from jobletd.errors import WrongState
from jobletd.model import JobName, Phase, Reason, Run
from tests.unit.reconciler.fake_executor import Launched
from tests.unit.reconciler.world import CLIENT, Fuse, World, job, play

NAME = JobName("job")
VOLUME = b"{apiVersion: joblet/v1, kind: Volume, metadata: {name: data}, spec: {size: 64Mi}}"


def index_of(launched: Launched) -> int:
    return int(launched.request.manifest.spec.env["JOBLET_ARRAY_INDEX"])


def live(world: World) -> list[int]:
    return sorted(index_of(one) for one in world.host.live())


def launched(world: World) -> list[int]:
    """The index of each launch there was, in order."""
    return [int(one.manifest.spec.env["JOBLET_ARRAY_INDEX"]) for one in world.host.launches]


async def end(world: World, *indexes: int, code: int = 0) -> None:
    for one in world.host.live():
        if index_of(one) in indexes:
            world.host.exit(one.request.attempt_id, code)
    await world.settle()


async def end_all(world: World, code: int = 0) -> None:
    while world.host.live():
        await end(world, *live(world), code=code)


async def index_run(world: World, index: int, ref: str = "job") -> Run:
    return await world.run(f"{ref}.{index}")


def test_each_index_runs_once_and_no_more_than_parallel_at_a_time(world: World) -> None:
    async def scenario(world: World) -> None:
        result = await world.apply(job("array: {from: 3, to: 12, parallel: 4}"))
        assert live(world) == [3, 4, 5, 6]
        run = await world.run()
        assert (run.id, run.phase, run.attempts, run.marks) == (result.run_id, Phase.RUNNING, (), "rrrr......")
        await end(world, 4)
        assert live(world) == [3, 5, 6, 7]
        await end_all(world)
        run = await world.run()
        assert (run.phase, run.reason, run.marks) == (Phase.COMPLETED, Reason.COMPLETED, "s" * 10)
        assert run.message == "10 of 10 indexes succeeded"
        assert launched(world) == list(range(3, 13))
        assert len(await world.history()) == 1 and not world.registry.arrays.indexes
        await world.restart()
        assert len(world.host.launches) == 10 and (await world.run()).marks == "s" * 10

    play(scenario, world)


def test_an_index_is_told_which_one_it_is_and_nothing_of_the_array_as_a_whole(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {from: 7, to: 8}, env: {A: b}"))
        manifest = world.host.launches[0].manifest
        assert manifest.spec.env == {
            **{"A": "b", "JOBLET_JOB": "job", "JOBLET_ARRAY_INDEX": "7", "JOBLET_ARRAY_COUNT": "2"},
            **{"JOBLET_ARRAY_FIRST": "7", "JOBLET_ARRAY_LAST": "8"},
        }
        assert (manifest.spec.array, manifest.spec.isolation.hostname) == (None, "job.7")
        assert job_part(JobName(manifest.metadata.name)) == "job"

    play(scenario, world)


def test_a_matrix_has_an_index_for_each_combination(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("matrix: {size: [1, 2], os: [a, b]}, array: {exclude: [{os: b, size: 1}]}"))
        values = [
            (one.manifest.spec.env["JOBLET_MATRIX_OS"], one.manifest.spec.env["JOBLET_MATRIX_SIZE"])
            for one in world.host.launches
        ]
        assert values == [("a", "1"), ("a", "2"), ("b", "2")]
        _, shown = await world.desired.indexes("job", frozenset(), limit=10, after=0)
        assert [(one.index, dict(one.values)) for one in shown] == [
            (1, {"os": "a", "size": "2"}),
            (2, {"os": "b", "size": "2"}),
        ]

    play(scenario, world)


def test_an_index_follows_the_retry_rules_by_itself(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 2, parallel: 2}, retry: {limit: 1, initial: 10s}"))
        await end(world, 0, code=1)
        assert live(world) == [1]  # index 0 waits for its next attempt, and keeps its turn
        assert (await world.run()).marks == "wr."
        await end(world, 1)
        assert live(world) == [2]
        await world.advance(10)
        assert live(world) == [0, 2]
        await end_all(world)
        run = await index_run(world, 0)
        assert (run.phase, len(run.attempts)) == (Phase.COMPLETED, 2)
        assert (await world.run()).phase is Phase.COMPLETED

    play(scenario, world)


def test_the_others_go_on_when_an_index_has_failed(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 9, parallel: 2}"))
        await end(world, 1, code=3)
        assert (await world.run()).phase is Phase.RUNNING
        await end_all(world)
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.INDEXES_FAILED)
        assert run.message == "9 of 10 indexes succeeded, 1 failed (1)"
        failed = [event for event in await world.events() if event.reason == "IndexFailed"]
        assert len(failed) == 1 and failed[0].message.startswith("index 1 ") and failed[0].run_id == run.id

    play(scenario, world)


def test_with_fail_fast_the_others_are_stopped_once_the_array_cannot_succeed(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 9, parallel: 3, failFast: true, success: {atLeast: 9}}"))
        await end(world, 0, code=1)
        assert live(world) == [1, 2, 3]
        await end(world, 1, code=1)
        run = await world.run()
        assert (run.phase, run.reason, run.marks) == (Phase.FAILED, Reason.INDEXES_FAILED, "ff--------")
        assert world.host.live() == [] and launched(world) == [0, 1, 2, 3]
        stopped = await index_run(world, 2)
        assert (stopped.phase, stopped.reason) == (Phase.STOPPED, Reason.NOT_NEEDED)

    play(scenario, world)


@pytest.mark.parametrize(("success", "ends"), [("any", 1), ("{atLeast: 2}", 2)])
def test_what_is_not_needed_any_more_is_stopped_or_never_begins(world: World, success: str, ends: int) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(f"array: {{to: 9, parallel: 4, success: {success}}}"))
        await end(world, 3, code=1)
        await end(world, *range(ends))
        run = await world.run()
        assert (run.phase, run.marks) == (Phase.COMPLETED, "s" * ends + "-" * (3 - ends) + "f" + "-" * 6)
        assert world.host.live() == []

    play(scenario, world)


def test_a_stop_ends_every_index_and_begins_none(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 9, parallel: 3}, retry: {limit: 5, initial: 60s}"))
        await end(world, 0)
        await end(world, 1, code=1)
        await world.stop()
        run = await world.run()
        assert (run.phase, run.reason, run.marks) == (Phase.STOPPED, Reason.STOPPED, "sxxx------")
        assert launched(world) == [0, 1, 2, 3]
        await world.restart()
        assert world.host.live() == []

    play(scenario, world)


def test_a_stop_is_finished_by_the_next_daemon_and_by_force(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        await world.apply(job("array: {to: 5, parallel: 3}"))
        await world.stop()
        assert live(world) == [0, 1, 2]
        await world.restart()
        assert live(world) == [0, 1, 2] and (await world.run()).phase is Phase.RUNNING
        await world.stop(force=True)
        assert world.host.live() == [] and (await world.run()).phase is Phase.STOPPED

    play(scenario, world)


def test_one_index_can_be_stopped_and_the_array_fails_for_it(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 2}"))
        await world.stop("job.1")
        assert live(world) == [0, 2]
        await end_all(world)
        run = await world.run()
        assert (run.phase, run.message) == (Phase.FAILED, "2 of 3 indexes succeeded, 1 stopped (1)")

    play(scenario, world)


def test_a_deleted_job_is_gone_once_all_indexes_have_ended(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 9}"))
        await world.delete()
        assert world.registry.views == {} and world.host.live() == []
        assert not world.registry.arrays.indexes and not world.registry.by_run

    play(scenario, world)


def test_a_changed_spec_stops_the_array_and_runs_the_new_one_whole(world: World) -> None:
    async def scenario(world: World) -> None:
        first = await world.apply(job("array: {to: 4, parallel: 2}"))
        await end(world, 0)
        second = await world.apply(job("array: {to: 4, parallel: 2}", command="[sleep, '2']"))
        await end_all(world)
        old, new = await world.run(str(first.run_id)), await world.run(str(second.run_id))
        assert (old.phase, old.reason, old.marks) == (Phase.STOPPED, Reason.SUPERSEDED, "sxx--")
        assert (new.phase, new.marks) == (Phase.COMPLETED, "sssss")

    play(scenario, world)


def test_parallel_and_limits_change_in_place(world: World) -> None:
    async def scenario(world: World) -> None:
        first = await world.apply(job("array: {to: 9, parallel: 2}, limits: {memory: 64Mi}"))
        again = await world.apply(job("array: {to: 9, parallel: 3}, limits: {memory: 32Mi}"))
        assert (again.run_id, live(world)) == (first.run_id, [0, 1, 2])
        limits = {one.limits[0].asked for one in world.host.live()}
        assert limits == {str(32 << 20)}
        view = await world.view()
        assert (view.generation, view.observed_generation) == (2, 2)
        await world.apply(job("array: {to: 9, parallel: 3, success: any}, limits: {memory: 32Mi}"))
        await end(world, 0)
        assert (await world.run()).phase is Phase.COMPLETED

    play(scenario, world)


def test_a_retry_runs_what_did_not_succeed_in_a_new_run_that_keeps_the_rest(world: World) -> None:
    async def scenario(world: World) -> None:
        first = await world.apply(job("array: {to: 5}"))
        await end(world, 1, 4, code=1)
        with pytest.raises(WrongState, match="RUNNING"):
            await world.desired.retry("job", [])
        await end_all(world)
        kept = (await index_run(world, 3)).id
        run_id, count = await world.desired.retry("job", [])
        await world.settle()
        assert (count, live(world)) == (2, [1, 4])
        assert (await world.run()).marks == "srssrs"
        await world.restart()
        assert (await world.run()).marks == "srssrs"
        await end_all(world)
        run = await world.run()
        assert (run.id, run.trigger, run.phase, run.marks) == (run_id, "retry", Phase.COMPLETED, "s" * 6)
        assert (await index_run(world, 3)).id == kept  # its result, and its output, are the new run's
        old = await world.run(str(first.run_id))
        assert (old.phase, old.marks) == (Phase.FAILED, "sfssfs")
        assert (await index_run(world, 4, str(first.run_id))).phase is Phase.FAILED
        assert len(world.host.launches) == 8
        with pytest.raises(WrongState, match="all indexes"):
            await world.desired.retry("job", [])

    play(scenario, world)


def test_a_retry_may_name_indexes_and_leaves_other_failures_as_they_are(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {from: 10, to: 15}"))
        await end(world, 11, 14, code=1)
        await end_all(world)
        for wrong in (range(9, 10), range(14, 17)):
            with pytest.raises(WrongState, match="has no index"):
                await world.desired.retry("job", [wrong])
        await world.desired.retry("job", [range(10, 12)])
        await world.settle()
        assert live(world) == [10, 11]
        await end_all(world)
        run = await world.run()
        assert (run.phase, run.message) == (Phase.FAILED, "5 of 6 indexes succeeded, 1 failed (14)")
        await world.desired.retry("job.14", [])
        await world.settle()
        assert live(world) == [14]
        await end_all(world)
        assert (await world.run()).phase is Phase.COMPLETED

    play(scenario, world)


def test_more_memory_runs_what_failed_and_a_resumed_array_goes_on(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 3, parallel: 2}, limits: {memory: 32Mi}"))
        await end(world, 0)
        await world.apply(job("array: {to: 3, parallel: 2}, limits: {memory: 32Mi}, suspend: true"))
        assert (await world.run()).marks == "sxx-"
        result = await world.apply(job("array: {to: 3, parallel: 2}, limits: {memory: 32Mi}"))
        assert result.consequence == "goes on with the indexes that are left"
        await end(world, 1, code=1)
        await end_all(world)
        assert (await world.run()).marks == "sfss"
        result = await world.apply(job("array: {to: 3, parallel: 2}, limits: {memory: 64Mi}"))
        assert "did not succeed" in result.consequence
        assert live(world) == [1]
        await end_all(world)
        assert (await world.run()).phase is Phase.COMPLETED

    play(scenario, world)


def test_places_bound_an_array_and_who_comes_later_need_not_wait_for_all_of_it(world: World) -> None:
    world.max_concurrent = 2

    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 99, parallel: 5}"))
        assert live(world) == [0, 1]
        run = await world.run()
        assert (run.marks[:6], run.phase) == ("rrwww.", Phase.RUNNING)
        await world.advance(1)
        await world.apply(job(name="other"))
        await world.advance(1)
        order: list[str] = []
        while "other" not in order:
            one = world.host.live()[0]
            world.host.exit(one.request.attempt_id)
            await world.settle()
            order = [one.manifest.metadata.name for one in world.host.launches]
        assert len(order) == 6  # those that stood in line before it, and no other
        assert len(world.host.live()) == 2

    play(scenario, world)


def test_a_cordon_is_what_an_array_that_has_not_started_waits_for(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.maintenance.cordon("somebody", "")
        await world.apply(job("array: {to: 3}"))
        run = await world.run()
        assert (run.phase, run.reason, run.queue_position) == (Phase.PENDING, Reason.CORDONED, 1)
        await world.maintenance.uncordon("somebody")
        await world.settle()
        assert (await world.run()).marks == "rrrr"

    play(scenario, world)


def test_who_depends_on_an_array_waits_for_its_outcome(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 2, success: {atLeast: 2}}"))
        await world.apply(job("dependsOn: [{job: job}]", name="after"))
        await end(world, 0)
        await end(world, 1, code=1)
        assert (await world.run("after")).phase is Phase.PENDING
        await end(world, 2)
        assert (await world.run("after")).phase is Phase.RUNNING

    play(scenario, world)


def test_an_array_waits_for_what_it_depends_on_and_for_its_volumes(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 2}, dependsOn: [{job: first}], volumes: [{name: data, path: /data}]"))
        assert (await world.run()).message == "job first does not exist; apply a manifest of it"
        assert (await world.run()).reason is Reason.WAITING and not world.registry.arrays.indexes
        await world.apply(job(name="first"))
        await world.exit(0)
        assert (await world.run()).reason is Reason.WAITING and not world.registry.arrays.indexes
        await world.desired.apply(read_manifests(VOLUME, filename="v.yml"), CLIENT)
        await world.settle()
        assert live(world) == [0, 1, 2]

    play(scenario, world)


def test_each_tick_is_one_array(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 1}, schedule: {every: 10s, overlap: Queue, startingDeadline: 30s}"))
        await world.advance(10)
        assert live(world) == [0, 1]
        await world.advance(10)
        assert live(world) == [0, 1]
        await world.advance(60)  # it has begun: no deadline counts for it any more
        runs = (await world.view()).runs
        assert len([run for run in runs if run.marks]) == len(runs) >= 2
        first = runs[-1]
        assert {one.request.tick_seconds for one in world.host.live()} == {first.tick_seconds}
        await end(world, 0, 1)
        assert (await world.run(first.id)).phase is Phase.COMPLETED

    play(scenario, world)


def test_two_arrays_of_one_job_may_run_beside_each_other(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 1}"))
        await world.desired.trigger(NAME, force=True)
        await world.settle()
        assert live(world) == [0, 0, 1, 1]
        await end_all(world)
        assert {run.phase for run in await world.history()} == {Phase.COMPLETED}

    play(scenario, world)


def test_a_shutdown_interrupts_indexes_that_may_go_on_and_the_array_goes_on_with_the_next_daemon(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 5, parallel: 2}, retry: {limit: 3}"))
        await end(world, 0)
        await world.reconciler.stop_all()
        assert world.host.live() == []
        await world.restart()
        await world.advance(1)
        assert live(world) == [1, 2]
        await end_all(world)
        assert (await world.run()).phase is Phase.COMPLETED

    play(scenario, world)


def test_a_lost_host_costs_each_running_index_one_attempt(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 3, parallel: 2}, retry: {limit: 1, initial: 1s}"))
        await end(world, 0)
        await world.crash()
        world.host.reboot()
        await world.boot()
        await world.settle()
        await world.advance(1)
        await end_all(world)
        assert (await world.run()).marks == "ssss"
        assert [len((await index_run(world, index)).attempts) for index in range(4)] == [1, 2, 2, 1]

    play(scenario, world)


@pytest.mark.parametrize("written", [False, True], ids=["before the write", "after it"])
def test_a_retry_that_crashes_is_whole_or_not_there(world: World, written: bool) -> None:
    """The new run, its letters and the results that it takes over are one change."""

    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 3}"))
        await end(world, 2, code=1)
        await end_all(world)
        (before,) = await world.history()
        world.fuse.at = len(world.fuse.steps) + int(written)  # if after the write, then before anybody hears of it
        await world.until_dead(world.desired.retry("job", []))
        await world.crash()
        assert world.fuse.steps[-1] == ("after write" if written else "before write")
        await world.boot(Fuse())
        await world.settle()
        if not written:
            assert await world.history() == [before] and before.marks == "ssfs"
            assert not world.host.live() and (await index_run(world, 1)).job_uid == before.id
            return
        assert live(world) == [2]
        await end_all(world)
        assert (await world.run()).marks == "ssss"
        assert (await index_run(world, 1)).job_uid == (await world.run()).id != before.id

    play(scenario, world)

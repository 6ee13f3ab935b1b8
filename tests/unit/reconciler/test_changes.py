"""What an apply, a suspension, a removal or a change of owner means for what runs."""

from __future__ import annotations

import asyncio

import pytest

from jobletd.errors import DuplicateName, NoSuchJob, OwnershipConflict, WrongState
from jobletd.executor import ExecutorUnavailable, LogQuery
from jobletd.model import Action, JobName, Phase, Reason, Source
from tests.unit.reconciler.world import World, job, manifests, phases, play

FILE = Source("spool", "a.yml")
NO_FOLLOW = LogQuery()


def test_the_second_apply_changes_nothing_and_writes_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        first = await world.apply(job("limits: {memory: 64Mi}"))
        commits = world.store.commits
        again = await world.apply(job("limits: {memory: 67108864}"))
        assert (again.action, again.generation, again.run_id) == (Action.UNCHANGED, 1, first.run_id)
        assert world.store.commits == commits
        await world.exit(0)
        assert (await world.apply(job("limits: {memory: 64Mi}"))).action is Action.UNCHANGED
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_a_changed_command_stops_the_old_run_and_the_new_one_waits_for_its_end(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        old = await world.apply(job())
        new = await world.apply(job(command="[sleep, '2']"))
        assert (new.action, new.generation) == (Action.CONFIGURED, 2)
        assert new.consequence == "stops the current run and starts a new one"
        view = await world.view()
        assert phases(list(view.runs)) == [Phase.PENDING, Phase.RUNNING]
        assert view.observed_generation == 1
        assert old.run_id is not None
        world.host.exit(world.live_attempt(), 1)
        await world.settle()
        view = await world.view()
        assert view.observed_generation == 2
        assert (view.runs[0].id, view.runs[0].phase) == (new.run_id, Phase.RUNNING)
        ended = await world.run(old.run_id)
        assert (ended.phase, ended.reason) == (Phase.STOPPED, Reason.SUPERSEDED)

    play(scenario, world)


def test_of_several_changes_in_a_row_only_the_last_is_run(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        for seconds in (1, 2, 3, 4):
            await world.apply(job(command=f"[sleep, '{seconds}']"))
        await world.exit(0)
        assert phases(await world.history()) == [Phase.RUNNING, Phase.STOPPED, Phase.STOPPED, Phase.COMPLETED]
        assert [launch.manifest.spec.command for launch in world.host.launches] == [("sleep", "1"), ("sleep", "4")]

    play(scenario, world)


def test_a_limit_changes_in_place(world: World) -> None:
    async def scenario(world: World) -> None:
        first = await world.apply(job("limits: {memory: 64Mi}"))
        result = await world.apply(job("limits: {memory: 128Mi}"))
        assert (result.consequence, result.run_id, result.generation) == ("changes limits in place", first.run_id, 2)
        view = await world.view()
        assert view.observed_generation == 2
        assert view.runs[0].attempts[0].limits[0].asked == str(128 << 20)
        assert len(world.host.launches) == 1
        assert "LimitsChanged" in await world.reasons()

    play(scenario, world)


def test_a_limit_that_the_kernel_refuses_to_change_is_told_and_the_job_runs_on(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("limits: {memory: 64Mi}"))
        world.host.update_error = ExecutorUnavailable("memory.max: EBUSY")
        await world.apply(job("limits: {memory: 1Mi}"))
        view = await world.view()
        assert view.runs[0].phase is Phase.RUNNING
        condition = next(one for one in view.conditions if one.type == "LimitsEnforced")
        assert (condition.status, condition.message) == ("False", "memory.max: EBUSY")
        assert view.observed_generation == 1

        world.host.update_error = None  # it uses less now
        await world.advance(1)
        view = await world.view()
        assert (view.observed_generation, view.runs[0].attempts[0].limits[0].asked) == (2, str(1 << 20))
        assert [one.status for one in view.conditions if one.type == "LimitsEnforced"] == ["True"]
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_a_job_whose_limits_cannot_be_changed_can_be_stopped(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("limits: {memory: 64Mi}"))
        world.host.update_error = ExecutorUnavailable("memory.max: EBUSY")
        await world.apply(job("limits: {memory: 1Mi}"))
        await world.stop()
        assert (await world.run()).phase is Phase.STOPPED

    play(scenario, world)


def test_a_limit_of_a_completed_job_waits_for_its_next_run(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("limits: {memory: 64Mi}"))
        await world.exit(0)
        result = await world.apply(job("limits: {memory: 128Mi}"))
        assert result.consequence == "takes effect with the next run"
        assert len(world.host.launches) == 1
        assert (await world.view()).observed_generation == 2
        await world.desired.trigger(JobName("job"))
        await world.settle()
        assert world.host.launches[-1].manifest.spec.limits.memory_bytes == 128 << 20

    play(scenario, world)


def test_a_limit_of_a_failed_job_starts_it_again_but_its_history_does_not(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("limits: {memory: 64Mi}"))
        await world.exit(137)
        kept = await world.apply(job("limits: {memory: 64Mi}, history: {keep: 3}"))
        assert kept.consequence == "takes effect with the next run"
        more = await world.apply(job("limits: {memory: 128Mi}, history: {keep: 3}"))
        assert more.consequence.startswith("starts a run")
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_a_limit_of_a_stopped_job_starts_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        await world.stop()
        result = await world.apply(job("limits: {pids: 5}"))
        assert result.consequence == "takes effect with the next run"
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_labels_change_without_a_generation(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        result = await world.apply(job(labels="{team: data}"))
        assert (result.action, result.generation) == (Action.CONFIGURED, 1)
        assert result.consequence == "changes labels or annotations only"
        assert (await world.view()).manifest.metadata.labels == {"team": "data"}
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_a_suspended_job_is_stopped_and_runs_again_when_resumed(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        result = await world.apply(job("suspend: true"))
        assert result.consequence == "stops the current run"
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.STOPPED, Reason.SUSPENDED)
        assert (await world.view()).observed_generation == 2
        with pytest.raises(WrongState, match="suspended"):
            await world.desired.trigger(JobName("job"))
        assert (await world.apply(job())).consequence == "starts a run"
        assert (await world.run()).phase is Phase.RUNNING

    play(scenario, world)


def test_a_completed_job_does_not_run_again_after_a_suspension(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        await world.exit(0)
        assert (await world.apply(job("suspend: true"))).consequence == "is kept suspended"
        assert (await world.apply(job())).consequence == "takes effect with the next run"
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_a_job_created_suspended_runs_once_it_is_resumed(world: World) -> None:
    async def scenario(world: World) -> None:
        created = await world.apply(job("suspend: true"))
        assert (created.run_id, created.consequence) == (None, "is kept suspended")
        view = await world.view()
        assert (view.observed_generation, view.runs) == (1, ())
        await world.apply(job())
        assert (await world.run()).phase is Phase.RUNNING

    play(scenario, world)


def test_a_command_changed_while_suspended_runs_once_it_is_resumed(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        await world.exit(0)
        await world.apply(job("suspend: true", command="[sleep, '2']"))
        assert len(world.host.launches) == 1
        await world.apply(job(command="[sleep, '2']"))
        assert world.host.launches[-1].manifest.spec.command == ("sleep", "2")

    play(scenario, world)


def test_a_deleted_job_is_stopped_with_grace_and_then_gone(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        result = await world.apply(job())
        await world.delete()
        view = await world.view()
        assert view.deleting and view.runs[0].phase is Phase.RUNNING
        await world.delete()
        await world.exit(0)
        with pytest.raises(NoSuchJob):
            await world.view()
        assert result.run_id is not None
        run = await world.run(result.run_id)
        assert run.phase is Phase.COMPLETED
        assert (await world.view(result.run_id[:5])).source.kind == "deleted"
        assert (await world.reasons())[-1] == "Deleted"
        batches = [batch async for batch in world.desired.logs(result.run_id, 0, NO_FOLLOW)]
        assert len(batches) == 1

    play(scenario, world)


def test_a_job_that_comes_back_while_it_is_deleted_waits_for_the_old_ones_end(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        await world.apply(job())
        await world.delete()
        await world.apply(job(), FILE)
        view = await world.view()
        assert not view.deleting and view.source == FILE
        await world.exit(1)
        assert phases(await world.history()) == [Phase.RUNNING, Phase.STOPPED]

    play(scenario, world)


def test_a_job_of_the_same_name_as_a_deleted_one_is_another(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        uid = (await world.view()).uid
        await world.delete()
        result = await world.apply(job())
        assert (result.action, result.generation) == (Action.CREATED, 1)
        assert (await world.view()).uid != uid
        assert len(await world.history()) == 1

    play(scenario, world)


def test_files_own_their_jobs(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(), FILE)
        for other in (Source("spool", "b.yml"), Source("grpc", "admin")):
            with pytest.raises(OwnershipConflict) as caught:
                await world.desired.apply(manifests(job()), other)
            assert (caught.value.name, caught.value.owner) == ("job", FILE)
            with pytest.raises(OwnershipConflict):
                await world.desired.delete(JobName("job"), source=other)
        await world.desired.transfer(JobName("job"), FILE, Source("spool", "b.yml"))
        with pytest.raises(OwnershipConflict):
            await world.desired.transfer(JobName("job"), FILE, Source("spool", "c.yml"))
        assert await world.desired.owners() == {"job": Source("spool", "b.yml")}
        await world.settle()
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_one_client_may_change_what_another_applied(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(), Source("grpc", "alice"))
        await world.apply(job("limits: {pids: 3}"), Source("grpc", "bob"))
        assert (await world.view()).source == Source("grpc", "bob")

    play(scenario, world)


def test_an_apply_of_several_jobs_is_all_or_none(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="b"), FILE)
        with pytest.raises(OwnershipConflict):
            await world.desired.apply(manifests(job(name="a")) + manifests(job(name="b")), Source("grpc", "x"))
        assert await world.desired.owners() == {"b": FILE}
        with pytest.raises(DuplicateName):
            await world.desired.apply(manifests(job(name="a")) * 2, FILE)

    play(scenario, world)


def test_a_dry_run_tells_the_consequence_and_changes_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        commits = world.store.commits
        both = manifests(job(command="[sleep, '2']")) + manifests(job(name="other"))
        first, second = await world.desired.apply(both, Source("grpc", "x"), dry_run=True)
        assert (first.action, first.consequence) == (Action.CONFIGURED, "stops the current run and starts a new one")
        assert (second.action, second.consequence) == (Action.CREATED, "starts a run")
        await world.settle()
        assert world.store.commits == commits
        assert len(await world.desired.owners()) == 1

    play(scenario, world)


def test_a_client_that_goes_away_in_the_middle_leaves_nothing_half_made(world: World) -> None:
    async def scenario(world: World) -> None:
        for turns in range(12):
            name = f"job-{turns}"
            caller = asyncio.create_task(world.desired.apply(manifests(job(name=name)), FILE))
            for _ in range(turns):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.gather(caller, return_exceptions=True)
            result = await world.apply(job(name=name), FILE)
            assert result.generation == 1
            assert (await world.run(name)).phase is Phase.RUNNING
        assert len(world.host.launches) == 12
        on_record = await world.store.read(lambda connection: connection.execute("SELECT id FROM runs").fetchall())
        assert {run_id for (run_id,) in on_record} == set(world.registry.by_run)

    play(scenario, world)


def test_changes_of_one_job_at_the_same_time_come_one_after_the_other(world: World) -> None:
    async def scenario(world: World) -> None:
        changes = [
            world.desired.apply(manifests(job(command=f"[sleep, '{n}']")), Source("grpc", "x")) for n in range(20)
        ]
        results = [result for (result,) in await asyncio.gather(*changes)]
        assert [result.generation for result in results] == list(range(1, 21))
        await world.settle()
        history = await world.history()
        assert [run.generation for run in history if run.phase is Phase.RUNNING] == [20]
        assert len(history) == 20
        assert (await world.view()).observed_generation == 20

    play(scenario, world)


def test_a_condition_keeps_its_time_as_long_as_its_status(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        name = JobName("job")
        since = world.clock.now_ns
        await world.desired.set_condition(name, "Valid", "False", "Invalid", "line 3")
        await world.advance(5)
        await world.desired.set_condition(name, "Valid", "False", "Invalid", "line 4")
        (condition,) = [one for one in (await world.view()).conditions if one.type == "Valid"]
        assert (condition.since_ns, condition.message) == (since, "line 4")
        await world.restart()
        await world.desired.set_condition(name, "Valid", "True", "Read", "")
        (condition,) = [one for one in (await world.view()).conditions if one.type == "Valid"]
        assert (condition.status, condition.since_ns) == ("True", world.clock.now_ns)
        await world.desired.set_condition(JobName("gone"), "Valid", "True", "", "")

    play(scenario, world)


def test_progressing_says_what_a_job_waits_for(world: World) -> None:
    async def scenario(world: World) -> None:
        async def progressing() -> tuple[str, str]:
            (one,) = [one for one in (await world.view()).conditions if one.type == "Progressing"]
            return one.status, one.reason

        await world.apply(job("retry: {limit: 1}, suspend: true"))
        assert await progressing() == ("False", "Suspended")
        await world.apply(job("retry: {limit: 1}"))
        assert await progressing() == ("True", "Running")
        await world.exit(1)
        assert await progressing() == ("True", "BackOff")
        await world.advance(10)
        await world.exit(0)
        assert await progressing() == ("False", "Completed")

    play(scenario, world)

"""What is kept of ended runs, how long, and what cleaning up leaves alone."""

from __future__ import annotations

import sqlite3

import pytest

from jobletd.errors import NoSuchJob, WrongState
from jobletd.executor import LogQuery
from jobletd.model import Action, JobName, Phase
from jobletd.retention import BATCH, BELIEVED_AFTER_SECONDS, EVENTS_OF_JOB, Bounds, Retention
from jobletd.saves import EventDraft
from jobletd.store.rows import put_event
from tests.unit.reconciler.world import World, job, play

DAY = 86_400.0


def retention(world: World) -> Retention:
    return Retention(world.store, world.executor, world.clock)


async def run_again(world: World, times: int) -> None:
    for _ in range(times):
        await world.advance(1)
        await world.desired.trigger(JobName("job"))
        await world.settle()
        await world.exit(0)


def test_the_newest_runs_are_kept_and_the_others_go_with_output_and_events(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        first = await world.apply(job("history: {keep: 3}"))
        await world.exit(0)
        await run_again(world, 3)
        assert first.run_id is not None
        assert await world.events(first.run_id)
        assert await sweeper.sweep() == 1
        assert world.host.removed_logs == [f"job-{first.run_id}-1"]
        with pytest.raises(NoSuchJob):
            await world.view(first.run_id)
        await run_again(world, 2)
        assert await sweeper.sweep() == 2
        assert len(await world.history()) == 3
        assert await sweeper.sweep() == 0

    play(scenario, world)


def test_runs_go_by_age_but_not_the_latest(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        await world.apply(job("history: {for: 10d}"))
        await world.exit(0)
        await run_again(world, 1)
        await world.advance(9 * DAY)
        assert await sweeper.sweep() == 0
        await world.advance(2 * DAY)
        assert await sweeper.sweep() == 1
        (latest,) = await world.history()
        assert latest.phase is Phase.COMPLETED
        await run_again(world, 1)
        assert await sweeper.sweep() == 1, "it was the latest when its time came"
        (newer,) = await world.history()
        assert newer.id != latest.id

    play(scenario, world)


def test_what_is_open_is_never_removed(world: World) -> None:
    async def scenario(world: World) -> None:
        """The older of two, as a living job's latest is kept anyway."""
        sweeper = retention(world)
        first = await world.apply(job("history: {keep: 1, for: 1s}"))
        await world.desired.trigger(JobName("job"), force=True)
        await world.settle()
        await world.exit(0, world.host.launches[1].attempt_id)
        await world.advance(100 * DAY)
        assert await sweeper.sweep() == 0
        assert first.run_id is not None
        assert [(run.id == first.run_id, run.phase) for run in await world.history()] == [
            (False, Phase.COMPLETED),
            (True, Phase.RUNNING),
        ]

    world.host.may_overlap = True
    play(scenario, world)


def test_a_changed_history_holds_for_the_runs_there_are(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        await world.apply(job())
        await world.exit(0)
        await run_again(world, 4)
        await world.advance(3600)
        assert await sweeper.sweep() == 0
        await world.apply(job("history: {keep: 4}"))
        assert await sweeper.sweep() == 1
        await world.advance(3600)
        await world.apply(job("history: {for: 10m}"))
        assert await sweeper.sweep() == 3
        assert len(world.host.launches) == 5

    play(scenario, world)


def test_the_history_of_a_deleted_job_stays_for_its_time_and_then_goes(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        result = await world.apply(job("history: {for: 10d}"))
        await world.exit(0)
        await world.advance(20 * DAY)
        await world.delete()
        await world.advance(9 * DAY)
        assert await sweeper.sweep() == 0
        assert result.run_id is not None
        assert (await world.run(result.run_id)).phase is Phase.COMPLETED
        await world.advance(2 * DAY)
        assert await sweeper.sweep() == 1
        with pytest.raises(NoSuchJob):
            await world.run(result.run_id)
        await world.advance(31 * DAY)
        await sweeper.sweep()
        with pytest.raises(NoSuchJob):
            await world.events()

    play(scenario, world)


def test_old_events_of_no_run_go_also_from_behind_many_that_stay(world: World) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        for number in range(5 * BATCH):
            put_event(
                connection, job=f"kept-{number}", run_id="kept", type="Normal", reason="Started", message="", now_ns=1
            )

    async def scenario(world: World) -> None:
        sweeper = retention(world)
        await world.store.write(fill)
        await world.registry.record(EventDraft("", "", "Normal", "Cordoned", "by anna"))
        await world.advance(31 * DAY)
        await world.registry.record(EventDraft("", "", "Normal", "Uncordoned", "by anna"))
        for _ in range(3):
            await sweeper.sweep()
        left = await world.store.read(
            lambda connection: connection.execute("SELECT reason FROM events WHERE run_id = ''").fetchall()
        )
        assert left == [("Uncordoned",)]

    play(scenario, world)


def test_a_daemon_that_was_away_removes_what_came_of_age_meanwhile(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("history: {keep: 2}"))
        await world.exit(0)
        await run_again(world, 5)
        await world.restart()
        assert await retention(world).sweep() == 4

    play(scenario, world)


def test_a_service_that_starts_again_and_again_fills_no_disk_with_events(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        await world.apply(job("restart: Always"))
        for number in range(EVENTS_OF_JOB + 50):
            await world.desired.record_event("job", "", "Normal", "Something", str(number))
        await sweeper.sweep()
        events = await world.events()
        assert (len(events), events[-1].message) == (EVENTS_OF_JOB, str(EVENTS_OF_JOB + 49))

    play(scenario, world)


async def three_jobs_end(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.apply(job(name=name))
        await world.exit()
        await world.advance(1)


async def output(world: World, ref: str) -> bytes:
    batches = [batch async for batch in world.desired.logs(ref, 0, LogQuery())]
    return b"".join(entry.data for batch in batches for entry in batch)


def test_beyond_the_hosts_bound_the_oldest_output_goes_and_its_job_stays_in_line_with_its_manifest(
    world: World,
) -> None:
    async def scenario(world: World) -> None:
        world.host.log_bytes = 100
        await three_jobs_end(world)
        sweeper = Retention(world.store, world.executor, world.clock, Bounds(log_bytes=250))
        await sweeper.sweep()
        assert [attempt.split("-")[0] for attempt in world.host.removed_logs] == ["a"]
        with pytest.raises(WrongState, match="removed to make room"):
            await output(world, "a")
        assert await output(world, "b")
        await world.restart()
        result = await world.apply(job(name="a"))
        assert (result.action, (await world.run("a")).phase) == (Action.UNCHANGED, Phase.COMPLETED)
        assert len(world.host.launches) == 3, "nothing ran again"
        await sweeper_after_restart(world, Bounds(log_bytes=250)).sweep()
        assert len(world.host.removed_logs) == 1

    play(scenario, world)


def sweeper_after_restart(world: World, bounds: Bounds) -> Retention:
    return Retention(world.store, world.executor, world.clock, bounds)


def test_a_job_may_bound_the_output_of_its_own_runs_but_not_of_the_latest(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.log_bytes = 4096
        first = await world.apply(job("history: {logs: 5000}"))
        await world.exit(0)
        await run_again(world, 1)
        await retention(world).sweep()
        assert world.host.removed_logs == [f"job-{first.run_id}-1"]
        assert len(await world.history()) == 2, "the run itself is still on record"
        world.host.log_bytes = 10_000
        await run_again(world, 1)
        await retention(world).sweep()
        assert len(world.host.removed_logs) == 2
        assert await output(world, "job")

    play(scenario, world)


def test_what_runs_keeps_its_output_and_events_whatever_the_hosts_bounds(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.log_bytes = 100
        await world.apply(job(name="running"))
        await world.apply(job(name="ended"))
        await world.exit(attempt=next(one for one in world.host.attempts if one.startswith("ended-")))
        await sweeper_after_restart(world, Bounds(runs=0, age_ns=1, log_bytes=0, events=0)).sweep()
        assert [attempt.split("-")[0] for attempt in world.host.removed_logs] == ["ended"]
        assert (await world.run("ended")).phase is Phase.COMPLETED, "a living job's latest run stays"
        assert await world.reasons("running") == ["Created", "Started"]
        assert await world.reasons("ended") == []
        assert (await world.run("running")).phase is Phase.RUNNING

    play(scenario, world)


def test_the_hosts_bounds_on_runs_and_age_hold_whatever_jobs_say(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("history: {keep: 100, for: 1000d}"))
        await world.exit(0)
        await run_again(world, 9)
        sweeper = sweeper_after_restart(world, Bounds(runs=6, age_ns=int(10 * DAY * 1e9)))
        assert await sweeper.sweep() == 4
        await world.advance(11 * DAY)
        assert await sweeper.sweep() == 5, "all but the latest"
        await run_again(world, 1)
        assert await sweeper.sweep() == 1, "it was the latest when its time came"

    play(scenario, world)


def test_the_hosts_events_are_bounded(world: World) -> None:
    async def scenario(world: World) -> None:
        for number in range(50):
            await world.desired.record_event(f"job-{number}", "", "Normal", "Something", "")
        await sweeper_after_restart(world, Bounds(events=20)).sweep()
        events = await world.events("")
        assert [event.job for event in events] == [f"job-{number}" for number in range(30, 50)]

    play(scenario, world)


def test_a_clock_that_jumps_ahead_costs_no_history_before_an_hour_has_passed(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        await world.apply(job("history: {for: 10d}"))
        await world.exit(0)
        await run_again(world, 1)
        world.clock.set_wall(11 * DAY)
        assert await sweeper.sweep() == 0
        await world.advance(BELIEVED_AFTER_SECONDS / 2)
        assert await sweeper.sweep() == 0
        world.clock.set_wall(-11 * DAY)  # somebody sets it right
        await world.advance(BELIEVED_AFTER_SECONDS)
        assert await sweeper.sweep() == 0
        await world.advance(11 * DAY)
        assert await sweeper.sweep() == 1

    play(scenario, world)


def test_a_clock_that_stays_ahead_is_believed_in_the_end(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        await world.apply(job("history: {for: 10d}"))
        await world.exit(0)
        await run_again(world, 1)
        world.clock.set_wall(11 * DAY)
        assert await sweeper.sweep() == 0
        await world.advance(BELIEVED_AFTER_SECONDS)
        assert await sweeper.sweep() == 1

    play(scenario, world)


def test_counts_hold_after_a_clock_was_set_back(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        await world.apply(job("history: {keep: 2}"))
        await world.exit(0)
        await sweeper.sweep()
        world.clock.set_wall(-30 * DAY)
        await run_again(world, 2)
        assert await sweeper.sweep() == 1

    play(scenario, world)


def test_other_bounds_count_from_the_next_sweep_on(world: World) -> None:
    async def scenario(world: World) -> None:
        sweeper = retention(world)
        await world.apply(job())
        await world.exit(0)
        await run_again(world, 3)
        await world.advance(2 * DAY)
        assert await sweeper.sweep() == 0
        sweeper.reconfigure(Bounds(age_ns=int(DAY * 10**9)))
        assert await sweeper.sweep() == 3

    play(scenario, world)


async def end_array(world: World) -> None:
    while live := world.host.live():
        for one in live:
            world.host.exit(one.request.attempt_id)
        await world.settle()


async def rows_of_runs(world: World) -> int:
    count = await world.store.read(lambda connection: connection.execute("SELECT count(*) FROM runs").fetchone())
    return int(count[0])


def test_an_array_is_one_run_and_goes_with_all_its_indexes(world: World) -> None:
    async def scenario(world: World) -> None:
        first = await world.apply(job("array: {to: 4}, history: {keep: 1}"))
        await end_array(world)
        index = (await world.run("job.3")).id
        bounded = Retention(world.store, world.executor, world.clock, Bounds(runs=1, age_ns=10**9))
        await world.advance(5)
        assert await bounded.sweep() == 0, "its indexes were removed beneath it, or counted as runs"
        assert len(await world.events(index)) > 0
        await world.desired.trigger(JobName("job"))
        await world.settle()
        await world.advance(1)
        assert await retention(world).sweep() == 0, "an array that runs is no ended run"
        await end_array(world)
        assert await retention(world).sweep() == 1
        assert len(world.host.removed_logs) == 5 and await rows_of_runs(world) == 6
        for gone in (str(first.run_id), index):
            with pytest.raises(NoSuchJob):
                await world.view(gone)
        assert (await world.run("job.3")).phase is Phase.COMPLETED

    play(scenario, world)


def test_the_output_of_an_array_counts_and_goes_as_a_whole(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.log_bytes = 4096
        first = await world.apply(job("array: {to: 2}, history: {logs: 20000}"))
        await end_array(world)
        await world.desired.trigger(JobName("job"))
        await world.settle()
        await end_array(world)
        await retention(world).sweep()
        assert len(world.host.removed_logs) == 3
        with pytest.raises(WrongState, match="removed to make room"):
            await output(world, f"{first.run_id}.1")
        assert await output(world, "job.1")
        assert len(await world.history()) == 2

    play(scenario, world)


def test_what_a_retry_took_over_is_kept_with_the_later_run(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("array: {to: 2}, history: {keep: 1}"))
        for one in world.host.live():
            world.host.exit(one.request.attempt_id, int(one.request.manifest.spec.env["JOBLET_ARRAY_INDEX"] == "1"))
        await world.settle()
        failed = (await world.run("job.1")).attempts[0].id
        await world.desired.retry("job", [])
        await world.settle()
        await end_array(world)
        assert await retention(world).sweep() == 1
        assert world.host.removed_logs == [failed]
        assert [(await world.run(f"job.{index}")).phase for index in range(3)] == [Phase.COMPLETED] * 3

    play(scenario, world)

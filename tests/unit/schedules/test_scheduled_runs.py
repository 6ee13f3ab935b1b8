"""Jobs with a schedule: one run for each tick, whatever happens to the daemon, the host and the clock."""

from __future__ import annotations

import pytest

from jobletd.errors import WrongState
from jobletd.model import JobName, Phase, Reason
from jobletd.retention import Retention
from tests.unit.reconciler.world import ALL, World, job, phases, play
from tests.unit.schedules.passing import DAY, HOUR, end_all, moment, next_tick, outage, set_clock, ticks, until

DAILY = 'schedule: {cron: "30 2 * * *", timezone: Europe/Berlin%s}'
HOURLY = 'schedule: {cron: "0 * * * *"%s}'


def test_a_job_with_a_schedule_runs_at_its_ticks_and_not_when_it_is_applied(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        result = await world.apply(job(HOURLY % ""))
        assert (result.consequence, result.run_id) == ("runs by its schedule", None)
        assert world.host.launches == []
        assert await next_tick(world) == "2026-06-01T11:00:00"
        view = await world.view()
        assert (view.observed_generation, view.conditions[-1].reason) == (1, "Scheduled")
        await until(world, "2026-06-01T13:30")
        assert await ticks(world) == ["2026-06-01T11:00", "2026-06-01T12:00", "2026-06-01T13:00"]
        assert set(phases(await world.history())) == {Phase.COMPLETED}
        assert {run.trigger for run in await world.history()} == {"schedule"}
        assert (await world.reasons())[:2] == ["Created", "Triggered"]

    play(scenario, world)


def test_nomad_7289_each_day_has_its_run_through_years_of_dst_changes(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-02-01T00:00")
        await world.apply(
            job('schedule: {cron: "30 2 * * SUN", timezone: Europe/Berlin}, history: {keep: 200, for: 2000d}')
        )
        await until(world, "2028-02-01T00:00")
        found = await ticks(world)
        assert len(found) == len(set(found)) == 105  # Sundays, among them all four days on which the clocks change
        assert found[8] == "2026-03-29T01:00"  # there is no 02:30 on that day
        assert found[38] == "2026-10-25T00:30"  # it comes twice

    play(scenario, world)


def test_nomad_11052_overlap_is_forbidden_in_a_time_zone_too(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-10-24T00:00")
        await world.apply(job(DAILY % ", overlap: Forbid"))
        await until(world, "2026-10-24T00:40", exits=False)
        assert len(world.host.live()) == 1
        await until(world, "2026-10-26T02:00", exits=False)  # over the change of clocks, through two ticks
        assert len(world.host.launches) == 1
        assert (await world.reasons()).count("TickSkipped") == 1  # told once, counted twice
        await end_all(world)
        await until(world, "2026-10-27T02:00")
        assert await ticks(world) == ["2026-10-24T00:30", "2026-10-27T01:30"]

    play(scenario, world)


def test_dkron_349_after_a_restart_a_run_that_ended_meanwhile_forbids_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job(HOURLY % ", overlap: Forbid"))
        await until(world, "2026-06-01T11:00", exits=False)
        live = world.live_attempt()
        await world.crash()
        world.host.exit(live)  # the record says that it runs: nobody was there to see its end
        world.clock.pass_time(HOUR)
        await world.boot()
        await world.settle()
        assert await ticks(world) == ["2026-06-01T11:00", "2026-06-01T12:00"]
        assert len(world.host.live()) == 1

    play(scenario, world)


def test_dkron_1569_after_a_restart_a_run_that_goes_on_forbids_and_nothing_runs_twice(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job(HOURLY % ", overlap: Forbid"))
        await until(world, "2026-06-01T11:00", exits=False)
        await outage(world, 0)
        await outage(world, HOUR)
        assert len(world.host.launches) == 1
        await end_all(world)
        await outage(world, 1)
        assert await ticks(world) == ["2026-06-01T11:00"]

    play(scenario, world)


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", []),
        ("once", ["2026-06-02T10:00"]),
        ("all, missedLimit: 3", ["2026-06-02T08:00", "2026-06-02T09:00", "2026-06-02T10:00"]),
    ],
)
def test_after_an_outage_of_a_day_what_was_missed_is_made_up_for_as_asked(
    world: World, missed: str, expected: list[str]
) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % f", missed: {missed}"))
        await outage(world, DAY, reboot=True)
        await end_all(world)
        assert await ticks(world) == expected
        (told,) = [event for event in await world.events() if event.reason == "TicksMissed"]
        assert told.message == f"{24 - len(expected)} ticks since 2026-06-01T11:00:00Z got no run"
        await until(world, "2026-06-02T11:30")
        assert await ticks(world) == [*expected, "2026-06-02T11:00"]

    play(scenario, world)


@pytest.mark.parametrize("missed", ["skip", "once", "all, missedLimit: 5"])
def test_kubernetes_42649_too_many_missed_ticks_never_stall_a_schedule(world: World, missed: str) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(f'schedule: {{cron: "* * * * * *", missed: {missed}}}, history: {{keep: 100}}'))
        await outage(world, 1000 * DAY)
        await end_all(world)
        made_up = len(await ticks(world))
        assert made_up == {"s": 1, "o": 1, "a": 5}[missed[0]]  # one of all these seconds is now
        (told,) = [event for event in await world.events() if event.reason == "TicksMissed"]
        assert told.message.startswith("1000 or more ticks")
        await world.advance(1)
        await end_all(world)
        assert len(await ticks(world)) == made_up + 1

    play(scenario, world)


def test_a_tick_that_is_missed_by_less_than_a_minute_is_no_missed_one(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59:50")
        await world.apply(job(HOURLY % ", missed: skip"))
        await outage(world, 50)
        assert await ticks(world) == ["2026-06-01T11:00"]

    play(scenario, world)


def test_what_could_not_start_before_its_deadline_does_not_run(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % ", startingDeadline: 10m, overlap: Queue"))
        await outage(world, HOUR)  # 11:20
        assert world.host.launches == []
        await until(world, "2026-06-01T12:00", exits=False)
        await until(world, "2026-06-01T13:00", exits=False)
        assert phases(await world.history()) == [Phase.PENDING, Phase.RUNNING]
        await until(world, "2026-06-01T13:20", exits=False)
        await end_all(world)
        late, in_time = await world.history()
        assert (late.phase, late.reason) == (Phase.STOPPED, Reason.MISSED)
        assert in_time.phase is Phase.COMPLETED
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_systemd_21166_jitter_is_the_same_after_each_restart_and_another_one_for_each_job(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        for name in ("a", "b", "c"):
            await world.apply(job(HOURLY % ", jitter: 10m", name=name))
        due = [await next_tick(world, name) for name in ("a", "b", "c")]
        assert len(set(due)) == 3
        assert all(one is not None and "2026-06-01T11:00:00" <= one < "2026-06-01T11:10:00" for one in due)
        await outage(world, HOUR / 2, reboot=True)
        assert [await next_tick(world, name) for name in ("a", "b", "c")] == due
        await until(world, "2026-06-01T11:10")
        assert await ticks(world, "a") == ["2026-06-01T11:00"]

    play(scenario, world)


def test_overlap_allow_lets_runs_go_on_beside_each_other(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.may_overlap = True
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % ", overlap: Allow"))
        await until(world, "2026-06-01T13:00", exits=False)
        assert len(world.host.live()) == 3
        first, *_ = world.host.live()
        await world.exit(attempt=first.request.attempt_id)
        await outage(world, 1)
        assert len(world.host.live()) == 2
        await world.stop()
        assert phases(await world.history()) == [Phase.STOPPED, Phase.STOPPED, Phase.COMPLETED]

    play(scenario, world)


def test_overlap_replace_stops_the_old_run_before_the_new_one_begins(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % ", overlap: Replace"))
        world.host.ignores_stop = True
        await until(world, "2026-06-01T13:00", exits=False)
        assert len(world.host.launches) == 1  # it is slow to end, and nothing begins before it has
        await world.exit(1)
        newest, never, first = await world.history()
        assert (first.phase, first.reason) == (Phase.STOPPED, Reason.REPLACED)
        assert (never.phase, never.attempts) == (Phase.STOPPED, ())
        assert newest.phase is Phase.RUNNING

    play(scenario, world)


def test_overlap_queue_lets_runs_wait_for_each_other(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % ", overlap: Queue"))
        await until(world, "2026-06-01T13:00", exits=False)
        third, second, first = await world.history()
        assert (third.phase, second.phase, first.phase) == (Phase.PENDING, Phase.PENDING, Phase.RUNNING)
        assert second.message == f"for the end of run {first.id}"
        await end_all(world)
        assert [launch.run_id for launch in world.host.launches] == [first.id, second.id, third.id]

    play(scenario, world)


def test_a_queue_of_runs_is_bounded_and_says_so(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job("schedule: {every: 1s, overlap: Queue, missed: all, missedLimit: 90}"))
        await outage(world, 1000)
        await outage(world, 1000)
        assert len([run for run in await world.history() if not run.phase.is_final]) == 100
        assert "TickSkipped" in await world.reasons()

    play(scenario, world)


def test_a_manual_trigger_obeys_overlap_unless_it_is_forced(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % ""))
        await world.desired.trigger(JobName("job"))
        await world.settle()
        with pytest.raises(WrongState, match="--force"):
            await world.desired.trigger(JobName("job"))
        await until(world, "2026-06-01T11:00", exits=False)
        assert len(world.host.launches) == 1  # the tick finds it running
        world.host.may_overlap = True
        forced = await world.desired.trigger(JobName("job"), force=True)
        await world.settle()
        assert len(world.host.live()) == 2
        assert (await world.run(forced)).trigger == "forced"

    play(scenario, world)


def test_at_comes_once_also_after_restarts_and_when_the_clock_goes_back(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job("schedule: {at: 2026-06-01T12:00:00Z}"))
        await outage(world, 2 * HOUR)
        await end_all(world)
        assert await ticks(world) == ["2026-06-01T12:00"]
        assert await next_tick(world) is None
        world.clock.set_wall(-2 * DAY)
        await outage(world, 3 * DAY)
        assert await ticks(world) == ["2026-06-01T12:00"]

    play(scenario, world)


def test_what_lies_before_the_apply_is_not_made_up_for(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job("schedule: {at: 2026-06-01T09:00:00Z}"))
        await world.advance(60)
        assert await next_tick(world) is None
        assert world.host.launches == []

    play(scenario, world)


def test_a_clock_that_goes_back_a_little_brings_no_tick_twice(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job(HOURLY % ""))
        await until(world, "2026-06-01T11:01")
        world.clock.set_wall(-1800)
        await until(world, "2026-06-01T12:01")
        assert await ticks(world) == ["2026-06-01T11:00", "2026-06-01T12:00"]

    play(scenario, world)


def test_a_clock_that_is_far_behind_at_boot_and_then_set_right_brings_no_tick_twice(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job(HOURLY % ""))
        await until(world, "2026-06-01T11:01")
        await world.crash()
        world.clock.set_wall(-1000 * DAY)
        await world.boot()
        await world.settle()
        await world.advance(60)
        world.clock.set_wall(1000 * DAY)
        await until(world, "2026-06-01T12:01")
        assert await ticks(world) == ["2026-06-01T11:00", "2026-06-01T12:00"]

    play(scenario, world)


def test_a_clock_that_was_years_ahead_stalls_a_schedule_for_an_hour_and_not_for_years(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2031-06-01T10:59")
        await world.apply(job('schedule: {cron: "*/10 * * * *"}'))
        await until(world, "2031-06-01T11:01")
        set_clock(world, "2026-06-01T10:01")
        for _ in range(61):
            await world.advance(60)
        assert "ClockSetBack" in await world.reasons()
        await until(world, "2026-06-01T11:11")
        assert (await ticks(world))[-1] == "2026-06-01T11:10"

    play(scenario, world)


def test_a_clock_that_jumps_ahead_is_like_an_outage(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % ", missed: once"))
        world.clock.set_wall(5 * HOUR)
        await world.advance(60)  # so long may it take until it is noticed
        await end_all(world)
        assert await ticks(world) == ["2026-06-01T15:00"]

    play(scenario, world)


def test_a_changed_schedule_leaves_what_runs_alone_and_counts_from_now(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job(HOURLY % ""))
        await until(world, "2026-06-01T11:00", exits=False)
        result = await world.apply(job('schedule: {cron: "*/10 * * * *"}'))
        assert result.consequence == "changes in place; nothing restarts"
        assert (len(world.host.live()), len(world.host.launches)) == (1, 1)
        assert await next_tick(world) == "2026-06-01T11:10:00"
        await end_all(world)
        await until(world, "2026-06-01T11:11")
        assert await ticks(world) == ["2026-06-01T11:00", "2026-06-01T11:10"]

    play(scenario, world)


def test_a_changed_command_takes_effect_with_the_next_tick(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job("retry: {limit: 1, initial: 1s}, " + HOURLY % ""))
        await until(world, "2026-06-01T11:00", exits=False)
        result = await world.apply(job(HOURLY % "", command="[sleep, '2']"))
        assert result.consequence == "takes effect with the next tick"
        await world.apply(job(HOURLY % "" + ", limits: {memory: 64Mi}", command="[sleep, '2']"))
        await world.exit(1)
        await world.advance(1)
        assert [launch.manifest.spec.command for launch in world.host.launches] == [("sleep", "1"), ("sleep", "1")]
        await end_all(world)
        await until(world, "2026-06-01T12:00", exits=False)
        assert world.host.launches[-1].manifest.spec.command == ("sleep", "2")
        assert (await world.view()).observed_generation == 3

    play(scenario, world)


@pytest.mark.parametrize(
    ("paused", "live_meanwhile"),
    [(HOURLY % ", suspend: true", 1), (f"suspend: true, {HOURLY % ''}", 0)],
    ids=["the schedule", "the job"],
)
def test_ticks_while_it_is_suspended_are_not_made_up_for(world: World, paused: str, live_meanwhile: int) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job(HOURLY % ""))
        await until(world, "2026-06-01T11:00", exits=False)
        await world.apply(job(paused))
        assert len(world.host.live()) == live_meanwhile
        assert await next_tick(world) is None
        await end_all(world)
        await world.advance(5 * HOUR)
        await world.apply(job(HOURLY % ""))
        await world.advance(60)
        assert await ticks(world) == ["2026-06-01T11:00"]
        assert await next_tick(world) == "2026-06-01T17:00:00"

    play(scenario, world)


def test_a_schedule_that_is_taken_away_leaves_what_ran_as_it_is(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job(HOURLY % ""))
        await until(world, "2026-06-01T11:01")
        await world.apply(job())
        await world.advance(2 * HOUR)
        assert len(world.host.launches) == 1  # what is declared now has run
        await world.apply(job(HOURLY % ""))
        await world.apply(job(command="[sleep, '2']"))
        assert len(world.host.launches) == 2  # this has not

    play(scenario, world)


def test_a_stop_by_hand_ends_the_run_and_not_the_schedule(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:59")
        await world.apply(job(HOURLY % ""))
        await until(world, "2026-06-01T11:00", exits=False)
        await world.stop()
        assert await world.desired.stopped_by_hand() == frozenset()
        await until(world, "2026-06-01T12:00")
        assert len(await ticks(world)) == 2
        await world.delete()
        await world.advance(2 * HOUR)
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_old_runs_of_a_schedule_go_by_its_history(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % "" + ", history: {keep: 3}"))
        await until(world, "2026-06-02T10:20")
        await Retention(world.store, world.executor, world.clock).sweep()
        assert await ticks(world) == ["2026-06-02T08:00", "2026-06-02T09:00", "2026-06-02T10:00"]

    play(scenario, world)


def test_jobs_that_wait_for_a_tick_are_found_as_scheduled(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, "2026-06-01T10:20")
        await world.apply(job(HOURLY % "", name="a"))
        await world.apply(job(name="b"))
        found = await world.desired.list_jobs(selector=ALL, phases=frozenset({Phase.SCHEDULED}), limit=9, after="")
        assert [view.name for view in found] == ["a"]
        assert found[0].next_tick_ns == moment("2026-06-01T11:00") * 10**9

    play(scenario, world)

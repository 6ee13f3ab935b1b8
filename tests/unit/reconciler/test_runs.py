"""From an apply to a recorded outcome: retries, restarts, time limits, stops."""

from __future__ import annotations

import pytest

from jobletd.errors import WrongState
from jobletd.executor import ExecutorUnavailable
from jobletd.model import Exited, JobName, Killed, Phase, Reason, Unknown
from tests.unit.reconciler.fake_executor import Launched
from tests.unit.reconciler.world import World, job, play


def test_a_job_runs_once_and_its_end_is_on_record(world: World) -> None:
    async def scenario(world: World) -> None:
        result = await world.apply(job())
        run = await world.run()
        assert run.id == result.run_id and len(run.id) == 8
        assert run.phase is Phase.RUNNING
        await world.advance(3)
        await world.exit(0)
        run = await world.run()
        assert (run.phase, run.reason, run.outcome) == (Phase.COMPLETED, Reason.COMPLETED, Exited(0))
        assert run.ended_ns is not None and run.started_ns is not None
        assert run.ended_ns - run.started_ns == 3_000_000_000
        assert world.host.forgotten == [f"job-{run.id}-1"]
        await world.restart()
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_a_failing_command_fails_the_run_with_its_code(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        await world.exit(3)
        run = await world.run()
        assert (run.phase, run.reason, run.outcome) == (Phase.FAILED, Reason.EXIT_CODE, Exited(3))
        assert len(world.host.launches) == 1

    play(scenario, world)


def test_retries_wait_twice_as_long_each_time_and_end_at_the_limit(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 3, initial: 10s, max: 30s}"))
        for number, pause in enumerate((10, 20, 30), 1):
            await world.exit(1)
            run = await world.run()
            assert (run.phase, run.reason) == (Phase.SCHEDULED, Reason.BACK_OFF)
            assert run.next_attempt_ns == world.clock.now_ns + pause * 10**9
            await world.advance(pause - 0.5)
            assert len(world.host.launches) == number
            await world.advance(0.5)
            assert len(world.host.launches) == number + 1
        await world.exit(7)
        run = await world.run()
        assert (run.phase, run.outcome) == (Phase.FAILED, Exited(7))
        assert [attempt.number for attempt in run.attempts] == [1, 2, 3, 4]
        assert len({attempt.run_id for attempt in run.attempts}) == 1

    play(scenario, world)


@pytest.mark.parametrize(
    ("rules", "code", "retried"),
    [
        ("onExitCodes: [75]", 75, True),
        ("onExitCodes: [75]", 1, False),
        ("neverOnExitCodes: [2]", 2, False),
        ("neverOnExitCodes: [2]", 1, True),
        ("onExitCodes: [1, 2], neverOnExitCodes: [3]", 3, False),
    ],
)
def test_exit_codes_decide_about_a_retry(world: World, rules: str, code: int, retried: bool) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(f"retry: {{limit: 1, {rules}}}"))
        await world.exit(code)
        assert (await world.run()).phase is (Phase.SCHEDULED if retried else Phase.FAILED)

    play(scenario, world)


def test_a_signal_counts_as_128_and_its_number(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, onExitCodes: [137]}"))
        world.host.end(world.live_attempt(), Killed("SIGKILL"), Reason.OOM_KILLED)
        await world.settle()
        assert (await world.run()).phase is Phase.SCHEDULED

    play(scenario, world)


def test_a_command_that_cannot_start_follows_the_retry_rules(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 5, neverOnExitCodes: [127]}"))
        world.host.fail_to_start(world.live_attempt(), 126)
        await world.settle()
        assert (await world.run()).phase is Phase.SCHEDULED
        await world.advance(10)
        world.host.fail_to_start(world.live_attempt(), 127)
        await world.settle()
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.START_ERROR)
        assert "No such file" in run.message

    play(scenario, world)


def test_a_limit_that_cannot_be_enforced_is_never_retried(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 5}"))
        world.host.fail_to_start(world.live_attempt(), 126, Reason.LIMIT_NOT_ENFORCEABLE)
        await world.settle()
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.LIMIT_NOT_ENFORCEABLE)

    play(scenario, world)


def test_a_retry_that_succeeds_completes_the_run(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1}"))
        await world.exit(1)
        await world.advance(10)
        await world.exit(0)
        run = await world.run()
        assert (run.phase, run.outcome) == (Phase.COMPLETED, Exited(0))

    play(scenario, world)


def test_the_timeout_covers_all_attempts_together(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("timeout: 100s, retry: {limit: 9, initial: 10s}"))
        assert world.host.launches[-1].deadline_seconds == pytest.approx(100)
        await world.advance(60)
        await world.exit(1)
        await world.advance(10)
        assert world.host.launches[-1].deadline_seconds == pytest.approx(30)
        await world.advance(25)
        await world.exit(1)
        await world.advance(5)
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.TIMED_OUT)
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_a_time_limit_that_struck_ends_the_run_even_with_retries_left(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("timeout: 20s, retry: {limit: 9}"))
        await world.advance(20)
        world.host.end(world.live_attempt(), Exited(0), Reason.TIMED_OUT)
        await world.settle()
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.TIMED_OUT)

    play(scenario, world)


def test_an_attempt_timeout_is_retried(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("attemptTimeout: 20s, retry: {limit: 1}"))
        assert world.host.launches[-1].deadline_seconds is None
        world.host.end(world.live_attempt(), Killed("SIGTERM"), Reason.TIMED_OUT)
        await world.settle()
        assert (await world.run()).phase is Phase.SCHEDULED

    play(scenario, world)


def test_a_service_starts_again_whatever_its_end_and_backs_off(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("restart: Always, retry: {initial: 1s, max: 4s}"))
        for code, pause in ((0, 1), (1, 2), (0, 4), (9, 4)):
            await world.exit(code)
            run = await world.run()
            assert run.next_attempt_ns == world.clock.now_ns + pause * 10**9
            await world.advance(pause)
            assert (await world.run()).phase is Phase.RUNNING

    play(scenario, world)


def test_ten_healthy_minutes_make_the_pause_short_again(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("restart: OnFailure, retry: {initial: 1s, max: 60s}"))
        for lifetime, pause in ((0, 1), (0, 2), (599, 4), (600, 1), (0, 2)):
            await world.advance(lifetime)
            await world.exit(1)
            run = await world.run()
            assert run.next_attempt_ns == world.clock.now_ns + pause * 10**9
            await world.advance(pause)

    play(scenario, world)


def test_restart_on_failure_ends_with_success(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("restart: OnFailure"))
        await world.exit(1)
        await world.advance(10)
        await world.exit(0)
        assert (await world.run()).phase is Phase.COMPLETED

    play(scenario, world)


def test_a_service_keeps_only_its_first_and_newest_attempts(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("restart: Always, retry: {initial: 1s, max: 1s}"))
        for _ in range(30):
            await world.exit(1)
            await world.advance(1)
        run = await world.run()
        assert [attempt.number for attempt in run.attempts] == [1, *range(13, 32)]
        assert len(world.host.removed_logs) == 11
        await world.restart()
        assert [attempt.number for attempt in (await world.run()).attempts] == [1, *range(13, 32)]

    play(scenario, world)


def test_a_stop_is_final_even_for_a_service(world: World) -> None:
    async def scenario(world: World) -> None:
        result = await world.apply(job("restart: Always"))
        await world.stop()
        run = await world.run()
        assert (run.phase, run.reason, run.outcome) == (Phase.STOPPED, Reason.STOPPED, Killed("SIGTERM"))
        await world.advance(3600)
        await world.restart()
        assert len(world.host.launches) == 1
        again = await world.desired.trigger(JobName("job"))
        await world.settle()
        assert again != result.run_id
        assert (await world.run()).phase is Phase.RUNNING

    play(scenario, world)


def test_a_stop_between_attempts_ends_the_run_at_once(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 5}"))
        await world.exit(1)
        await world.stop()
        run = await world.run()
        assert (run.phase, run.reason, run.outcome) == (Phase.STOPPED, Reason.STOPPED, Exited(1))

    play(scenario, world)


def test_force_after_a_stop_kills(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        await world.apply(job())
        await world.stop()
        assert (await world.run()).phase is Phase.RUNNING
        await world.stop(force=True)
        run = await world.run()
        assert (run.phase, run.outcome) == (Phase.STOPPED, Killed("SIGKILL"))

    play(scenario, world)


def test_what_had_succeeded_before_the_stop_reached_it_is_completed(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        await world.apply(job())
        await world.stop()
        await world.exit(0)
        assert (await world.run()).phase is Phase.COMPLETED

    play(scenario, world)


def test_the_stop_of_a_finished_run_does_not_touch_the_one_that_runs(world: World) -> None:
    async def scenario(world: World) -> None:
        first = await world.apply(job())
        await world.exit(0)
        await world.desired.trigger(JobName("job"))
        await world.settle()
        assert first.run_id is not None
        with pytest.raises(WrongState, match=first.run_id):
            await world.desired.stop(first.run_id, force=False)
        assert (await world.run()).phase is Phase.RUNNING
        await world.exit(0)
        with pytest.raises(WrongState, match="does not run"):
            await world.desired.stop("job", force=False)

    play(scenario, world)


def test_a_running_job_cannot_be_triggered(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        with pytest.raises(WrongState, match="RUNNING"):
            await world.desired.trigger(JobName("job"))

    play(scenario, world)


def test_an_executor_that_cannot_be_reached_is_asked_again_and_people_see_why(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.submit_error = ExecutorUnavailable("the launcher is gone")
        await world.apply(job())
        await world.advance(0.05)
        await world.advance(0.1)
        assert world.host.launches == []
        (delayed,) = [event for event in await world.events() if event.reason == "Delayed"]
        assert (delayed.count, delayed.message) == (3, "the launcher is gone")
        world.host.submit_error = None
        await world.advance(0.2)
        (launch,) = world.host.launches
        assert launch.number == 1

    play(scenario, world)


def test_a_defect_in_the_work_on_one_job_does_not_end_the_others(world: World) -> None:
    async def scenario(world: World) -> None:
        def defect(launched: Launched) -> None:
            if launched.request.manifest.metadata.name == "bad":
                raise ZeroDivisionError("a defect")

        world.host.on_launch = defect
        await world.apply(job(name="bad"))
        await world.apply(job(name="good"))
        assert (await world.run("good")).phase is Phase.RUNNING
        assert "Delayed" in await world.reasons("bad")

    play(scenario, world)


@pytest.mark.parametrize("deleted", [False, True])
def test_what_could_not_be_cleaned_up_is_tried_again(world: World, deleted: bool) -> None:
    async def scenario(world: World) -> None:
        world.host.forget_error = ExecutorUnavailable("the cgroup is busy")
        await world.apply(job())
        await world.exit(0)
        assert (await world.run()).phase is Phase.COMPLETED
        if deleted:
            await world.delete()
        await world.reconciler.stop_all()  # does not wait for it for ever
        world.host.forget_error = None
        await world.advance(1)
        assert world.host.attempts == {}
        assert len(world.host.forgotten) == 1

    play(scenario, world)


def test_a_clock_that_was_set_back_delays_no_retry(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, initial: 10s, max: 10s}"))
        await world.exit(1)
        world.clock.set_wall(-86_400)
        await world.advance(10)
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_a_retry_of_tomorrow_is_looked_at_now_and_then(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, initial: 24h, max: 24h}"))
        await world.exit(1)
        world.clock.pass_time(86_400)  # the host slept: its clocks went on, the loop's did not
        await world.advance(60)
        assert len(world.host.launches) == 2

    play(scenario, world)


def test_usage_and_limits_of_what_runs_are_fresh_and_not_stored(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("limits: {memory: 64Mi}"))
        commits = world.store.commits
        view = await world.view()
        attempt = view.runs[0].attempts[0]
        assert attempt.usage is not None and attempt.usage.memory_bytes == 7
        assert [limit.name for limit in attempt.limits] == ["memory"]
        assert world.store.commits == commits

    play(scenario, world)


def test_a_lost_attempt_has_no_invented_exit_code(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        world.host.end(world.live_attempt(), Unknown("no record"), Reason.LOST)
        await world.settle()
        run = await world.run()
        assert (run.phase, run.reason, run.outcome) == (Phase.FAILED, Reason.LOST, Unknown("no record"))

    play(scenario, world)

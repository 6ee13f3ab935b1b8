"""maxConcurrentJobs: who runs, who waits, and in which order."""

from __future__ import annotations

from pathlib import Path

from jobletd.job_bounds import NO_BOUNDS, JobBounds
from jobletd.model import AttemptId, JobName, Phase, Reason
from jobletd.places import Bounds
from tests.unit.reconciler.world import World, job, play


def attempt_of(world: World, name: str) -> AttemptId:
    return next(attempt for attempt in world.host.attempts if attempt.rsplit("-", 2)[0] == name)


async def apply_in_order(world: World, *names: str, spec: str = "") -> None:
    for name in names:
        await world.apply(job(spec, name=name))
        await world.advance(1)


def test_the_rest_waits_in_the_order_of_creation_and_says_its_place(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await apply_in_order(world, "z", "y", "x", "w")
        assert [launch.manifest.metadata.name for launch in world.host.launches] == ["z", "y"]
        for name, place in (("x", 1), ("w", 2)):
            run = await world.run(name)
            assert (run.phase, run.reason, run.queue_position) == (Phase.PENDING, Reason.QUEUED, place)
        await world.exit(attempt=attempt_of(world, "y"))
        assert (await world.run("x")).phase is Phase.RUNNING
        assert (await world.run("w")).queue_position == 1

    play(scenario, World(tmp_path, max_concurrent=2))


def test_the_order_survives_a_restart(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await apply_in_order(world, "z", "y", "x", "w")
        await world.apply(job(name="y", labels="{team: data}"))  # its row is the newest now, its run is not
        await world.crash()
        world.max_concurrent = 2
        await world.boot()
        await world.settle()
        assert [launch.manifest.metadata.name for launch in world.host.launches] == ["z", "y"]
        await world.exit(attempt=attempt_of(world, "z"))
        await world.exit(attempt=attempt_of(world, "x"))
        assert [launch.manifest.metadata.name for launch in world.host.launches] == ["z", "y", "x", "w"]

    play(scenario, World(tmp_path, max_concurrent=1))


def test_a_stopped_or_deleted_job_leaves_the_line(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await apply_in_order(world, "a", "b", "c", "d")
        await world.stop("b")
        await world.delete("c")
        assert (await world.run("d")).queue_position == 1
        assert (await world.run("b")).phase is Phase.STOPPED
        await world.exit(attempt=attempt_of(world, "a"))
        assert (await world.run("d")).phase is Phase.RUNNING

    play(scenario, World(tmp_path, max_concurrent=1))


def test_a_pause_before_a_retry_holds_no_place(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await apply_in_order(world, "a", "b", spec="retry: {limit: 1, initial: 10s}")
        await world.exit(1, attempt_of(world, "a"))
        assert (await world.run("a")).phase is Phase.SCHEDULED
        assert (await world.run("b")).phase is Phase.RUNNING
        await world.advance(10)
        run = await world.run("a")
        assert (run.phase, run.queue_position) == (Phase.PENDING, 1)
        await world.exit(0, attempt_of(world, "b"))
        assert (await world.run("a")).phase is Phase.RUNNING

    play(scenario, World(tmp_path, max_concurrent=1))


def test_a_replaced_job_goes_to_the_end_of_the_line(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await apply_in_order(world, "a", "b", "c")
        await world.apply(job(name="b", command="[sleep, '2']"))
        assert (await world.run("c")).queue_position == 1
        assert (await world.run("b")).queue_position == 2
        await world.exit(attempt=attempt_of(world, "a"))
        await world.exit(attempt=attempt_of(world, "c"))
        assert world.host.launches[-1].manifest.spec.command == ("sleep", "2")

    play(scenario, World(tmp_path, max_concurrent=1))


def test_the_bound_holds_when_many_jobs_end_at_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.host.on_launch = lambda _: most.append(len(world.host.live()))
        most: list[int] = []
        for number in range(30):
            await world.apply(job(name=f"job-{number}"))
        while live := world.host.live():
            for launched in live:
                world.host.exit(launched.request.attempt_id)
            await world.settle()
        assert max(most) == 4
        assert len(world.host.launches) == 30
        assert world.reconciler.running == 0
        assert await world.desired.trigger(JobName("job-0"))

    play(scenario, World(tmp_path, max_concurrent=4))


def test_those_who_moved_up_are_told_in_time(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await apply_in_order(world, "a", "b", "c", "d")
        heard: list[tuple[str, int]] = []
        world.desired.on_change(lambda name, view: heard.append((name, view.runs[0].queue_position if view else 0)))
        await world.exit(attempt=attempt_of(world, "a"))
        assert ("d", 2) not in heard
        await world.advance(1)
        assert heard[-2:] == [("c", 1), ("d", 2)]

    play(scenario, World(tmp_path, max_concurrent=1))


def test_a_bound_that_is_changed_counts_for_those_who_wait(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        def bound(number: int) -> None:
            world.reconciler.reconfigure(bounds=Bounds(number), job_bounds=NO_BOUNDS)

        await apply_in_order(world, "a", "b", "c", "d", "e")
        bound(2)
        await world.settle()
        assert (await world.run("b")).phase is Phase.RUNNING
        assert (await world.run("c")).queue_position == 1
        bound(1)  # who runs goes on; the next waits until fewer run
        await world.exit(attempt=attempt_of(world, "a"))
        assert (await world.run("c")).phase is Phase.PENDING
        bound(0)
        await world.settle()
        assert [(await world.run(name)).phase for name in "cde"] == [Phase.RUNNING] * 3
        assert len(world.registry.waiting) == 0

    play(scenario, World(tmp_path, max_concurrent=1))


def test_limits_and_time_that_the_configuration_gives_are_not_put_on_record(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bounds = JobBounds(cpu_percent=50, memory_bytes=1 << 20, run_seconds=60)
        world.reconciler.reconfigure(bounds=Bounds(), job_bounds=bounds)
        await world.apply(job(name="a"))
        (launch,) = world.host.launches
        limits = launch.manifest.spec.limits
        assert (limits.cpu_percent, limits.memory_bytes, launch.deadline_seconds) == (50, 1 << 20, 60)
        run = await world.run("a")
        assert run.manifest.spec.limits.cpu_percent is None and run.manifest.spec.timeout_seconds is None
        again = await world.apply(job(name="a"))
        assert again.consequence == "nothing changes"

    play(scenario, World(tmp_path))

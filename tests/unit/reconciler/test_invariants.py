"""Whatever people, commands and power cuts do, in whatever order: the invariants of the design hold."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobletd.arrays.index_runs import job_part
from jobletd.arrays.progress import OPEN, mark_of
from jobletd.errors import NoSuchJob, WrongState
from jobletd.live_attempts import ATTEMPTS_KEPT
from jobletd.model import Action, JobName, JobView, Phase, Reason
from tests.unit.reconciler.world import CLIENT, Fuse, World, job, manifests, run_loop

NAMES = ("a", "b", "c")
SPECS = (
    job(),
    job(command="[sleep, '2']"),
    job("limits: {memory: 64Mi}"),
    job("suspend: true"),
    job("retry: {limit: 2, initial: 1s, max: 2s}"),
    job("restart: Always, retry: {initial: 1s, max: 2s}"),
    job("timeout: 3s, retry: {limit: 9, initial: 1s}"),
    job("array: {to: 3, parallel: 2}"),
    job("array: {to: 4, parallel: 2}, retry: {limit: 1, initial: 1s}"),
    job("array: {to: 4, parallel: 3}, retry: {limit: 1, initial: 1s}"),
    job("array: {to: 3, success: any}, limits: {memory: 64Mi}"),
    job("array: {to: 5, parallel: 2, failFast: true}, schedule: {every: 5s, overlap: Queue}"),
    job("schedule: {every: 5s, overlap: Queue}"),
    job("schedule: {every: 5s, overlap: Replace}, retry: {limit: 1, initial: 1s}"),
)
ARRAY = job("array: {to: 3, parallel: 2}", name="a")
names = st.sampled_from(NAMES)
applies = st.tuples(st.just("apply"), names, st.sampled_from(SPECS))
exits = st.tuples(st.just("exit"), st.sampled_from(("", "", *NAMES)), st.sampled_from((0, 1)))
drains = st.tuples(st.just("drain"), st.sampled_from((0, 1)))
advances = st.tuples(st.just("advance"), st.sampled_from((1, 2, 60)))
retries = st.tuples(st.just("retry"))
# Chosen from lists, as one_of takes each strategy once, however often it is given.
works = st.sampled_from([applies, exits, exits, drains, retries]).flatmap(lambda one: one)
others = st.one_of(
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("stop"), names, st.booleans()),
    st.tuples(st.just("trigger"), names),
    st.tuples(st.just("stubborn"), st.booleans()),
    st.tuples(st.just("reboot")),
    st.tuples(st.just("shutdown")),
    st.tuples(st.just("interrupt")),
    st.tuples(st.just("cordon"), st.booleans()),
)
crashes = st.tuples(st.just("crash"), st.integers(0, 7), works)
operations = st.sampled_from([works, works, works, advances, retries, crashes, crashes, others]).flatmap(
    lambda one: one
)


async def do(world: World, operation: tuple[object, ...]) -> None:
    match operation:
        case ("apply", str(name), str(text)):
            await apply_twice(world, text.replace("name: job", f"name: {name}"))
        case ("delete", str(name)):
            await world.desired.delete(JobName(name), source=CLIENT)
        case ("stop", str(name), bool(force)):
            await world.desired.stop(name, force=force)
        case ("trigger", str(name)):
            await world.desired.trigger(JobName(name))
        case ("retry",):
            await retry_all(world)
        case ("exit", str(name), int(code)):
            end(world, code, name)
        case ("drain", int(code)):
            await drain(world, code)
        case ("advance", int(seconds)):
            await world.advance(seconds)
        case _:
            await do_to_the_host(world, operation)


def end(world: World, code: int, name: str = "") -> None:
    for launched in world.host.live():
        if name in ("", job_part(JobName(launched.request.manifest.metadata.name))):
            world.host.exit(launched.request.attempt_id, code)


async def retry_all(world: World) -> None:
    """All that may be: seldom more than one."""
    for name in NAMES:
        with suppress(NoSuchJob, WrongState):
            await world.desired.retry(name, [])


async def drain(world: World, code: int) -> None:
    """What runs ends so, and whatever comes after it well: the way to arrays that are over and may be retried."""
    for _ in range(8):
        end(world, code)
        await world.advance(2)
        code = 0


async def do_to_the_host(world: World, operation: tuple[object, ...]) -> None:
    match operation:
        case ("stubborn", bool(ignores)):
            world.host.ignores_stop = ignores
        case ("crash", int(steps), tuple(over)):
            await crash_over(world, steps, over)
        case ("reboot",):
            await world.crash()
            world.host.reboot()
            await world.boot()
        case ("shutdown",):
            await shut_down(world)
        case ("interrupt",):
            await world.reconciler.stop_runs(lambda _: True)
        case ("cordon", True):
            await world.maintenance.cordon("somebody", "")
        case ("cordon", False):
            await world.maintenance.uncordon("somebody")


async def shut_down(world: World) -> None:
    """Told to end, and told again if somebody makes use of its grace; then started anew."""
    stopping = asyncio.ensure_future(world.reconciler.stop_all())
    await world.settle()
    await world.reconciler.hurry()
    await stopping
    assert world.host.live() == []
    await world.crash()
    await world.boot()


async def apply_twice(world: World, text: str) -> None:
    """Invariant 7: the second time changes nothing, and invariant 3's first half: what was answered is on record."""
    (first,) = await world.desired.apply(manifests(text), CLIENT)
    (again,) = await world.desired.apply(manifests(text), CLIENT)
    assert (again.action, again.generation) == (Action.UNCHANGED, first.generation)


async def crash_over(world: World, steps: int, operation: tuple[object, ...]) -> None:
    """Die so many steps into it and what follows from it, or when there is nothing left to do."""
    world.fuse.at = len(world.fuse.steps) + steps
    with suppress(NoSuchJob, WrongState):
        await world.until_dead(do(world, operation))
    await world.crash()
    await world.boot(Fuse())


def check(world: World) -> None:
    """Invariant 1: at most one live attempt a run, and of a job."""
    assert world.host.broken_promises == []
    live = [launched.request for launched in world.host.live()]
    assert len({request.run_id for request in live}) == len(live)
    assert len({request.manifest.metadata.name for request in live}) == len(live)
    for view in world.registry.everything():
        check_job(view)
    for view in world.registry.views.values():
        check_arrays(world, view)


def check_job(view: JobView) -> None:
    assert view.generation >= view.observed_generation
    for run in view.runs:
        assert len([attempt for attempt in run.attempts if attempt.end is None]) <= 1
        assert not (run.phase.is_final and any(attempt.end is None for attempt in run.attempts))


def check_arrays(world: World, view: JobView) -> None:
    """Of an array no more is open than it may have open, and what is in memory is one thing with what is on record."""
    for run in view.runs:
        if not run.marks or run.phase.is_final:
            continue
        array = world.registry.arrays[run.id]
        assert run.manifest.spec.array is not None
        most = max(run.manifest.spec.array.parallel, 3)  # it may have been more a moment ago
        assert len(array.open) == array.progress.count(*OPEN) <= most
        for index, name in array.open.items():
            (one,) = world.registry.arrays.indexes[name].runs
            assert array.progress[index] is mark_of(one.phase, one.reason)
            assert one.generation == run.generation


async def check_index_records(world: World) -> None:
    """No index has two runs in one array, and each array that is over says of its indexes what their own records say."""

    def select(connection: sqlite3.Connection) -> list[tuple[str, int, str, str, str]]:
        query = """
            SELECT runs.id, indexes.array_index, indexes.phase, indexes.reason, runs.array_marks
            FROM runs JOIN runs AS indexes ON indexes.job_uid = runs.id AND indexes.array_index IS NOT NULL
        """
        return connection.execute(query).fetchall()

    found = await world.store.read(select)
    assert len({(array, index) for array, index, *_ in found}) == len(found)
    for _, index, phase, reason, marks in found:
        assert marks[index] == mark_of(Phase(phase), Reason(reason))
    latest = """
        SELECT id, array_marks FROM runs WHERE array_marks != ''
        AND rowid = (SELECT max(rowid) FROM runs AS other WHERE other.job_uid = runs.job_uid)
    """  # a retry takes over the records of the run before
    recorded = {(array, index) for array, index, *_ in found}
    for array, marks in await world.store.read(lambda connection: connection.execute(latest).fetchall()):
        assert {(array, index) for index, mark in enumerate(marks) if mark == "s"} <= recorded


async def check_records(world: World) -> None:
    """Invariant 2: each launch ends with exactly one outcome on record, and nothing is on record that was not launched or
    lost before its launch."""
    attempts = await world.all_attempts()
    by_id = {attempt.id: attempt for attempt in attempts}
    launches_of = Counter(launch.run_id for launch in world.host.launches)
    for launch in world.host.launches:
        if launch.attempt_id in by_id or launches_of[launch.run_id] <= ATTEMPTS_KEPT:  # of more, the oldest but one go
            assert by_id[launch.attempt_id].end is not None
    assert all(attempt.end is not None for attempt in attempts)


Operations = list[tuple[object, ...]]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(applies, min_size=1, max_size=3),
    st.lists(operations, min_size=5, max_size=25),
    st.sampled_from((0, 1, 2)),
)
@example([("apply", "a", ARRAY)], [("exit", "a", 1), *[("exit", "a", 0)] * 2, ("crash", 3, ("retry",))], 0)
@example([("apply", "a", ARRAY)], [("exit", "a", 1), *[("exit", "a", 0)] * 3, ("retry",), ("exit", "a", 0)], 1)
def test_the_invariants_hold_after_any_sequence_of_events(begin: Operations, sequence: Operations, places: int) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as directory:
            world = World(Path(directory), max_concurrent=places)
            await world.boot()
            for operation in (*begin, *sequence):
                try:
                    await do(world, operation)
                except (NoSuchJob, WrongState):
                    continue  # the sequence is blind
                await world.settle()
                check(world)
                if places:
                    assert len(world.host.live()) <= places
            await end_everything(world)
            await check_records(world)
            await check_index_records(world)
            await world.crash()

    run_loop(play())


async def end_everything(world: World) -> None:
    world.host.ignores_stop = False
    for name in list(await world.desired.owners()):
        await world.desired.delete(name, source=CLIENT)
    for launched in world.host.live():  # those that were stubborn when they were asked
        world.host.exit(launched.request.attempt_id, 1)
    await world.settle()
    await world.advance(60)
    for launched in world.host.live():
        world.host.exit(launched.request.attempt_id, 1)
    await world.settle()
    assert world.registry.views == {}, "a deleted job never went away"
    assert world.registry.arrays.indexes == {}, "an index outlived its array"
    assert world.host.attempts == {}, "something of an attempt was left on the host"
    assert world.reconciler.running == 0
    assert len(world.registry.waiting) == 0
    phases = await world.store.read(lambda connection: connection.execute("SELECT DISTINCT phase FROM runs").fetchall())
    assert all(Phase(phase).is_final for (phase,) in phases)

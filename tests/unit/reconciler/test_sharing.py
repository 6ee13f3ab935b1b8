"""Who goes first when places are scarce: priority, then the source with fewer places, then age; and the bound of one source."""

from __future__ import annotations

import random
from pathlib import Path

from jobletd.model import JobName, Phase, Reason, RunId, Source
from jobletd.sorted_keys import BLOCK, SortedKeys
from jobletd.waiting_line import Waiting, WaitingLine
from tests.unit.reconciler.world import World, job, play

ANNA, BERT = Source("grpc", "anna"), Source("grpc", "bert")


def started(world: World) -> list[str]:
    return [launch.manifest.metadata.name for launch in world.host.launches]


async def end_one_after_the_other(world: World) -> None:
    while live := world.host.live():
        await world.exit(attempt=live[0].request.attempt_id)


def test_the_higher_priority_goes_first_and_what_runs_is_left_alone(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name, spec in (("first", ""), ("low", "priority: 10"), ("plain", ""), ("high", "priority: 90")):
            await world.apply(job(spec, name=name))
            await world.advance(1)
        places = {name: (await world.run(name)).queue_position for name in ("high", "plain", "low")}
        assert places == {"high": 1, "plain": 2, "low": 3}
        assert (await world.run("first")).phase is Phase.RUNNING
        await end_one_after_the_other(world)
        assert started(world) == ["first", "high", "plain", "low"]

    play(scenario, World(tmp_path, max_concurrent=1))


def test_a_priority_that_changes_moves_a_run_that_waits_and_restarts_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name in ("first", "second", "third"):
            await world.apply(job(name=name))
            await world.advance(1)
        before = (await world.run("third")).id
        await world.apply(job("priority: 60", name="third"))
        await world.apply(job("priority: 60", name="first"))
        assert (await world.run("third")).id == before
        assert (await world.run("third")).queue_position == 1
        await end_one_after_the_other(world)
        assert started(world) == ["first", "third", "second"]

    play(scenario, World(tmp_path, max_concurrent=1))


def test_a_source_that_comes_late_takes_turns_with_one_that_has_many(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(6):
            await world.apply(job(name=f"a{number}"), ANNA)
            await world.advance(1)
        for number in range(2):
            await world.apply(job(name=f"b{number}"), BERT)
            await world.advance(1)
        assert (await world.run("b0")).queue_position == 1
        assert (await world.run("b1")).queue_position == 3
        await end_one_after_the_other(world)
        assert started(world) == ["a0", "b0", "a1", "b1", "a2", "a3", "a4", "a5"]

    play(scenario, World(tmp_path, max_concurrent=1))


def test_who_holds_fewer_places_is_served_until_all_hold_as_many(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(8):
            await world.apply(job(name=f"a{number}"), ANNA)
            await world.advance(1)
        for number in range(4):
            await world.apply(job(name=f"b{number}"), BERT)
            await world.advance(1)
        for name in ("a0", "a1", "a2"):
            attempt = next(a for a in world.host.attempts if a.startswith(f"{name}-"))
            await world.exit(attempt=attempt)
        assert started(world)[4:] == ["b0", "b1", "a4"], "two places each, then whoever has lost one"

    play(scenario, World(tmp_path, max_concurrent=4))


def test_the_files_of_the_spool_count_as_one_source_and_so_do_those_of_a_repository() -> None:
    assert Source("spool", "a.yml").share == Source("spool", "b.yml").share
    assert Source("git", "ours@1234:a.yml").share == Source("git", "ours@5678:b.yml").share
    assert len({ANNA.share, BERT.share, Source("spool", "a").share, Source("git", "ours@1:a").share}) == 4


def test_one_source_has_at_most_its_bound_and_the_others_go_on(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(4):
            await world.apply(job("priority: 100", name=f"a{number}"), ANNA)
            await world.advance(1)
        await world.apply(job("priority: 0", name="b0"), BERT)
        assert started(world) == ["a0", "a1", "b0"]
        run = await world.run("a2")
        assert (run.phase, run.reason, run.queue_position) == (Phase.PENDING, Reason.QUEUED, 1)
        await world.exit(attempt=next(a for a in world.host.attempts if a.startswith("a0-")))
        assert started(world)[-1] == "a2"

    play(scenario, World(tmp_path, per_source=2))


def test_a_place_that_was_kept_for_a_job_that_cannot_use_it_is_given_on(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.apply(job("volumes: [{name: data, path: /data}]", name="second"))
        await world.advance(1)
        await world.apply(job(name="third"))
        assert (await world.run("second")).reason is Reason.WAITING
        await world.exit(attempt=next(a for a in world.host.attempts if a.startswith("first-")))
        assert started(world) == ["first", "third"]

    play(scenario, World(tmp_path, max_concurrent=1))


def waiting(number: int, *, priority: int = 50, share: str = "spool") -> Waiting:
    return Waiting(RunId(f"r{number}"), JobName(f"job-{number}"), priority, share, number)


def test_every_position_is_the_turn_at_which_one_is_served_when_nobody_ends() -> None:
    choose = random.Random(4)
    line = WaitingLine()
    everybody = [waiting(number, priority=choose.choice((10, 50)), share=choose.choice("abc")) for number in range(200)]
    for one in choose.sample(everybody, len(everybody)):
        line.add(one)
    line.held.update({"a": 7, "b": 2})
    told = {one.run_id: line.position(one.run_id) for one in everybody}
    assert sorted(told.values()) == list(range(1, 201))
    turns: dict[RunId, int] = {}
    while served := line.next(0):
        turns[served.run_id] = len(turns) + 1
        line.held[served.share] += 1
    assert told == turns
    assert len(line) == 0


def test_sorted_keys_are_what_a_sorted_list_is() -> None:
    choose = random.Random(7)
    keys: SortedKeys[tuple[int]] = SortedKeys()
    expected: list[tuple[int]] = []
    for _ in range(6 * BLOCK):
        key = (choose.randrange(10**6),)
        if key not in expected:
            keys.add(key)
            expected.append(key)
    for key in choose.sample(expected, 4 * BLOCK):
        keys.remove(key)
        expected.remove(key)
    expected.sort()
    assert (list(keys), len(keys), keys.first()) == (expected, len(expected), expected[0])
    assert [keys.before(key) for key in expected] == list(range(len(expected)))
    for key in expected:
        keys.remove(key)
    assert (len(keys), keys.before((5,))) == (0, 0)

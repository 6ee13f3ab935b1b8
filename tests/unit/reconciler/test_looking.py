"""What is told about jobs: by name, id or label, now and as it changes; events and output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobletd.errors import AmbiguousRef, NoSuchJob, WatcherTooSlow, WrongState
from jobletd.executor import LogQuery
from jobletd.model import Event, JobChange, JobName, JobView, LogEntry, Phase, Run, RunId
from jobletd.saves import Save
from jobletd.selectors import LabelSelector
from jobletd.subscription import WATCH_QUEUE
from tests.unit.reconciler.world import ALL, World, job, play

FOLLOW = LogQuery(follow=True)


async def next_change(watch: AsyncIterator[JobChange]) -> tuple[str, str]:
    change = await anext(watch)
    return change.type, change.job.name if change.job else ""


async def listed(world: World, selector: str = "", phases: frozenset[Phase] = frozenset(), **page: Any) -> list[str]:
    page = {"limit": 100, "after": "", **page}
    return [
        view.name
        for view in await world.desired.list_jobs(selector=LabelSelector.parse(selector), phases=phases, **page)
    ]


def test_a_run_is_found_by_its_id_and_its_beginning(world: World) -> None:
    async def scenario(world: World) -> None:
        first = await world.apply(job())
        await world.exit(0)
        await world.apply(job(command="[sleep, '2']"))
        assert first.run_id is not None
        for ref in (first.run_id, first.run_id[:4], first.run_id[:7]):
            view = await world.view(ref)
            assert (view.name, [run.id for run in view.runs]) == ("job", [first.run_id])
        with pytest.raises(NoSuchJob):
            await world.view(first.run_id[:3])
        assert len((await world.view()).runs) == 1
        assert [run.generation for run in await world.history()] == [2, 1]

    play(scenario, world)


def test_a_beginning_of_several_ids_is_ambiguous(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        run = await world.run()
        view = await world.view()
        twins = [
            Run(RunId(f"same{n}xyz"), run.job, view.uid, 1, "manual", Phase.STOPPED, run.manifest, n) for n in (1, 2)
        ]
        await world.registry.save(Save(world.registry.views[JobName("job")], runs=twins))
        with pytest.raises(AmbiguousRef, match="several runs"):
            await world.view("same")
        assert (await world.run("same1")).id == "same1xyz"

    play(scenario, world)


def test_an_unknown_name_is_answered_with_the_nearest_ones(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="nightly-report"))
        with pytest.raises(NoSuchJob) as caught:
            await world.view("nigthly-report")
        assert caught.value.nearest == ("nightly-report",)
        assert "did you mean nightly-report?" in str(caught.value)

    play(scenario, world)


def test_jobs_are_listed_by_name_in_pages_and_by_label_and_phase(world: World) -> None:
    async def scenario(world: World) -> None:
        for name, team in (("c", "data"), ("a", "data"), ("d", "web"), ("b", "web")):
            await world.apply(job(name=name, labels=f"{{team: {team}}}"))
        world.host.exit(next(attempt for attempt in world.host.attempts if attempt.startswith("d-")), 1)
        await world.settle()
        assert await listed(world) == ["a", "b", "c", "d"]
        assert await listed(world, limit=2) == ["a", "b"]
        assert await listed(world, limit=2, after="b") == ["c", "d"]
        assert await listed(world, "team=data") == ["a", "c"]
        assert await listed(world, phases=frozenset({Phase.FAILED})) == ["d"]
        assert await listed(world, "team=web", frozenset({Phase.RUNNING})) == ["b"]

    play(scenario, world)


def test_a_watcher_sees_what_is_and_then_each_change(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="a"))
        watch = world.desired.watch(None, ALL)
        assert await next_change(watch) == ("ADDED", "a")
        assert await next_change(watch) == ("SYNCED", "")
        await world.apply(job(name="b"))
        assert await next_change(watch) == ("ADDED", "b")
        seen: list[JobView] = []
        while not seen or seen[-1].runs[0].phase is not Phase.RUNNING:
            change = await anext(watch)
            assert change.type == "MODIFIED" and change.job is not None and change.job.name == "b"
            seen.append(change.job)
        await world.delete("b")
        while (change := await anext(watch)).type != "DELETED":
            assert change.type == "MODIFIED"
        await watch.aclose()  # type: ignore[attr-defined]

    play(scenario, world)


def test_a_watcher_of_labels_is_told_when_a_job_leaves_them(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="a", labels="{team: data}"))
        watch = world.desired.watch(None, LabelSelector.parse("team=data"))
        assert [await next_change(watch) for _ in range(2)] == [("ADDED", "a"), ("SYNCED", "")]
        await world.apply(job(name="b", labels="{team: web}"))
        await world.apply(job(name="a", labels="{team: web}"))
        assert await next_change(watch) == ("DELETED", "a")
        await world.apply(job(name="b", labels="{team: data}"))
        assert await next_change(watch) == ("MODIFIED", "b")
        await watch.aclose()  # type: ignore[attr-defined]

    play(scenario, world)


def test_a_watcher_of_one_job_hears_of_no_other_and_of_no_unknown_one(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job(name="a"))
        watch = world.desired.watch("a", ALL)
        assert [await next_change(watch) for _ in range(2)] == [("ADDED", "a"), ("SYNCED", "")]
        await world.apply(job(name="b"))
        await world.apply(job(name="a", labels="{x: y}"))
        assert await next_change(watch) == ("MODIFIED", "a")
        with pytest.raises(NoSuchJob):
            await anext(world.desired.watch("nobody", ALL))
        await watch.aclose()  # type: ignore[attr-defined]

    play(scenario, world)


def test_a_watcher_that_does_not_read_is_ended_and_holds_nobody_up(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        watch = world.desired.watch(None, ALL)
        assert [await next_change(watch) for _ in range(2)] == [("ADDED", "job"), ("SYNCED", "")]
        view = world.registry.views[JobName("job")]
        waiting = asyncio.ensure_future(next_change(watch))
        await asyncio.sleep(0)
        (subscription,) = world.registry._listeners[""]
        await world.registry.save(*[Save(view)] * (WATCH_QUEUE + 10))
        assert subscription.queue.qsize() == 1, "nothing is held for who will not get it"
        with pytest.raises(WatcherTooSlow):
            await waiting

    play(scenario, world)


def test_repeats_of_an_event_are_counted(world: World) -> None:
    async def scenario(world: World) -> None:
        for _ in range(3):
            await world.desired.record_event("job", "", "Warning", "Invalid", "line 3")
            await world.advance(1)
        await world.desired.record_event("job", "", "Warning", "Invalid", "line 4")
        first, second = await world.events()
        assert (first.count, first.last_ns - first.first_ns, second.count) == (3, 2 * 10**9, 1)

    play(scenario, world)


def test_each_transition_of_a_run_is_an_event(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1}"))
        await world.exit(1)
        await world.advance(10)
        await world.exit(0)
        await world.apply(job("retry: {limit: 1}", command="[sleep, '2']"))
        await world.stop()
        assert await world.reasons() == [
            "Created", "Started", "Retrying", "Started", "Completed",
            "Configured", "Started", "Stopping", "Stopped",
        ]  # fmt: skip
        run = (await world.history())[1]
        assert [event.reason for event in await world.events(run.id)][1:] == [
            "Started",
            "Retrying",
            "Started",
            "Completed",
        ]

    play(scenario, world)


def test_a_follower_of_events_gets_old_and_new_ones_once(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        follower = world.desired.events("job", follow=True, since_ns=0)
        assert [(await anext(follower)).reason for _ in range(2)] == ["Created", "Started"]
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        await world.store.read(lambda _: None)  # answered after the follower's look at what was left
        await world.exit(2)
        await world.desired.record_event("other", "", "Normal", "Elsewhere", "")
        await world.desired.record_event("job", "", "Normal", "Twice", "")
        await world.desired.record_event("job", "", "Normal", "Twice", "")
        got: list[Event] = [await waiting, await anext(follower), await anext(follower)]
        assert [(event.reason, event.count) for event in got] == [("Failed", 1), ("Twice", 1), ("Twice", 2)]
        await follower.aclose()  # type: ignore[attr-defined]

    play(scenario, world)


def test_a_look_at_events_may_begin_with_the_latest(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        for reason in ("A", "B", "C"):
            await world.desired.record_event("job", "", "Normal", reason, "")
            await world.desired.record_event("other", "", "Normal", reason, "")
        for tail, reasons in (
            (2, ["B", "C"]),
            (4, ["Started", "A", "B", "C"]),
            (100, ["Created", "Started", "A", "B", "C"]),
        ):
            events = world.desired.events("job", follow=False, since_ns=0, tail=tail)
            assert [event.reason async for event in events] == reasons

    play(scenario, world)


def test_events_since_a_time_and_of_a_deleted_job(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        await world.advance(5)
        since = world.clock.now_ns
        await world.delete()
        events = [event async for event in world.desired.events("job", follow=False, since_ns=since)]
        assert [event.reason for event in events] == ["Deleting", "Stopped", "Deleted"]
        with pytest.raises(NoSuchJob):
            await world.events("never-was")

    play(scenario, world)


async def texts(output: AsyncIterator[list[LogEntry]]) -> list[int]:
    return [entry.attempt async for batch in output for entry in batch]


def test_output_comes_attempt_after_attempt_until_the_run_is_over(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1}"))
        reader = asyncio.create_task(texts(world.desired.logs("job", 0, FOLLOW)))
        await world.exit(1)
        await world.advance(10)
        assert not reader.done()
        await world.exit(0)
        assert await reader == [1, 2]
        assert await texts(world.desired.logs("job", 2, LogQuery())) == [2]
        assert await texts(world.desired.logs("job", 0, LogQuery(tail_lines=1))) == [2]
        with pytest.raises(WrongState, match="no attempt 3"):
            await texts(world.desired.logs("job", 3, FOLLOW))

    play(scenario, world)


def test_who_follows_the_output_of_one_job_is_not_ended_by_the_changes_of_others(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1}"))
        await world.apply(job(name="busy"))
        world.host.exit(next(attempt for attempt in world.host.attempts if attempt.startswith("job-")), 1)
        await world.settle()
        reader = asyncio.create_task(texts(world.desired.logs("job", 0, FOLLOW)))
        await asyncio.sleep(0)
        busy, own = (world.registry.views[JobName(name)] for name in ("busy", "job"))
        await world.registry.save(*[Save(busy)] * (WATCH_QUEUE + 10), *[Save(own)] * (WATCH_QUEUE + 10))
        await world.advance(10)
        world.host.exit(next(attempt for attempt in world.host.attempts if attempt.startswith("job-")), 0)
        await world.settle()
        assert await reader == [1, 2]

    play(scenario, world)


def test_a_job_that_has_not_run_has_no_output(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("suspend: true"))
        with pytest.raises(WrongState, match="has not run yet"):
            await texts(world.desired.logs("job", 0, FOLLOW))

    play(scenario, world)


def test_listeners_hear_of_each_change_with_what_is_shown(world: World) -> None:
    async def scenario(world: World) -> None:
        heard: list[tuple[str, str]] = []
        world.desired.on_change(
            lambda name, view: heard.append((name, view.conditions[-1].reason if view is not None else "gone"))
        )
        await world.apply(job())
        await world.exit(0)
        await world.delete()
        assert heard[0] == ("job", "Queued")
        assert ("job", "Running") in heard and ("job", "Completed") in heard
        assert heard[-1] == ("job", "gone")

    play(scenario, world)

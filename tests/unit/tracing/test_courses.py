"""The spans of a run as it goes its way: what waits, is retried, never starts, dies with the daemon at any step."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from joblet.manifest import read_manifests
from joblet.trace_context import TraceContext, new_id
from jobletd.errors import NoSuchJob
from jobletd.model import JobName, Phase
from jobletd.store import trace_rows
from jobletd.tracing import incoming
from jobletd.tracing.span import Span
from jobletd.tracing.tracing import Tracing
from tests.unit.reconciler.stepped_clock import SteppedClock
from tests.unit.reconciler.world import CLIENT, Fuse, World, job, play

CLIENTS = TraceContext(new_id(16), new_id(8), sampled=True)
FLOW = """
apiVersion: joblet/v1
kind: Workflow
metadata: {name: wf}
spec:
  steps:
    - {name: a, job: {command: [a]}}
    - {name: b, needs: [{step: a}], job: {command: [b]}}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.spans = []
    return world


def names(world: World) -> list[str]:
    assert world.spans is not None
    return [span.name.removeprefix("joblet.") for span in world.spans]


def named(world: World, name: str) -> list[Span]:
    assert world.spans is not None
    return [span for span in world.spans if span.name == f"joblet.{name}"]


def test_each_attempt_has_its_spans_and_the_run_is_above_them(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("retry: {limit: 1, initial: 10s}"))
        await world.exit(1)
        await world.advance(11)
        await world.exit(0)

    play(scenario, world)
    once = ["wait", "reconcile", "launch", "command", "outcome"]
    assert names(world) == ["store", "apply", *once, *once, "run"]
    assert [span.attributes["joblet.decision"] for span in named(world, "outcome")] == ["retry", "finish"]
    assert [span.attributes["joblet.reason"] for span in named(world, "wait")] == ["", "BackOff"]
    back_off = named(world, "wait")[1]
    assert back_off.ended_ns - back_off.began_ns >= 10 * 10**9
    failed, good = named(world, "command")
    assert failed.fault.startswith("ExitCode") and good.fault == ""
    (run,) = named(world, "run")
    assert run.fault == "" and run.attributes["joblet.attempts"] == 2
    (apply,) = named(world, "apply")
    assert (apply.above, run.above) == ("", apply.context.span_id)
    below = [span for span in world.spans or () if span.name not in ("joblet.apply", "joblet.store", "joblet.run")]
    assert {span.above for span in below} == {run.context.span_id}


def test_a_run_that_waits_says_for_what(tmp_path: Path) -> None:
    world = World(tmp_path, max_concurrent=1)
    world.spans = []

    async def scenario(world: World) -> None:
        await world.apply(job(name="first"))
        await world.apply(job(name="second"))
        await world.exit()

    play(scenario, world)
    (waits,) = [span for span in named(world, "reconcile") if span.attributes["joblet.decision"] == "wait"]
    assert (waits.attributes["joblet.job"], waits.attributes["joblet.reason"]) == ("second", "Queued")
    assert [(span.attributes["joblet.job"], span.attributes["joblet.reason"]) for span in named(world, "wait")] == [
        ("first", ""),
        ("second", "Queued"),
    ]


def test_a_run_that_never_began_has_an_outcome(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job("dependsOn: [{job: other}]"))
        await world.stop()

    play(scenario, world)
    (outcome,) = named(world, "outcome")
    assert outcome.attributes["joblet.reason"] == "Stopped"
    assert named(world, "run")[0].attributes["joblet.attempts"] == 0


def test_a_source_that_changes_nothing_leaves_no_trace(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        await world.exit()
        assert world.spans
        world.spans.clear()
        await world.apply(job())

    play(scenario, world)
    assert world.spans == []


def test_a_sampled_flag_decides_for_the_whole_trace(world: World) -> None:
    client = TraceContext(new_id(16), new_id(8), sampled=False)

    async def scenario(world: World) -> None:
        incoming.call.set(incoming.Call(client))
        await world.apply(job())
        run = await world.run()
        assert run.trace is not None
        assert (run.trace.context.trace_id, run.trace.context.sampled) == (client.trace_id, False)
        (launched,) = world.host.live()
        assert launched.request.trace is not None and not launched.request.trace.sampled
        await world.exit()

    play(scenario, world)
    assert world.spans == []


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, 0), (1.0, 200)])
def test_the_ratio_is_of_traces_that_begin_here(ratio: float, recorded: int) -> None:
    tracing = Tracing(lambda _: None, SteppedClock(), ratio)
    assert sum(tracing.place().context.sampled for _ in range(200)) == recorded


def test_without_tracing_nothing_is_kept(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scenario(world: World) -> None:
        await world.apply(job())
        assert (await world.run()).trace is None
        (launched,) = world.host.live()
        assert launched.request.trace is None
        assert not await world.store.read(trace_rows.are_there)

    play(scenario, world)


def test_what_is_kept_goes_with_its_run(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(job())
        run = await world.run()

        def remove(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM runs WHERE id = ?", (run.id,))

        assert await world.store.read(trace_rows.are_there)
        await world.store.write(remove)
        assert not await world.store.read(trace_rows.are_there)

    play(scenario, world)


def walked(directory: Path, fuse: Fuse, steps: Callable[[World], Coroutine[Any, Any, None]]) -> list[Span]:
    """What was told of a course whose daemon dies where the fuse says; the next one goes on."""
    directory.mkdir()
    world = World(directory)
    world.spans = []

    async def scenario(world: World) -> None:
        incoming.call.set(incoming.Call(CLIENTS))
        walk = asyncio.create_task(steps(world))
        blown = asyncio.create_task(world.fuse.blown.wait())
        await asyncio.wait({walk, blown}, return_when=asyncio.FIRST_COMPLETED)
        walk.cancel()
        blown.cancel()
        incoming.call.set(None)  # what a daemon does by itself belongs to no call
        await world.restart()
        incoming.call.set(incoming.Call(CLIENTS))
        await steps(world)  # who was not answered asks again

    play(scenario, world, fuse=fuse)
    return world.spans


def check(spans: list[Span]) -> None:
    """One trace, a tree, and nothing told twice."""
    assert {span.context.trace_id for span in spans} == {CLIENTS.trace_id}
    assert set(Counter(span.context.span_id for span in spans).values()) == {1}
    of_run = {span.attributes["joblet.run"]: span.context.span_id for span in spans if span.name == "joblet.run"}
    for span in spans:
        run = span.attributes.get("joblet.run")
        if run in of_run and span.name != "joblet.run":
            assert span.above == of_run[run], span


async def one_job(world: World) -> None:
    await world.apply(job())
    if world.host.live():
        await world.exit()
    assert (await world.run()).phase is Phase.COMPLETED


def test_wherever_the_daemon_dies_it_is_one_trace_and_no_span_is_told_twice(tmp_path: Path) -> None:
    counted = Fuse()
    whole = walked(tmp_path / "whole", counted, one_job)
    check(whole)
    assert [span.name for span in whole].count("joblet.run") == 1
    assert len(counted.steps) > 5
    for at in range(len(counted.steps)):
        check(walked(tmp_path / str(at), Fuse(at), one_job))


async def one_workflow(world: World) -> None:
    await world.desired.apply(read_manifests(FLOW.encode(), filename="wf.yml"), CLIENT)
    await world.settle()
    while world.host.live():
        await world.exit()


def test_wherever_the_daemon_dies_the_steps_are_below_their_workflow(tmp_path: Path) -> None:
    counted = Fuse()
    check_workflow(walked(tmp_path / "whole", counted, one_workflow), whole=True)
    for at in range(0, len(counted.steps), 3):
        check_workflow(walked(tmp_path / str(at), Fuse(at), one_workflow))


async def one_workflow_that_is_deleted(world: World) -> None:
    if not world.host.launches:  # else who was not answered asks for its end alone
        await world.desired.apply(read_manifests(FLOW.encode(), filename="wf.yml"), CLIENT)
    await world.settle()
    with suppress(NoSuchJob):
        await world.desired.delete(JobName("workflow/wf"), source=CLIENT)
    await world.settle()


def test_wherever_the_daemon_dies_the_end_of_a_deleted_workflow_is_told_at_most_once(tmp_path: Path) -> None:
    counted = Fuse()
    check_workflow(walked(tmp_path / "whole", counted, one_workflow_that_is_deleted), whole=True)
    for at in range(len(counted.steps)):
        check_workflow(walked(tmp_path / str(at), Fuse(at), one_workflow_that_is_deleted))


def check_workflow(spans: list[Span], *, whole: bool = False) -> None:
    check(spans)
    by_id = {span.context.span_id: span for span in spans}
    ends = [span for span in spans if span.name == "joblet.workflow"]
    steps = [
        span for span in spans if span.name == "joblet.apply" and span.attributes["joblet.source"] == "workflow:wf"
    ]
    # Of one that was killed between its record and its word, none.
    assert len(ends) == 1 if whole else len(ends) <= 1
    if ends:
        assert {step.above for step in steps} == {ends[0].context.span_id}
        above = by_id.get(ends[0].above)
        assert above is None or above.attributes["joblet.source"] == str(CLIENT)

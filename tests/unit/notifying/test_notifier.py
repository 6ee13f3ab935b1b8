"""Notifications on record: told with the end of a run, whoever dies, again until somebody takes them, and by commands as jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import jsonschema
import pytest

from joblet.manifest import read_manifests
from jobletd.model import JobName, Phase, Source
from jobletd.notifying.notifier import Notifier, Pace
from jobletd.policy import Policy
from tests.unit.notifying.receiver import Receiver, listening
from tests.unit.reconciler.world import CLIENT, World, job, play

SCHEMA = json.loads((Path(__file__).parents[3] / "schemas/notification.v1.schema.json").read_text())
PACE = Pace(first_seconds=2, longest_seconds=8, most_tries=4)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


def told(receiver: Receiver, on: str = "Finished", more: str = "") -> str:
    return job(f"notify: [{{on: [{on}], webhook: '{receiver.url}/hook?t=1'{more}}}]", labels="{team: data}")


@asynccontextmanager
async def notifying(world: World, receiver: Receiver | None = None) -> AsyncIterator[Notifier]:
    allowed = () if receiver is None else (receiver.url,)
    world.desired.reconfigure(Policy(webhooks=allowed))
    notifier = Notifier(world.registry, world.desired, world.resources.vault, allowed, PACE)
    task = asyncio.create_task(notifier.run())
    await notifier.started.wait()
    try:
        yield notifier
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settle(world: World, notifier: Notifier) -> None:
    for _ in range(4):  # each may give the other something to do
        await notifier.settle()
        await world.settle()


async def rows(world: World) -> int:
    return int(
        await world.store.read(
            lambda connection: connection.execute("SELECT count(*) FROM notifications").fetchone()[0]
        )
    )


def test_a_run_s_end_is_told_as_the_schema_says(world: World, receiver: Receiver) -> None:
    async def scenario(world: World) -> None:
        async with notifying(world, receiver) as notifier:
            await world.apply(told(receiver, "Failed"))
            await world.exit(3)
            await settle(world, notifier)
            (received,) = receiver.received
            body = json.loads(received.body)
            jsonschema.Draft202012Validator(SCHEMA).validate(body)
            run = await world.run()
            assert (body["event"], body["run"]["exitCode"], body["run"]["id"]) == ("Failed", 3, run.id)
            assert body["job"] == {"name": "job", "labels": {"team": "data"}, "generation": 1, "source": "grpc:admin"}
            assert body["id"] == received.headers["webhook-id"]
            assert await rows(world) == 0
            assert (await world.reasons())[-1] == "Notified"

    play(scenario, world)


@pytest.mark.parametrize(
    ("on", "count"), [("Succeeded", 0), ("TimedOut", 0), ("Stopped", 0), ("Finished", 1), ("Failed", 1)]
)
def test_only_what_was_asked_for_is_told(world: World, receiver: Receiver, on: str, count: int) -> None:
    async def scenario(world: World) -> None:
        async with notifying(world, receiver) as notifier:
            await world.apply(told(receiver, on))
            await world.exit(1)
            await settle(world, notifier)
            assert len(receiver.received) == count and await rows(world) == 0

    play(scenario, world)


def test_it_is_told_again_later_each_time_and_given_up_at_last(world: World, receiver: Receiver) -> None:
    async def scenario(world: World) -> None:
        receiver.statuses = [500] * 9
        async with notifying(world, receiver) as notifier:
            await world.apply(told(receiver))
            await world.exit(0)
            for pause in (2, 4, 8):
                await settle(world, notifier)
                seen = len(receiver.received)
                await world.advance(pause - 0.1)
                await settle(world, notifier)
                assert len(receiver.received) == seen
                await world.advance(0.2)
                await settle(world, notifier)
                assert len(receiver.received) == seen + 1
            assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
            assert len({one.body for one in receiver.received}) == 1
            assert await rows(world) == 0
            events = await world.events()
            assert events[-1].reason == "NotificationLost" and "given up after 4 tries" in events[-1].message
            assert all("t=1" not in event.message for event in events)

    play(scenario, world)


def test_what_was_not_told_is_told_by_the_next_daemon(world: World, receiver: Receiver) -> None:
    async def scenario(world: World) -> None:
        world.desired.reconfigure(Policy(webhooks=(receiver.url,)))
        await world.apply(told(receiver))
        await world.exit(0)  # with nobody there to tell it
        assert await rows(world) == 1
        await world.restart()
        async with notifying(world, receiver) as notifier:
            await settle(world, notifier)
            await asyncio.to_thread(receiver.wait_for, 1)
            await settle(world, notifier)
            assert await rows(world) == 0

    play(scenario, world)


def test_it_is_signed_with_a_secret_and_waits_until_that_is_there(world: World, receiver: Receiver) -> None:
    secret = b"apiVersion: joblet/v1\nkind: Secret\nmetadata: {name: hook}\nspec: {data: {hmac: s3cret}}\n"

    async def scenario(world: World) -> None:
        async with notifying(world, receiver) as notifier:
            await world.apply(told(receiver, more=", sign: {name: hook}"))
            await world.exit(0)
            await settle(world, notifier)
            assert receiver.received == []
            assert "secret/hook" in (await world.events())[-1].message
            await world.desired.apply(read_manifests(secret, filename="s.yml"), CLIENT)
            await world.advance(2.1)
            await settle(world, notifier)
            (received,) = receiver.received
            assert received.headers["webhook-signature"].startswith("v1,")

    play(scenario, world)


def test_what_the_configuration_does_not_allow_any_more_is_not_sent(world: World, receiver: Receiver) -> None:
    async def scenario(world: World) -> None:
        async with notifying(world, receiver) as notifier:
            await world.apply(told(receiver))
            notifier.allowed = ()
            await world.exit(0)
            await settle(world, notifier)
            assert receiver.received == [] and await rows(world) == 1
            assert "is not allowed any more" in (await world.events())[-1].message

    play(scenario, world)


def test_a_command_runs_as_a_job_of_its_own_in_the_sandbox_of_its_job_and_goes(world: World) -> None:
    async def scenario(world: World) -> None:
        async with notifying(world) as notifier:
            spec = "notify: [{on: [Failed], command: [tell]}], env: {A: b}, limits: {memory: 64Mi}, timeout: 9s"
            await world.apply(job(spec))
            await world.exit(4)
            await settle(world, notifier)
            run = await world.run()
            name = f"hook-{run.id}-0"
            view = await world.view(name)
            assert view.source == Source("hook", "job")
            made = view.manifest.spec
            assert (made.command, made.limits.memory_bytes, made.env["A"]) == (("tell",), 64 << 20, "b")
            assert json.loads(made.env["JOBLET_NOTIFICATION"])["run"]["exitCode"] == 4
            assert not made.notify
            await world.exit(0)
            await settle(world, notifier)
            assert JobName(name) not in world.registry.views and await rows(world) == 0
            assert (await world.reasons())[-1] == "Notified"
            assert len(world.host.launches) == 2

    play(scenario, world)


def test_a_command_that_fails_to_the_end_is_told_as_lost(world: World) -> None:
    async def scenario(world: World) -> None:
        async with notifying(world) as notifier:
            await world.apply(job("notify: [{on: [Failed], command: [tell]}]"))
            await world.exit(4)
            await settle(world, notifier)
            for _ in range(4):
                await world.exit(1)
                await world.advance(45)
                await settle(world, notifier)
            events = await world.events()
            assert events[-1].reason == "NotificationLost" and "rnx log" in events[-1].message
            assert len(world.registry.views) == 1

    play(scenario, world)


def test_a_command_s_job_runs_once_whenever_the_daemon_dies(world: World) -> None:
    async def scenario(world: World) -> None:
        async with notifying(world) as notifier:
            await world.apply(job("notify: [{on: [Failed], command: [tell]}]"))
            await world.exit(4)
            await settle(world, notifier)
        await world.exit(0)  # seen by nobody who would tell
        await world.restart()
        async with notifying(world) as notifier:
            await settle(world, notifier)
            assert (len(world.host.launches), len(world.registry.views), await rows(world)) == (2, 1, 0)

    play(scenario, world)


def test_a_run_that_its_dependency_failed_is_told_too(world: World, receiver: Receiver) -> None:
    async def scenario(world: World) -> None:
        async with notifying(world, receiver) as notifier:
            await world.apply(job(name="first"))
            hook = f"notify: [{{on: [Failed], webhook: '{receiver.url}'}}]"
            await world.apply(job(f"dependsOn: [{{job: first}}], {hook}", name="second"))
            await world.exit(1)
            await settle(world, notifier)
            body = json.loads(receiver.wait_for(1)[0].body)
            jsonschema.Draft202012Validator(SCHEMA).validate(body)
            assert (body["run"]["reason"], body["run"]["attempts"]) == ("DependencyFailed", 0)
            assert (await world.run("second")).phase is Phase.FAILED

    play(scenario, world)


def test_an_array_is_told_of_once_and_as_a_whole(world: World, receiver: Receiver) -> None:
    async def scenario(world: World) -> None:
        async with notifying(world, receiver) as notifier:
            hook = f"notify: [{{on: [Finished], webhook: '{receiver.url}/hook'}}]"
            await world.apply(job(f"array: {{to: 4, parallel: 2}}, {hook}"))
            while live := world.host.live():
                for one in live:
                    failed = one.request.manifest.spec.env["JOBLET_ARRAY_INDEX"] in ("2", "3")
                    world.host.exit(one.request.attempt_id, int(failed))
                await world.settle()
            await settle(world, notifier)
            (request,) = receiver.received
            body = json.loads(request.body)
            jsonschema.validate(body, SCHEMA)
            assert (body["event"], body["run"]["reason"]) == ("Failed", "IndexesFailed")
            counts = {"count": 5, "succeeded": 3, "failed": 2, "stopped": 0, "notRun": 0}
            assert body["run"]["array"] == {**counts, "failedIndexes": "2-3"}

    play(scenario, world)

"""Secrets in the daemon: sealed before they are stored, given to attempts alone, waited for, lost by no mistake with a key."""

from __future__ import annotations

from base64 import b64encode

import pytest

from joblet.manifest import read_manifests, to_yaml
from jobletd.model import Action, ApplyResult, JobName, Phase, Reason
from jobletd.secrets.errors import SecretUnknown
from tests.unit.reconciler.world import CLIENT, World, play

CANARY = "hunter2-canary"
SECRET = f"""
apiVersion: joblet/v1
kind: Secret
metadata: {{name: db}}
spec: {{data: {{password: {CANARY}}}, dataBase64: {{blob: AAEC}}}}
"""
JOB = """
apiVersion: joblet/v1
kind: Job
metadata: {name: user}
spec:
  command: ["true"]
  restart: Always
  secrets: [{name: db, key: password, env: PGPASSWORD}, {name: db}, {name: db, key: blob, path: x/y}]
"""
DB = JobName("secret/db")


async def apply(world: World, text: str, *, dry_run: bool = False) -> list[ApplyResult]:
    results = await world.desired.apply(read_manifests(text.encode(), filename="t.yml"), CLIENT, dry_run=dry_run)
    await world.settle()
    return results


def test_an_attempt_gets_the_values_and_nothing_else_has_them(world: World) -> None:
    async def scene(world: World) -> None:
        results = await apply(world, SECRET + "---" + JOB)
        (launched,) = world.host.live()
        given = launched.request.secrets
        assert given.env == {"PGPASSWORD": CANARY.encode()}
        assert given.files == {"db/password": CANARY.encode(), "db/blob": b"\0\1\2", "x/y": b"\0\1\2"}
        seen = [repr(results), repr(launched.request), repr(world.registry.resources), repr(world.registry.views)]
        seen += [repr(await world.desired.get_resource(DB)), repr(await world.desired.list_resources("Secret"))]
        seen += [to_yaml(result.desired) for result in results]
        dump = await world.store.read(lambda connection: "\n".join(connection.iterdump()))
        assert "secret/db" in dump
        for text in (*seen, dump):
            assert CANARY not in text and CANARY.encode().hex().upper() not in text.upper()
            assert b64encode(CANARY.encode()).decode().rstrip("=") not in text

    play(scene, world)


def test_the_same_values_change_nothing_and_others_are_seen_without_being_shown(world: World) -> None:
    async def scene(world: World) -> None:
        assert [one.action for one in await apply(world, SECRET)] == [Action.CREATED]
        assert [one.action for one in await apply(world, SECRET)] == [Action.UNCHANGED]
        (dry,) = await apply(world, SECRET.replace(CANARY, CANARY + "x"), dry_run=True)
        assert dry.action is Action.CONFIGURED and dry.current != dry.desired
        assert CANARY not in to_yaml(dry.desired) and "15:" in to_yaml(dry.desired)
        assert world.resources.vault.open(world.registry.resources[DB])["password"] == CANARY.encode()
        await apply(world, SECRET.replace(CANARY, CANARY + "x"))
        assert (await world.desired.get_resource(DB)).view.generation == 2
        assert world.resources.vault.open(world.registry.resources[DB])["password"] == CANARY.encode() + b"x"

    play(scene, world)


def test_what_is_shown_of_it_can_be_applied_again_and_keeps_the_values(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, SECRET)
        shown = to_yaml((await world.desired.get_resource(DB)).view.manifest)
        assert [one.action for one in await apply(world, shown)] == [Action.UNCHANGED]
        labelled = shown.replace("name: db", "name: db\n  labels: {a: b}")
        assert [one.action for one in await apply(world, labelled)] == [Action.CONFIGURED]
        assert world.resources.vault.open(world.registry.resources[DB])["password"] == CANARY.encode()
        with pytest.raises(SecretUnknown):
            await apply(world, shown.replace("name: db", "name: other"))

    play(scene, world)


def test_a_changed_secret_restarts_nothing_and_the_next_attempt_gets_it(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, SECRET + "---" + JOB)
        first = world.live_attempt()
        await apply(world, SECRET.replace(CANARY, "changed"))
        assert world.live_attempt() == first
        await world.exit(1)
        await world.advance(60)
        (launched,) = world.host.live()
        assert launched.request.attempt_id != first
        assert launched.request.secrets.env == {"PGPASSWORD": b"changed"}

    play(scene, world)


def test_a_job_waits_for_a_secret_and_for_the_key_it_names(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, JOB)
        run = (await world.desired.get("user")).runs[0]
        assert (run.phase, run.reason) == (Phase.PENDING, Reason.WAITING)
        assert run.message.startswith("secret/db does not exist")
        await apply(world, SECRET.replace("password:", "passwort:"))
        assert (await world.run("user")).message == "secret/db has no key password, only blob, passwort"
        await apply(world, SECRET)
        assert (await world.run("user")).phase is Phase.RUNNING

    play(scene, world)


def test_a_job_that_does_not_say_which_of_several_values_waits(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, SECRET + "---" + JOB.replace("key: password, ", ""))
        assert "does not say which: blob, password" in (await world.run("user")).message

    play(scene, world)


def test_with_another_key_everything_is_told_and_nothing_lost(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, SECRET)
        right = world.key_file.read_text()
        world.key_file.write_text("f" * 64)
        await world.restart()
        (condition,) = (await world.desired.get_resource(DB)).view.conditions
        assert condition.status == "False" and "was sealed under the host's key" in condition.message
        await apply(world, JOB)
        assert "put the earlier key back" in (await world.run("user")).message
        world.key_file.write_text(right)
        await world.advance(600)
        await world.settle()
        assert (await world.run("user")).phase is Phase.RUNNING

    play(scene, world)


def test_a_key_that_is_gone_is_not_replaced_by_a_new_one(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, SECRET)
        world.key_file.unlink()
        await world.restart()
        (condition,) = (await world.desired.get_resource(DB)).view.conditions
        assert "is gone" in condition.message and not world.key_file.exists()
        await world.desired.delete(DB, source=CLIENT)
        await world.settle()
        assert [one.action for one in await apply(world, SECRET)] == [Action.CREATED]
        assert world.key_file.exists()

    play(scene, world)


def test_a_damaged_secret_is_named_and_others_work(world: World) -> None:
    async def scene(world: World) -> None:
        await apply(world, SECRET + "---" + SECRET.replace("name: db", "name: good"))
        await world.store.write(
            lambda connection: connection.execute("UPDATE resources SET secret = x'00' WHERE key = 'secret/db'")
        )
        await world.restart()
        (bad,) = (await world.desired.get_resource(DB)).view.conditions
        assert bad.status == "False" and bad.message.startswith("secret/db: its sealed values are damaged")
        (good,) = (await world.desired.get_resource(JobName("secret/good"))).view.conditions
        assert good.status == "True"
        await apply(world, SECRET.replace(CANARY, "again"))
        assert (await world.desired.get_resource(DB)).view.conditions[0].status == "True"

    play(scene, world)

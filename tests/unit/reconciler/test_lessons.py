"""What users of the neighbours complain about, about plans, dry runs and names: each test is called after the lesson."""

from __future__ import annotations

import pytest

from joblet.manifest import ManifestErrors, read_manifests
from jobletd.errors import OwnershipConflict
from jobletd.model import Action, Phase, Reason, Source
from jobletd.policy import NotAllowed
from jobletd.sources.spool_files import is_manifest_name
from tests.unit.reconciler.world import CLIENT, World, job, manifests, play

SAME = (
    "limits: {memory: 64Mi, cpu: 150%}, timeout: 90s, env: {A: '1', B: '2'}",
    "timeout: 1m30s, env: {B: '2', A: '1'}, limits: {cpu: 1.5, memory: 67108864, swap: 0}, restart: Never, suspend: false",
)


@pytest.mark.parametrize(("before", "after"), [SAME, SAME[::-1]])
def test_a_plan_shows_no_change_where_only_the_spelling_has_changed(world: World, before: str, after: str) -> None:
    """nomad#8559, #2551: the plan showed phantom changes."""

    async def scenario(world: World) -> None:
        await world.apply(job(before))
        commits = world.store.commits
        for text in (before, after):
            (planned,) = await world.desired.apply(manifests(job(text)), CLIENT, dry_run=True)
            assert (planned.action, planned.generation, planned.consequence) == (
                Action.UNCHANGED,
                1,
                "nothing changes",
            )
            assert (await world.apply(job(text))).action is Action.UNCHANGED
        assert (world.store.commits, len(world.host.launches)) == (commits, 1)

    play(scenario, world)


def test_a_plan_says_what_an_apply_then_does(world: World) -> None:
    """nomad#8559, #2551, the other way round: a change that is one is shown, as what it is."""

    async def scenario(world: World) -> None:
        for text in (job(), job("timeout: 1h"), job("timeout: 1h", command="[sleep, '9']"), job(labels="{a: b}")):
            (planned,) = await world.desired.apply(manifests(text), CLIENT, dry_run=True)
            done = await world.apply(text)
            assert (planned.action, planned.generation, planned.consequence) == (
                done.action,
                done.generation,
                done.consequence,
            )
            assert planned.action is not Action.UNCHANGED

    play(scenario, world)


def test_a_dry_run_accepts_nothing_that_is_ignored_afterwards(world: World) -> None:
    """podman#18778: a dry run accepted what was then ignored."""
    for text in (job("memory: 64Mi"), job("limits: {memroy: 64Mi}"), job("timeout: 1h, timeout: 2h")):
        with pytest.raises(ManifestErrors):
            read_manifests(text.encode(), filename="x.yml")

    async def scenario(world: World) -> None:
        for dry_run in (True, False):
            with pytest.raises(NotAllowed):
                await world.desired.apply(manifests(job("isolation: {network: host}")), CLIENT, dry_run=dry_run)
        assert not world.registry.views
        await world.apply(job("limits: {io: {read: 1Mi}}"))
        world.host.fail_to_start(world.live_attempt(), 126, Reason.LIMIT_NOT_ENFORCEABLE)
        await world.settle()
        run = await world.run()
        assert (run.phase, run.reason) == (Phase.FAILED, Reason.LIMIT_NOT_ENFORCEABLE), (
            "it does not run without its limit"
        )

    play(scenario, world)


def test_a_duplicate_name_is_a_visible_conflict_and_a_backup_no_manifest(world: World) -> None:
    """kubernetes#136962: x.yaml.backup in the directory won silently."""
    names = ("x.yaml.backup", "x.yml~", ".x.yml", "x.yml.swp", "#x.yml#", "x.yml.bak", "x.txt")
    assert not any(map(is_manifest_name, names)) and all(map(is_manifest_name, ("x.yml", "x.yaml", "x.json")))

    async def scenario(world: World) -> None:
        await world.apply(job(), Source("spool", "x.yaml"))
        for other in (Source("spool", "y.yaml"), Source("git", "fleet@1a2b:x.yaml"), CLIENT):
            for dry_run in (True, False):
                with pytest.raises(OwnershipConflict, match=r"belongs to spool:x\.yaml"):
                    await world.desired.apply(manifests(job(command="[other]")), other, dry_run=dry_run)
        assert (await world.view()).generation == 1

    play(scenario, world)

"""Workflows with a schedule, suspended ones, and who is told of their end: one run a tick, whatever dies."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from joblet.manifest import read_manifests
from joblet.notification import Notification
from jobletd.errors import WrongState
from jobletd.model import JobName, Phase, Reason
from jobletd.policy import NotAllowed, Policy
from jobletd.store import notification_rows
from tests.unit.reconciler.world import CLIENT, Fuse, World, play
from tests.unit.schedules.passing import HOUR, end_all, moment, outage, set_clock

KEY = JobName("workflow/wf")
TEN = "2026-06-01T10:20"
HOURLY = 'schedule: {cron: "0 * * * *"%s}, '
CHAIN = "{name: a, job: {command: [a]}}, {name: b, needs: [{step: a}], job: {command: [b]}}"


def workflow(more: str = "", *, steps: str = CHAIN) -> str:
    """more: further fields of the spec, each with its comma."""
    return (
        f"{{apiVersion: joblet/v1, kind: Workflow, metadata: {{name: wf, labels: {{team: data}}}}, "
        f"spec: {{{more}steps: [{steps}]}}}}"
    )


async def apply(world: World, text: str) -> None:
    await world.desired.apply(read_manifests(text.encode(), filename="wf.yml"), CLIENT)
    await world.settle()


async def status(world: World) -> Mapping[str, str]:
    return (await world.desired.get_resource(KEY)).status


async def reasons(world: World) -> list[str]:
    return [event.reason for event in await world.events("workflow/wf")]


def launched(world: World) -> list[str]:
    """Step, run of the workflow, and the hour of the tick."""
    env = [(one.manifest.metadata.name, one.manifest.spec.env) for one in world.host.launches]
    return [
        f"{name.removeprefix('wf-')} {of['JOBLET_WORKFLOW_RUN']} {of.get('JOBLET_SCHEDULED', '')[11:13] or '-'}"
        for name, of in env
    ]


def live(world: World) -> set[str]:
    return {one.request.manifest.metadata.name.removeprefix("wf-") for one in world.host.live()}


async def hours(world: World, count: int, *, exits: bool = True) -> None:
    """Time passes, with a look at each full hour."""
    for _ in range(count):
        now = world.clock.now_ns / 1e9
        await world.advance(HOUR - now % HOUR)
        if exits:
            await end_all(world)


async def told(world: World) -> list[Notification]:
    """What is on record to be told, oldest first."""

    def bodies(connection: sqlite3.Connection) -> list[str]:
        found = [notification_rows.load_notification(connection, one) for one in notification_rows.load_ids(connection)]
        return [one.body for one in found if one is not None]

    return [Notification.model_validate_json(body) for body in await world.store.read(bodies)]


def test_a_workflow_runs_at_its_ticks_and_not_when_it_is_applied(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ""))
        assert not world.host.launches
        assert await status(world) == {"phase": "Scheduled", "next": "2026-06-01T11:00:00Z"}
        await hours(world, 2)
        assert launched(world) == ["a 1 11", "b 1 11", "a 2 12", "b 2 12"]
        assert await status(world) == {
            "phase": "Succeeded",
            "run": "2",
            "steps": "2/2",
            "next": "2026-06-01T13:00:00Z",
        }
        await apply(world, workflow(HOURLY % ""))
        await world.restart()
        assert len(launched(world)) == 4

    play(scenario, world)


def test_a_day_has_its_run_on_both_days_on_which_clocks_change(world: World) -> None:
    async def scenario(world: World) -> None:
        daily = 'schedule: {cron: "30 2 * * *", timezone: Europe/Berlin, jitter: 5m}, '
        for day, ticks in (("2026-03-28T00:00", ["01:30", "01:00", "00:30"]), ("2026-10-24T00:00", ["00:30"] * 2)):
            set_clock(world, day)
            await apply(world, workflow(daily.replace("5m", f"{len(ticks)}m"), steps="{name: a, job: {command: [a]}}"))
            await world.advance(0)
            before = len(world.host.launches)
            for _ in range(24 * len(ticks)):
                await world.advance(HOUR)
                await end_all(world)
            env = [one.manifest.spec.env["JOBLET_SCHEDULED"][11:16] for one in world.host.launches[before:]]
            assert env == ticks
            await world.desired.delete(KEY, source=CLIENT)
            await world.settle()

    play(scenario, world)


def test_overlap_forbid_skips_a_tick_while_any_step_runs(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ""))
        await hours(world, 3, exits=False)
        assert launched(world) == ["a 1 11"]
        assert (await reasons(world)).count("TickSkipped") == 1  # told once, counted twice
        await end_all(world)
        await hours(world, 1)
        assert launched(world) == ["a 1 11", "b 1 11", "a 2 14", "b 2 14"]

    play(scenario, world)


def test_dkron_349_what_ended_while_no_daemon_ran_forbids_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % "", steps="{name: a, job: {command: [a]}}"))
        await hours(world, 1, exits=False)
        attempt = world.live_attempt()
        await world.crash()
        world.host.exit(attempt)  # the record says that it runs
        world.clock.pass_time(HOUR)
        await world.boot()
        await world.settle()
        assert launched(world) == ["a 1 11", "a 2 12"]
        assert "TickSkipped" not in await reasons(world)

    play(scenario, world)


def test_dkron_1569_what_goes_on_forbids_after_a_restart_too(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ""))
        await hours(world, 1, exits=False)
        await outage(world, HOUR)
        assert launched(world) == ["a 1 11"] and "TickSkipped" in await reasons(world)

    play(scenario, world)


def test_overlap_replace_ends_the_old_run_before_the_new_one_begins(world: World) -> None:
    async def scenario(world: World) -> None:
        world.host.ignores_stop = True
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ", overlap: Replace" + "notify: [{on: [Stopped], command: [x]}], "))
        await hours(world, 1, exits=False)
        old = world.live_attempt()
        await hours(world, 1, exits=False)
        assert launched(world) == ["a 1 11"] and world.host.live()[0].cancels
        assert (await status(world))["run"] == "2"
        assert (await world.run("wf-a")).stop is Reason.SUPERSEDED
        world.host.exit(old)
        await world.settle()
        assert launched(world) == ["a 1 11", "a 2 12"]
        (body,) = await told(world)
        assert (body.event, body.run.id, body.run.reason) == ("Stopped", "1", "Replaced")

    play(scenario, world)


def test_overlap_queue_keeps_runs_in_line_through_a_restart(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ", overlap: Queue"))
        await hours(world, 3, exits=False)
        assert launched(world) == ["a 1 11"]
        assert (await status(world))["waiting"] == "2"
        assert await world.workflows.trigger("wf", force=False) == (1, 3)
        await world.restart()
        assert (await status(world))["waiting"] == "3"
        await end_all(world)
        assert launched(world)[2:] == ["a 2 12", "b 2 12", "a 3 13", "b 3 13", "a 4 -", "b 4 -"]
        assert "waiting" not in await status(world)

    play(scenario, world)


def test_who_waited_beyond_the_starting_deadline_does_not_run(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ", overlap: Queue, startingDeadline: 90m"))
        await hours(world, 4, exits=False)  # 12:00 waits for two hours, 13:00 for one
        await end_all(world)
        assert launched(world) == ["a 1 11", "b 1 11", "a 2 13", "b 2 13", "a 3 14", "b 3 14"]
        assert "Missed" in await reasons(world)

    play(scenario, world)


@pytest.mark.parametrize(
    ("missed", "runs"),
    [("skip", []), ("once", ["13"]), ("all, missedLimit: 2", ["12", "13"]), ("all", ["11", "12", "13"])],
)
def test_after_an_outage_what_was_missed_is_made_up_for_as_asked(world: World, missed: str, runs: list[str]) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % f", missed: {missed}", steps="{name: a, job: {command: [a]}}"))
        await outage(world, 3 * HOUR, reboot=True)  # until 13:20
        await end_all(world)
        assert [one.split()[2] for one in launched(world)] == runs
        assert ("TicksMissed" in await reasons(world)) is (len(runs) < 3)
        await hours(world, 1)
        assert launched(world)[-1].endswith("14"), "a schedule never stalls"

    play(scenario, world)


def test_a_manual_trigger_obeys_overlap_unless_it_is_forced(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ""))
        assert await world.workflows.trigger("wf", force=False) == (1, 0)
        await world.settle()
        with pytest.raises(WrongState, match="still runs"):
            await world.workflows.trigger("wf", force=False)
        assert await world.workflows.trigger("wf", force=True) == (2, 0)
        await world.settle()
        await end_all(world)
        assert launched(world) == ["a 1 -", "a 2 -", "b 2 -"]
        await apply(world, workflow(HOURLY % ", overlap: Replace"))
        for number in (3, 4):
            assert await world.workflows.trigger("wf", force=False) == (number, 0)
            await world.settle()
        await end_all(world)
        await apply(world, workflow(HOURLY % "" + "suspend: true, "))
        with pytest.raises(WrongState, match="is suspended"):
            await world.workflows.trigger("wf", force=True)

    play(scenario, world)


def test_a_suspended_workflow_goes_on_with_what_was_cut_short(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world, workflow())
        await world.exit()
        assert live(world) == {"b"}
        await apply(world, workflow("suspend: true, "))
        assert not world.host.live()
        assert await status(world) == {"phase": "Suspended", "run": "1", "steps": "1/2"}
        _, states = world.workflows.progress((await world.desired.get_resource(KEY)).view)
        assert {name: str(state.phase) for name, state in states.items()} == {"a": "COMPLETED", "b": "SUSPENDED"}
        await world.restart()
        assert not world.host.live()
        await apply(world, workflow())
        assert live(world) == {"b"}
        await end_all(world)
        assert launched(world) == ["a 1 -", "b 1 -", "b 1 -"]
        assert (await status(world))["phase"] == "Succeeded"

    play(scenario, world)


def test_what_is_suspended_from_the_beginning_runs_once_it_is_not(world: World) -> None:
    async def scenario(world: World) -> None:
        await apply(world, workflow("suspend: true, "))
        assert not world.host.launches and await status(world) == {"phase": "Suspended"}
        await apply(world, workflow())
        assert live(world) == {"a"}
        await apply(world, workflow("suspend: true, "))
        changed = CHAIN.replace("command: [a]", "command: [a2]")
        await apply(world, workflow("suspend: true, ", steps=changed))
        assert not world.host.live()
        await apply(world, workflow(steps=changed))
        await end_all(world)
        assert launched(world) == ["a 1 -", "a 2 -", "b 2 -"]

    play(scenario, world)


@pytest.mark.parametrize("paused", ["suspend: true, ", ""])
def test_ticks_while_it_is_suspended_are_not_made_up_for(world: World, paused: str) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % (", missed: all" + ("" if paused else ", suspend: true")) + paused))
        await hours(world, 3)
        assert not world.host.launches and "next" not in await status(world)
        await world.advance(60)
        await apply(world, workflow(HOURLY % ", missed: all"))
        assert not world.host.launches
        await hours(world, 1)
        assert launched(world) == ["a 1 14", "b 1 14"]

    play(scenario, world)


def test_changed_steps_take_effect_with_the_next_tick_and_what_runs_goes_on_as_it_was(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ""))
        await hours(world, 1, exits=False)
        await apply(world, workflow(HOURLY % "", steps="{name: c, job: {command: [c]}}"))
        await world.restart()
        assert live(world) == {"a"}
        await end_all(world)
        await hours(world, 1)
        assert launched(world) == ["a 1 11", "b 1 11", "c 2 12"]
        assert set(world.registry.views) == {"wf-c"}

    play(scenario, world)


def test_a_changed_schedule_or_hook_starts_nothing_and_a_schedule_taken_away_neither(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow())
        await end_all(world)
        for more in ("notify: [{on: [Failed], command: [x]}], ", HOURLY % "", 'schedule: {cron: "30 * * * *"}, '):
            await apply(world, workflow(more))
        assert await status(world) == {"phase": "Succeeded", "run": "1", "steps": "2/2", "next": "2026-06-01T10:30:00Z"}
        await apply(world, workflow())
        assert launched(world) == ["a 1 -", "b 1 -"]
        await apply(world, workflow(HOURLY % "", steps="{name: c, job: {command: [c]}}"))
        assert not world.host.live()
        await apply(world, workflow(steps="{name: c, job: {command: [c]}}"))
        assert live(world) == {"c"}, "it never ran as it is now"

    play(scenario, world)


@pytest.mark.parametrize(
    ("more", "means"),
    [("", "starts a run"), (HOURLY % "", "runs by its schedule"), ("suspend: true, ", "is kept suspended")],
)
def test_who_applies_a_new_one_is_told_when_it_runs(world: World, more: str, means: str) -> None:
    async def scenario(world: World) -> None:
        (result,) = await world.desired.apply(read_manifests(workflow(more).encode(), filename="wf.yml"), CLIENT)
        assert result.consequence == means
        assert (await world.events("workflow/wf"))[0].message == f"created from {CLIENT}"

    play(scenario, world)


def test_a_dry_run_says_what_a_change_means(world: World) -> None:
    async def scenario(world: World) -> None:
        other = "{name: c, job: {command: [c]}}"
        for before, after, told in (
            (workflow(), workflow(steps=other), "starts it anew"),
            (workflow(), workflow(HOURLY % ""), "changes in place; nothing starts"),
            (workflow(HOURLY % ""), workflow(HOURLY % "", steps=other), "takes effect with the next tick"),
            (workflow(HOURLY % ""), workflow("suspend: true, "), "stops what runs of it"),
            (workflow("suspend: true, "), workflow("suspend: true, ", steps=other), "is kept suspended"),
            (workflow("suspend: true, "), workflow(), "goes on"),
        ):
            await apply(world, before)
            manifests = read_manifests(after.encode(), filename="wf.yml")
            (result,) = await world.desired.apply(manifests, CLIENT, dry_run=True)
            assert result.consequence == told

    play(scenario, world)


def test_a_clock_that_goes_back_brings_no_tick_twice_and_one_that_was_far_ahead_stalls_nothing(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % "", steps="{name: a, job: {command: [a]}}"))
        await hours(world, 1)
        world.clock.set_wall(-1.5 * HOUR)
        await hours(world, 2)
        assert launched(world) == ["a 1 11"]
        world.clock.set_wall(-1000 * HOUR)
        await world.advance(60)
        for _ in range(62):
            await world.advance(60)
        await hours(world, 2)
        assert "ClockSetBack" in await reasons(world) and len(launched(world)) == 3

    play(scenario, world)


def test_after_a_restore_no_tick_since_the_backup_is_made_up_for(world: World) -> None:
    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        await apply(world, workflow(HOURLY % ", missed: all, overlap: Queue"))
        await hours(world, 2, exits=False)
        await world.workflows.pass_over_ticks()
        await end_all(world)
        assert launched(world) == ["a 1 11", "b 1 11"]

    play(scenario, world)


def test_the_end_of_a_workflow_is_told_once_each_and_with_its_steps(world: World) -> None:
    async def scenario(world: World) -> None:
        hooks = "notify: [{on: [Finished], command: [tell]}, {on: [Succeeded], command: [other]}], parameters: {A: b}, "
        on_failure = "onFailure: {job: {command: [f]}}, "
        await apply(world, workflow(hooks + on_failure))
        await world.exit()
        await world.exit(3)
        assert await told(world) == [], "onFailure comes first"
        await world.exit()
        (failed,) = await told(world)
        assert (failed.event, failed.job.name, failed.run.phase) == ("Failed", "workflow/wf", "FAILED")
        assert (failed.run.reason, failed.job.labels) == ("StepFailed", {"team": "data"})
        assert "b: FAILED (ExitCode" in failed.run.message
        assert failed.workflow is not None and failed.workflow.run == 1
        assert [(step.name, step.phase) for step in failed.workflow.steps] == [
            ("a", "COMPLETED"),
            ("b", "FAILED"),
            ("on-failure", "COMPLETED"),
        ]
        await world.restart()
        await world.workflows.retry("wf")
        await world.settle()
        await world.exit()
        again = (await told(world))[1:]
        assert [one.event for one in again] == ["Succeeded", "Succeeded"]
        assert {one.run.attempts for one in again} == {2}
        assert len({one.id for one in await told(world)}) == 3

    play(scenario, world)


def test_a_workflow_that_is_deleted_or_superseded_is_told_to_have_stopped(world: World) -> None:
    async def scenario(world: World) -> None:
        hooks = "notify: [{on: [Stopped], command: [tell]}], "
        await apply(world, workflow(hooks))
        await apply(world, workflow(hooks, steps="{name: c, job: {command: [c]}}"))
        await world.desired.delete(KEY, source=CLIENT)
        await world.settle()
        await world.advance(1)
        assert [(one.event, one.run.id, one.run.reason) for one in await told(world)] == [
            ("Stopped", "1", "Superseded"),
            ("Stopped", "2", "Deleted"),
        ]
        assert KEY not in world.registry.resources

    play(scenario, world)


def test_a_webhook_of_a_workflow_has_to_be_allowed_as_one_of_a_job() -> None:
    text = workflow("notify: [{on: [Failed], webhook: 'https://hooks.example.org/x'}], ")
    (manifest,) = read_manifests(text.encode(), filename="wf.yml")
    with pytest.raises(NotAllowed, match=r"workflow/wf: spec\.notify\[0\]\.webhook"):
        Policy().check(manifest)
    Policy(webhooks=("https://hooks.example.org",)).check(manifest)


def walked(directory: Path, overlap: str, fuse: Fuse) -> None:
    """Two ticks by a daemon that dies where the fuse says, and by the next one."""
    directory.mkdir()
    world = World(directory)
    text = workflow(HOURLY % f", missed: all, overlap: {overlap}", steps="{name: a, job: {command: [a]}}")

    async def first_daemon(world: World) -> None:
        await apply(world, text)
        await hours(world, 2, exits=overlap == "Forbid")

    async def scenario(world: World) -> None:
        set_clock(world, TEN)
        walk = asyncio.create_task(first_daemon(world))
        blown = asyncio.create_task(world.fuse.blown.wait())
        await asyncio.wait({walk, blown}, return_when=asyncio.FIRST_COMPLETED)
        walk.cancel()
        blown.cancel()
        await world.restart()
        await apply(world, text)  # who was not answered asks again
        now = datetime.fromtimestamp(world.clock.now_ns / 1e9, UTC)
        left = moment("2026-06-01T12:00") - now.timestamp()
        await end_all(world)
        await hours(world, max(round(left / HOUR + 0.49), 0))
        await end_all(world)
        ticks = [one.split()[2] for one in launched(world)]
        assert ticks == sorted(set(ticks)), "no tick has two runs"
        assert ticks[-1] == "12" and {"11", "12"} >= set(ticks)
        if overlap != "Replace":
            assert ticks == ["11", "12"], "each tick has its run"
        runs = [run for run in await world.history("wf-a") if run.phase is Phase.COMPLETED]
        assert runs[0].manifest.spec.env["JOBLET_SCHEDULED"][11:13] == "12"

    play(scenario, world, fuse=fuse)


@pytest.mark.parametrize("overlap", ["Forbid", "Queue", "Replace"])
def test_each_tick_has_one_run_wherever_the_daemon_dies(tmp_path: Path, overlap: str) -> None:
    counted = Fuse()
    walked(tmp_path / "whole", overlap, counted)
    assert len(counted.steps) > 15
    for at in range(0, len(counted.steps), 3):
        walked(tmp_path / str(at), overlap, Fuse(at))


def test_a_body_with_a_workflow_fits_the_published_schema(world: World) -> None:
    import jsonschema

    schema: dict[str, Any] = json.loads(Path("schemas/notification.v1.schema.json").read_text())

    async def scenario(world: World) -> None:
        await apply(world, workflow("notify: [{on: [Finished], command: [tell]}], "))
        await end_all(world)
        (body,) = await told(world)
        jsonschema.validate(json.loads(body.text()), schema)

    play(scenario, world)

"""Time that passes on a host under test, in the steps in which a daemon that runs would see it."""

from __future__ import annotations

from datetime import UTC, datetime

from jobletd.model import JobName, Run
from tests.unit.reconciler.world import World

SECOND_NS = 1_000_000_000
HOUR = 3600.0
DAY = 24 * HOUR


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def set_clock(world: World, text: str) -> None:
    world.clock.now_ns = moment(text) * SECOND_NS


async def until(world: World, text: str, *, exits: bool = True) -> None:
    """Let time pass to that moment, with a look at least at each due tick. exits: what runs ends at once, well."""
    while (left := moment(text) - world.clock.now_ns / SECOND_NS) > 0:
        due = [view.next_tick_ns for view in map(world.registry.shown, world.registry.views.values())]
        waits = [(ns - world.clock.now_ns) / SECOND_NS for ns in due if ns is not None]
        await world.advance(min([left, *(wait for wait in waits if wait > 0)]))
        if exits:
            await end_all(world)


async def end_all(world: World) -> None:
    while live := world.host.live():
        for launched in live:
            world.host.exit(launched.request.attempt_id)
        await world.settle()


async def outage(world: World, seconds: float, *, reboot: bool = False) -> None:
    """No daemon runs for so long."""
    await world.crash()
    world.clock.pass_time(seconds)
    if reboot:
        world.host.reboot()
    await world.boot()
    await world.settle()


async def ticks(world: World, name: str = "job") -> list[str]:
    """Those that got a run, in the order of the runs."""
    return [shown(run) for run in reversed(await world.history(name)) if run.tick_seconds is not None]


def shown(run: Run) -> str:
    assert run.tick_seconds is not None
    return datetime.fromtimestamp(run.tick_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").removesuffix(":00")


async def next_tick(world: World, name: str = "job") -> str | None:
    ns = (await world.desired.get(JobName(name))).next_tick_ns
    return None if ns is None else datetime.fromtimestamp(ns / SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%S")

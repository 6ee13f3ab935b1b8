"""What the profiler sees of those that run, how often it looks, and what it keeps: on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from jobletd.model import AttemptId, Usage
from jobletd.monitoring.profile import MOST_SAMPLES
from jobletd.monitoring.profiler import is_milestone
from tests.unit.monitoring.crowd import Crowd, crowd

MANY = 500
MINUTE = 60.0
HOUR = 3600.0


def play(directory: Path, scene: Callable[[Crowd], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with crowd(directory) as there:
            await scene(there)

    asyncio.run(run())


def names(count: int) -> list[str]:
    return [f"job-{number}" for number in range(count)]


async def kept(there: Crowd, name: str) -> bool:
    """Whether a daemon that starts now finds its course."""
    return await there.another_profiler().of(AttemptId(name)) is not None


def test_a_short_run_has_its_course_however_many_others_there_are(tmp_path: Path) -> None:
    async def scene(there: Crowd) -> None:
        await there.start(*names(MANY))
        await there.pass_time(10 * MINUTE)
        await there.start("short")
        for second in range(1, 6):
            there.use("short", second)
            await there.pass_time(1)
        there.end("short", Usage(cpu_seconds=5.5))
        assert (await there.seconds_of("short"))[:4] == [1, 2, 3, 4]
        assert (await there.seconds_of("short"))[-1] == 5

    play(tmp_path, scene)


def test_what_happens_after_a_long_rest_is_in_the_course_and_so_is_the_rest(tmp_path: Path) -> None:
    async def scene(there: Crowd) -> None:
        await there.start("job")
        await there.pass_time(2 * HOUR)
        assert len(await there.seconds_of("job")) == 2
        began = there.clock.boot_seconds()
        for second in range(60):
            there.use("job", second + 1, memory_bytes=(50 + second) << 20)
            await there.pass_time(1)
        profile = await there.profiler.of(AttemptId("job"))
        assert profile is not None
        first, rested, *busy = profile.samples
        assert (first.memory_bytes, rested.memory_bytes) == (1 << 20, 1 << 20)
        late = 2 * HOUR / MOST_SAMPLES  # what a drawing can show of so long a time
        assert abs(rested.at_ms / 1000 - 2 * HOUR) <= late
        assert busy and began > 0

    play(tmp_path, scene)


def test_of_what_uses_no_cpu_one_file_is_read_but_now_and_then_all(tmp_path: Path) -> None:
    async def scene(there: Crowd) -> None:
        await there.start("job")
        await there.pass_time(10)
        # By no work of its own: others gave up what they shared with it.
        there.use("job", 0.002, memory_bytes=9 << 20)
        await there.pass_time(10)
        counts = there.counts()
        assert 2 <= counts["whole"] <= 1 + 20 / 10 and counts["of one file"] >= 16
        profile = await there.profiler.of(AttemptId("job"))
        assert profile is not None and profile.samples[-1].memory_bytes == 9 << 20

    play(tmp_path, scene)


def test_what_works_is_read_whole_at_each_look(tmp_path: Path) -> None:
    async def scene(there: Crowd) -> None:
        await there.start("job")
        for second in range(30):
            there.use("job", second + 1)
            await there.pass_time(1)
        counts = there.counts()
        assert counts["whole"] >= 29 and "of one file" not in counts

    play(tmp_path, scene)


def test_nothing_is_kept_of_those_in_which_nothing_happened_until_they_end(tmp_path: Path) -> None:
    async def scene(there: Crowd) -> None:
        await there.start("idle", "busy")
        for second in range(30):
            there.use("busy", second + 1)
            await there.pass_time(1)
        await asyncio.sleep(0)
        assert await kept(there, "busy") and not await kept(there, "idle")
        there.end("idle", Usage(memory_bytes=None, cpu_seconds=0.002))
        await asyncio.sleep(0)
        assert await kept(there, "idle")

    play(tmp_path, scene)


def test_many_that_work_share_a_transaction_for_what_is_kept(tmp_path: Path) -> None:
    async def scene(there: Crowd) -> None:
        await there.start(*names(100))
        there.counts()
        for second in range(12):
            for name in names(100):
                there.use(name, second + 1)
            await there.pass_time(1)
        assert 0 < there.counts()["transactions"] <= 2 * 100 / 20

    play(tmp_path, scene)


def test_it_is_worth_keeping_each_time_it_has_doubled() -> None:
    assert [count for count in range(1, 121) if is_milestone(count - 1, count)] == [3, 6, 12, 24, 48, 96]
    assert not is_milestone(12, 12)

"""Keys that want a look: each worked on once at a time, none forgotten."""

from __future__ import annotations

import asyncio

import pytest

from jobletd.work_queue import LONGEST_RETRY_SECONDS, WorkQueue
from tests.unit.reconciler.world import SteppedLoop, run_loop


async def advance(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    loop.seconds += seconds
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_a_key_that_waits_is_not_added_again() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in ("a", "b", "a", "a"):
            queue.add(key)
        assert len(queue) == 2
        assert [await queue.get(), await queue.get()] == ["a", "b"]

    run_loop(work())


def test_an_add_during_the_work_brings_the_key_back_once_and_only_afterwards() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        key = await queue.get()
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0
        queue.done(key)
        assert len(queue) == 1
        assert await queue.get() == "a"
        queue.done("a")
        assert len(queue) == 0

    run_loop(work())


def test_no_key_is_worked_on_by_two_workers_and_every_change_is_seen() -> None:
    async def work() -> None:
        queue: WorkQueue[int] = WorkQueue()
        wanted = dict.fromkeys(range(5), 0)
        seen = dict.fromkeys(range(5), 0)
        busy: set[int] = set()

        async def worker() -> None:
            while True:
                key = await queue.get()
                assert key not in busy
                busy.add(key)
                found = wanted[key]
                for _ in range(key + 1):
                    await asyncio.sleep(0)
                seen[key] = found
                busy.discard(key)
                queue.done(key)

        workers = [asyncio.create_task(worker()) for _ in range(4)]
        for number in range(200):
            wanted[number % 5] += 1
            queue.add(number % 5)
            if number % 3 == 0:
                await asyncio.sleep(0)
        await queue.join()
        assert seen == wanted
        for task in workers:
            task.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*workers, return_exceptions=True)
        )

    run_loop(work())


def test_an_earlier_look_that_is_planned_stays() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 5)
        queue.add_after("a", 10)
        queue.add_after("b", 10)
        queue.add_after("b", 5)
        queue.add_after("c", 0)
        assert await queue.get() == "c"
        await advance(4.9)
        assert len(queue) == 0
        await advance(0.1)
        assert sorted([await queue.get(), await queue.get()]) == ["a", "b"]
        queue.done("a")
        queue.done("b")
        await advance(10)
        assert len(queue) == 0

    run_loop(work())


def test_failures_back_off_per_key_until_a_success() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        assert [queue.retry("a") for _ in range(4)] == [0.05, 0.1, 0.2, 0.4]
        assert queue.retry("b") == 0.05
        assert max(queue.retry("a") for _ in range(100)) == LONGEST_RETRY_SECONDS
        queue.forget_failures("a")
        assert queue.retry("a") == 0.05
        queue.close()
        await advance(1000)
        assert len(queue) == 0

    run_loop(work())


@pytest.mark.parametrize("woken", [False, True])
def test_a_worker_that_is_cancelled_takes_no_wakeup_with_it(woken: bool) -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        first, second = (asyncio.ensure_future(queue.get()) for _ in range(2))
        await asyncio.sleep(0)
        steps = (lambda: queue.add("a")), first.cancel
        for step in steps if woken else reversed(steps):
            step()
        for _ in range(5):
            await asyncio.sleep(0)
        assert second.done() and second.result() == "a"

    run_loop(work())


def test_join_waits_for_what_is_queued_or_worked_on() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue()
        await queue.join()
        queue.add("a")
        joined = asyncio.ensure_future(queue.join())
        key = await queue.get()
        await asyncio.sleep(0)
        assert not joined.done()
        queue.done(key)
        await joined

    run_loop(work())

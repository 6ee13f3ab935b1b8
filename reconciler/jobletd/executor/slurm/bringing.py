"""Brings home what nodes have of attempts, where no directory is shared: claims and states as they come, output, ends.

With each look at Slurm each node that may have something for us is asked once, for all attempts. What it tells is stored here
first (``home``), an end durably; then comes the output, to its last byte; then the node is told to forget, until it says that it
has. Whatever is interrupted in between begins again where it was: nothing of it depends on this process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import structlog

from joblet.crash_points import reached
from jobletd.executor.slurm import home
from jobletd.executor.slurm.home import Debt, LogCopy
from jobletd.executor.slurm.nodes import Answer, NodeAway, NodeDaemons
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm.tracking import Tracked
from jobletd.model import AttemptId

ENDS_WITHIN_SECONDS = 1.0  # what a look waits for the output of what has ended; more comes in its own time
AT_ONCE = 8  # logs on their way, beside those that somebody follows
AGAIN_SECONDS = 1.0
GIVEN_UP_SECONDS = 7 * 86400.0  # by then the node has removed it: ``slurm_node.kept``
SILENT_SHARE = 5  # a node that did not answer last time is waited for only so much of the time
log = structlog.get_logger("slurm")


class Bringing:
    """list_nodes: addresses by name, from Slurm. look_soon: something has come. Used in one event loop."""

    def __init__(
        self,
        settings: SlurmSettings,
        daemons: NodeDaemons,
        *,
        boot_seconds: Callable[[], float],
        list_nodes: Callable[[], Awaitable[dict[str, str]]],
        look_soon: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._daemons = daemons
        self._boot_seconds = boot_seconds
        self._list_nodes = list_nodes
        self._look_soon = look_soon
        self._debts: dict[AttemptId, Debt] = {}
        self._silent: dict[str, str] = {}  # nodes that did not answer last time, and why
        self._silent_about: dict[AttemptId, str] = {}
        self._locks: dict[AttemptId, asyncio.Lock] = {}
        self._last: dict[AttemptId, asyncio.Task[None]] = {}  # the fetch of all that is left of a log
        self._more: dict[AttemptId, asyncio.Task[None]] = {}  # of what there is meanwhile
        self._followed: dict[AttemptId, tuple[int, asyncio.Task[None]]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._may_list = False  # whether Slurm may be asked for its nodes, once a look

    # --- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Find what was left undone. Raises OSError."""
        os.makedirs(self._settings.attempts_directory, 0o700, exist_ok=True)
        for name in os.listdir(self._settings.attempts_directory):
            if (debt := Debt.read(self._settings.attempt_directory(name))) is not None:
                self._debts[AttemptId(name)] = debt

    async def close(self) -> None:
        tasks = [
            *self._last.values(),
            *self._more.values(),
            *self._others,
            *(task for _, task in self._followed.values()),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._daemons.close()

    @property
    def is_idle(self) -> bool:
        return not self._debts

    # --- what is known ------------------------------------------------------------------------------------------------

    def silent_about(self, attempt: AttemptId) -> str:
        """Which node could not be asked about it last time, and why; empty if all could."""
        return self._silent_about.get(attempt, "")

    def awaits_output(self, attempt: AttemptId) -> bool:
        """Whether its output is on its way, and nothing keeps it for longer than the grace."""
        debt = self._debts.get(attempt)
        if debt is None or debt.has_output:
            return False
        now = self._boot_seconds()
        since = [one for one in (debt.silent_since, debt.fails_since) if one is not None]
        return not any(now - one > self._settings.grace_seconds for one in since)

    async def _nodes_of(self, one: Tracked) -> Sequence[str]:
        """Where it is or may be: on all nodes, if Slurm does not say."""
        if (debt := self._debts.get(one.attempt_id)) is not None:
            return [debt.node]
        if one.job is not None and one.job.node:
            await self._learn(one.job.node)
            return [one.job.node]
        await self._learn("")
        return sorted({*self._daemons.addresses, *self._daemons.named()})

    def _is_worth_asking(self, one: Tracked) -> bool:
        """Unless Slurm has not got it yet, or all is here already: an earlier daemon was told, and told nobody."""
        if one.attempt_id in self._debts:
            return True
        return bool(one.job_id) and not home.has_end(self._settings.attempt_directory(one.attempt_id))

    async def _learn(self, node: str) -> None:
        """Slurm's addresses, unless that node's is known."""
        if self._may_list and node not in self._daemons.addresses and node not in self._daemons.named():
            self._may_list = False
            self._daemons.addresses.update(await self._list_nodes())

    # --- one look -----------------------------------------------------------------------------------------------------

    async def refresh(self, those: Iterable[Tracked], *, slurm_answers: bool) -> None:
        """Ask about these, which have not ended as far as anybody knows, and about all that is left undone."""
        self._may_list = slurm_answers
        for debt in list(self._debts.values()):  # after a start they are all that is known
            await self._learn(debt.node)
        here = {one.attempt_id: await self._nodes_of(one) for one in those if self._is_worth_asking(one)}
        asks: dict[str, list[AttemptId]] = {}
        for attempt, nodes in here.items():
            for node in nodes:
                asks.setdefault(node, []).append(attempt)
        for attempt, debt in self._debts.items():
            if attempt not in here and not debt.has_output:
                asks.setdefault(debt.node, []).append(attempt)
        answers = dict(
            zip(asks, await asyncio.gather(*(self._ask(node, ids) for node, ids in asks.items())), strict=True)
        )
        self._silent_about = {
            attempt: "; ".join(self._silent[node] for node in nodes if node in self._silent)
            for attempt, nodes in here.items()
        }
        for node, answer in answers.items():
            if answer is not None:
                await self._take(node, asks[node], answer, here)
        self._note_silence()
        self._forget_again()
        if self._last:
            await asyncio.wait(self._last.values(), timeout=ENDS_WITHIN_SECONDS)

    async def _ask(self, node: str, ids: Sequence[AttemptId]) -> Answer | None:
        """None if it does not answer."""
        within = self._daemons.seconds / (SILENT_SHARE if node in self._silent else 1)
        try:
            answer = await self._daemons.attempts(node, ids, within=within)
        except NodeAway as error:
            if node not in self._silent:
                log.warning("a node's daemon is away", node=node, error=error.what)
            self._silent[node] = str(error)
            return None
        if self._silent.pop(node, None) is not None:
            log.info("a node's daemon answers again", node=node)
        return answer

    async def _take(self, node: str, ids: Sequence[AttemptId], answer: Answer, here: Iterable[AttemptId]) -> None:
        for attempt in ids:
            told = answer.attempts.get(attempt)
            debt = self._debts.get(attempt)
            if told is None or not home.is_begun(told.claim):
                if debt is not None:  # it was removed there
                    self._settle(attempt)
                continue
            directory = self._settings.attempt_directory(attempt)
            try:
                if debt is None:
                    if attempt not in here or home.has_end(directory):
                        continue  # all came while the node was asked
                    debt = self._owe(attempt, node)
                have = await asyncio.to_thread(home.store, directory, node, told, with_end=attempt in here)
                if told.exit:
                    self._fetch_last(attempt, debt)
                elif told.log_bytes != have:
                    self._fetch_more(attempt, debt)
            except OSError as error:
                log.warning("not stored", attempt=attempt, error=str(error))

    def _note_silence(self) -> None:
        now = self._boot_seconds()
        for debt in self._debts.values():
            if debt.node not in self._silent:
                debt.silent_since = None
            elif debt.silent_since is None:
                debt.silent_since = now

    # --- debts --------------------------------------------------------------------------------------------------------

    def _owe(self, attempt: AttemptId, node: str) -> Debt:
        """Raises OSError."""
        debt = Debt(node, time.time())
        debt.write(self._settings.attempt_directory(attempt))
        self._debts[attempt] = debt
        return debt

    def _settle(self, attempt: AttemptId) -> None:
        self._debts.pop(attempt, None)
        self._locks.pop(attempt, None)
        home.settled(self._settings.attempt_directory(attempt))

    def _forget_again(self) -> None:
        """Tell nodes what they may remove, and give up what they have removed by themselves."""
        for attempt, debt in list(self._debts.items()):
            if time.time() - debt.since > GIVEN_UP_SECONDS and attempt not in self._silent_about:
                self._settle(attempt)
            elif debt.has_output and debt.node not in self._silent and attempt not in self._last:
                self._begin(self._last, attempt, self._forget(attempt, debt))

    async def _forget(self, attempt: AttemptId, debt: Debt) -> None:
        try:
            await self._daemons.forget(debt.node, attempt)
        except NodeAway as error:  # as long as it clears up there, too
            log.debug("not forgotten yet", attempt=attempt, error=str(error))
            return
        self._settle(attempt)

    def drop(self, attempt: AttemptId) -> None:
        """Its history is over: whatever its node has of it is to go."""
        for tasks in (self._last, self._more):
            if (task := tasks.pop(attempt, None)) is not None:
                task.cancel()
        if (debt := self._debts.pop(attempt, None)) is not None:
            task = asyncio.create_task(self._forget(attempt, debt))
            self._others.add(task)
            task.add_done_callback(self._others.discard)

    async def fence(self, one: Tracked) -> bool:
        """Before it is given up: whether no node that can be asked begins it any more, or is known to have begun it."""
        if one.told.claim is not None or (one.job is not None and not one.job.node and not one.job.started):
            return True
        self._may_list = True
        nodes = await self._nodes_of(one)
        for node in nodes:
            try:
                fenced, claim = await self._daemons.fence(node, one.attempt_id)
            except NodeAway as error:  # it may have begun it: what it has of it is fetched when it is back
                log.warning("given up without its node", attempt=one.attempt_id, error=str(error))
                if len(nodes) == 1 and one.attempt_id not in self._debts:
                    self._owe(one.attempt_id, node)
                continue
            if not fenced and home.is_begun(claim):
                return False
        return True

    # --- output -------------------------------------------------------------------------------------------------------

    def _fetch_more(self, attempt: AttemptId, debt: Debt) -> None:
        """What there is by now, so that not all is lost with its node."""
        if attempt not in self._more and attempt not in self._followed:
            self._begin(self._more, attempt, self._fetch(attempt, debt))

    def _fetch_last(self, attempt: AttemptId, debt: Debt) -> None:
        if attempt not in self._last and not debt.has_output:
            debt.since = time.time()
            self._begin(self._last, attempt, self._fetch_rest(attempt, debt))

    def _begin(self, tasks: dict[AttemptId, asyncio.Task[None]], attempt: AttemptId, what: Any) -> None:
        task = tasks[attempt] = asyncio.create_task(what)

        def done(_: asyncio.Task[None]) -> None:
            if tasks.get(attempt) is task:
                del tasks[attempt]

        task.add_done_callback(done)

    async def _fetch(self, attempt: AttemptId, debt: Debt) -> None:
        try:
            async with self._room:
                await self._pull(attempt, debt, follow=False)
        except (NodeAway, OSError) as error:
            log.info("output not fetched", attempt=attempt, error=str(error))

    async def _fetch_rest(self, attempt: AttemptId, debt: Debt) -> None:
        """It has ended, so what there is now is all."""
        directory = self._settings.attempt_directory(attempt)
        try:
            async with self._room:
                await self._pull(attempt, debt, follow=False)
            await asyncio.to_thread(LogCopy(directory).sync)
            debt.has_output = True
            debt.write(directory)
        except (NodeAway, OSError) as error:
            log.warning("output not fetched", attempt=attempt, error=str(error))
            debt.fails_since = debt.fails_since or self._boot_seconds()
            return
        reached("slurm.output-at-home")
        self._look_soon()
        await self._forget(attempt, debt)

    async def _pull(self, attempt: AttemptId, debt: Debt, *, follow: bool) -> None:
        """All that the node has of its log and we have not. One at a time. Raises NodeAway, OSError."""
        async with self._locks.setdefault(attempt, asyncio.Lock()):
            copy = LogCopy(self._settings.attempt_directory(attempt))
            part, offset = await asyncio.to_thread(copy.position)
            async with aclosing(self._daemons.log(debt.node, attempt, part, offset, follow=follow)) as blocks:
                async for block in blocks:
                    await asyncio.to_thread(copy.add, block)
                    debt.fails_since = None

    @asynccontextmanager
    async def reading(self, attempt: AttemptId, *, follow: bool) -> AsyncIterator[None]:
        """While somebody reads its log here: what its node has by now is here first, and with ``follow`` all that comes."""
        debt = self._debts.get(attempt)
        if debt is not None and not debt.has_output and attempt not in self._followed:
            try:
                async with asyncio.timeout(self._daemons.seconds):
                    await self._pull(attempt, debt, follow=False)
            except (NodeAway, OSError, TimeoutError) as error:
                log.info("the end of the output is not here", attempt=attempt, error=str(error))
        if not follow:
            yield
            return
        readers, task = self._followed.get(attempt, (0, None))
        self._followed[attempt] = (readers + 1, task or asyncio.create_task(self._follow(attempt)))
        try:
            yield
        finally:
            readers, task = self._followed.pop(attempt)
            if readers > 1:
                self._followed[attempt] = (readers - 1, task)
            else:
                task.cancel()

    async def _follow(self, attempt: AttemptId) -> None:
        while True:
            debt = self._debts.get(attempt)
            if debt is not None and not debt.has_output:
                try:
                    await self._pull(attempt, debt, follow=True)
                except (NodeAway, OSError) as error:
                    log.info("output not followed", attempt=attempt, error=str(error))
            await asyncio.sleep(AGAIN_SECONDS)

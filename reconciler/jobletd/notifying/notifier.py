"""Works off what is on record to be told: webhooks by requests, commands by jobs of their own; again and again until it is done.

A notification is put on record with the end of its run, in one transaction, and goes with its delivery: so each is delivered at
least once, and a receiver knows a second delivery by its id. A command hook's job has a name that follows from the id, and a job
that was declared already is declared again in vain: so its command runs once, unless its own retries say otherwise.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import SecretManifest, SigningKey
from joblet.manifest.webhook_url import is_allowed, parse_webhook
from jobletd.desired import DesiredState
from jobletd.model import JobName, JobView, Phase, Source
from jobletd.notifying.drafts import hook_job_name, number_of
from jobletd.notifying.webhook import NotDelivered, post, signed
from jobletd.registry import Registry
from jobletd.saves import EventDraft
from jobletd.secrets.vault import Vault
from jobletd.store import StoreError
from jobletd.store.notification_rows import (
    Waiting,
    count_try,
    delete_notification,
    load_ids,
    load_notification,
)
from jobletd.work_queue import WorkQueue

WORKERS = 4
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 3600.0
MOST_TRIES = 32  # more than a day and a half, if nobody starts the daemon anew
KIND = "hook"
log = structlog.get_logger("notify")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait between two tries, and how often to try."""

    first_seconds: float = FIRST_PAUSE_SECONDS
    longest_seconds: float = LONGEST_PAUSE_SECONDS
    most_tries: int = MOST_TRIES

    def pause_seconds(self, tries: int) -> float:
        return float(min(self.first_seconds * 2 ** min(tries, 20), self.longest_seconds))


DEFAULT_PACE = Pace()


class Notifier:
    """One for the host. ``run`` until cancelled."""

    def __init__(
        self,
        registry: Registry,
        desired: DesiredState,
        vault: Vault,
        allowed: tuple[str, ...] = (),
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        """allowed: what webhooks the configuration allows; asked anew before each request."""
        self.allowed = allowed
        self._registry = registry
        self._desired = desired
        self._vault = vault
        self._pace = pace
        self._queue: WorkQueue[str] = WorkQueue()
        self.started = asyncio.Event()  # what was on record is known
        registry.on_notification(self._queue.add)
        registry.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        for number in await self._registry.store.read(load_ids):
            self._queue.add(number)
        for name, view in list(self._registry.views.items()):
            self._changed(name, view)
        self.started.set()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            self._queue.close()

    async def settle(self) -> None:
        """Wait until nothing wants a look now."""
        await self._queue.join()

    def _changed(self, name: JobName, view: JobView | None) -> None:
        if view is not None and view.source.kind == KIND and view.runs and view.runs[0].phase.is_final:
            self._queue.add(number_of(name))

    async def _work(self) -> None:
        while True:
            number = await self._queue.get()
            try:
                await self._look(number)
            except Exception as error:  # one notification's trouble, even a defect of ours, must not end the others
                expected = isinstance(error, JobletError | OSError)
                pause = self._queue.retry(number)
                log.warning("not told yet", id=number, error=str(error), again_seconds=pause, exc_info=not expected)
            finally:
                self._queue.done(number)

    async def _look(self, number: str) -> None:
        waiting = await self._registry.store.read(lambda connection: load_notification(connection, number))
        if waiting is None:
            await self._clear_away(number)
        elif waiting.hook_job is not None:
            await self._tend_job(waiting)
        else:
            await self._try_webhook(waiting)

    # --- webhooks -----------------------------------------------------------------------------------------------------

    async def _try_webhook(self, waiting: Waiting) -> None:
        url = waiting.hook.webhook
        assert url is not None
        try:
            if not is_allowed(url, self.allowed):
                todo = "hooks.allowedWebhooks in the daemon's configuration says what is"
                raise NotDelivered("is not allowed any more", where=parse_webhook(url).origin, todo=todo)
            key = None if waiting.hook.sign is None else self._key(waiting.hook.sign)
            body = waiting.body.encode()
            now_seconds = self._registry.clock.wall_ns() // 10**9
            await post(url, body, signed(waiting.id, body, key, now_seconds))
        except JobletError as error:
            await self._failed(waiting, error)
            return
        reached("daemon.notification-sent")
        await self._done(waiting, "Normal", "Notified", f"{parse_webhook(url).origin} was told")

    def _key(self, sign: SigningKey) -> bytes:
        """Raises NotDelivered, SecretKeyError, SecretDamaged."""
        name = f"secret/{sign.name}"
        view = self._registry.resources.get(JobName(name))
        if view is None or view.deleting:
            raise NotDelivered("with which to sign is not there", where=name, todo="apply its manifest")
        assert isinstance(view.manifest, SecretManifest)
        values = self._vault.open(view)
        if sign.key is None and len(values) == 1:
            return next(iter(values.values()))
        if sign.key is None or sign.key not in values:
            raise NotDelivered(
                f"has no value {sign.key or 'alone'}", where=name, todo="say which in spec.notify.sign.key"
            )
        return values[sign.key]

    async def _failed(self, waiting: Waiting, error: JobletError) -> None:
        """Later, and later each time; at some time never."""
        if waiting.tries + 1 >= self._pace.most_tries:
            text = f"given up after {waiting.tries + 1} tries: {error}"
            await self._done(waiting, "Warning", "NotificationLost", text)
            return

        pause = self._pace.pause_seconds(waiting.tries)
        event = EventDraft(waiting.job, waiting.run_id, "Warning", "NotificationDelayed", str(error))
        await self._registry.write(lambda connection: count_try(connection, waiting.id), event)
        log.info("not told yet", id=waiting.id, job=waiting.job, error=str(error), again_seconds=pause)
        self._queue.add_after(waiting.id, pause)

    async def _done(self, waiting: Waiting, kind: str, reason: str, text: str) -> None:
        event = EventDraft(waiting.job, waiting.run_id, kind, reason, text)
        await self._registry.write(lambda connection: delete_notification(connection, waiting.id), event)

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _tend_job(self, waiting: Waiting) -> None:
        """Declare the hook's job; once it has ended, that is told, and then it goes."""
        assert waiting.hook_job is not None
        name = hook_job_name(waiting.id)
        view = self._registry.views.get(name)
        if view is None:
            try:
                await self._desired.apply([waiting.hook_job], Source(KIND, waiting.job))
            except StoreError:
                raise
            except JobletError as error:
                await self._failed(waiting, error)
                return
            reached("daemon.hook-job-declared")
            return
        run = view.runs[0] if view.runs else None
        if run is None or not run.phase.is_final:
            return  # its next change brings us back
        if run.phase is Phase.COMPLETED:
            await self._done(waiting, "Normal", "Notified", f"by its command (job {name}, run {run.id})")
        else:
            text = f"its command ended as {run.phase} ({run.reason}: {run.message}; rnx log {run.id})"
            await self._done(waiting, "Warning", "NotificationLost", text)
        reached("daemon.hook-job-told")
        await self._clear_away(waiting.id)

    async def _clear_away(self, number: str) -> None:
        """The job of a hook that was told; its history stays for a while."""
        name = hook_job_name(number)
        view = self._registry.views.get(name)
        if view is not None and view.source.kind == KIND and not view.deleting:
            await self._desired.delete(name, source=view.source)

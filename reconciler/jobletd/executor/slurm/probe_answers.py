"""What services on nodes answer to their probes, as their nodes tell it in the shared directory: each answer once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from joblet.clock import Clock
from joblet.manifest import Probe
from jobletd.executor import ExecutorUnavailable
from jobletd.executor.slurm.client import ENGINE
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm.tracking import Tracked
from jobletd.executor.slurm_node import probing
from jobletd.executor.slurm_node.place import Place
from jobletd.model import AttemptId

SILENT_SECONDS = 15.0  # beyond two intervals and one timeout: then its node is away


@dataclass(slots=True)
class _Heard:
    """Of one attempt. probe: as its node knows it. count: answers so far. at: when the last one came, by our clock."""

    probe: Probe | None
    at: float
    count: int = 0


class ProbeAnswers:
    """call: runs in a thread what waits for the shared directory."""

    def __init__(self, settings: SlurmSettings, clock: Clock, call: Callable[..., Awaitable[Any]]) -> None:
        self._settings = settings
        self._clock = clock
        self._call = call
        self._heard: dict[AttemptId, _Heard] = {}
        self._looking: asyncio.Future[list[str]] | None = None

    def forget(self, attempt_id: AttemptId) -> None:
        self._heard.pop(attempt_id, None)

    async def new(self, tracked: Tracked, probe: Probe) -> list[str]:
        """The answers since the last call, oldest first. Raises ExecutorUnavailable if its node tells nothing any more."""
        now = self._clock.boot_seconds()
        heard = self._heard.setdefault(tracked.attempt_id, _Heard(tracked.manifest.spec.probe, now))
        found, why = await self._bounded(tracked, probe, heard)
        if found:
            heard.at = now
        elif now - heard.at > (limit := 2 * probe.interval_seconds + probe.timeout_seconds + SILENT_SECONDS):
            what = f"its node has told nothing for more than {limit:g} s{f': {why}' if why else ''}"
            raise ExecutorUnavailable(what, where=ENGINE, todo="rnx nodes tells how its node stands")
        return found

    async def _bounded(self, tracked: Tracked, probe: Probe, heard: _Heard) -> tuple[list[str], str]:
        """A look that keeps nobody waiting: one that hangs in the shared directory stays the only one. With why there is none."""
        if self._looking is not None and not self._looking.done():
            return [], "the shared directory does not answer"
        place = Place(self._settings.attempt_directory(tracked.attempt_id))
        look = asyncio.ensure_future(self._call(_look, place, probe, heard))
        look.add_done_callback(_seen)
        await asyncio.wait({look}, timeout=self._settings.command_seconds)
        if not look.done():
            self._looking = look
            return [], "the shared directory does not answer"
        try:
            return look.result(), ""
        except OSError as error:
            return [], str(error)


def _look(place: Place, probe: Probe, heard: _Heard) -> list[str]:
    if probe != heard.probe:
        probing.ask(place, probe)
        heard.probe, heard.count = probe, 0
    count, answers = probing.told(place, probe)
    new = max(count - heard.count, 0)
    heard.count = count
    return answers[-new:] if new else []


def _seen(look: asyncio.Future[list[str]]) -> None:
    """One that was left alone must not complain at its end."""
    if not look.cancelled():
        look.exception()

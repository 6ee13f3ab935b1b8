"""A service on a node is asked there, beside it; what it answers is told by a file, which the daemon reads when it likes."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from pydantic import ValidationError

from joblet.errors import JobletError
from joblet.manifest import Probe, Restart
from jobletd.executor import AttemptRequest
from jobletd.executor.slurm_node.place import Place
from jobletd.probing.health import Health, after_probe, pause_seconds

ANSWERS = "probe.json"
ASKED = "probe-asked.json"
VERSION = 2
KEPT = 64  # answers, for a daemon that has not looked for a while
LOOK_SECONDS = 10.0  # for a probe that the job has got since it was started


class Asks(Protocol):
    """What can ask it: the local executor."""

    async def probe(self, request: AttemptRequest, probe: Probe) -> Sequence[str]: ...


async def answer_probes(executor: Asks, request: AttemptRequest, place: Place) -> None:
    """Ask as long as it runs, which whoever cancels this knows."""
    if request.manifest.spec.restart is not Restart.ALWAYS:
        return  # nothing else is a service
    probe, health, count = request.manifest.spec.probe, Health(), 0
    answers: deque[str] = deque(maxlen=KEPT)
    while True:
        asked = await asyncio.to_thread(_asked, place) or probe
        if asked is None:
            await asyncio.sleep(LOOK_SECONDS)
            continue
        if asked != probe:
            probe, health, count = asked, Health(), 0
            answers.clear()
        for why in await _ask(executor, request, asked):
            count += 1
            answers.append(why)
            health = after_probe(health, asked, why, 0.0)
        document = {"version": VERSION, "probe": words(asked), "count": count, "answers": list(answers)}
        await asyncio.to_thread(_tell, place, document)
        await asyncio.sleep(pause_seconds(health, asked))


async def _ask(executor: Asks, request: AttemptRequest, probe: Probe) -> Sequence[str]:
    try:
        return await executor.probe(request, probe)
    except (JobletError, OSError) as error:
        return [f"could not be asked: {error}"]
    except Exception as error:  # a defect of ours is no fault of the job, and must not end the asking
        print(f"joblet: a probe broke: {error!r}", file=sys.stderr, flush=True)
        return ["could not be asked; slurm.out of its attempt tells more"]


def _tell(place: Place, document: Mapping[str, Any]) -> None:
    # Where the shared directory is away the daemon knows that it hears nothing, and the next answer brings this one too.
    with suppress(OSError):
        place.write(ANSWERS, document, durable=False)


def _asked(place: Place) -> Probe | None:
    """What the daemon asks for since the probe in its manifest has changed."""
    try:
        document = place.read(ASKED)
        return None if document is None else Probe.model_validate(document)
    except (OSError, ValidationError):
        return None


def ask(place: Place, probe: Probe) -> None:
    """On the daemon's side: this one from now on. Raises OSError."""
    place.write(ASKED, words(probe), durable=False)


def words(probe: Probe) -> dict[str, Any]:
    """As the files have it."""
    document: dict[str, Any] = probe.model_dump(mode="json", by_alias=True, exclude_none=True)
    return document


def told(place: Place, probe: Probe) -> tuple[int, list[str]]:
    """On the daemon's side: how many answers to this probe there were, and the last of them, oldest first. Raises OSError."""
    document = place.read(ANSWERS) or {}
    count, answers = document.get("count"), document.get("answers")
    if document.get("version") != VERSION or not isinstance(count, int) or not isinstance(answers, list):
        return 0, []
    if document.get("probe") != words(probe):  # its node still asks what was asked before
        return 0, []
    return count, [str(answer) for answer in answers]

"""From an attempt to the batch job that runs it: pure functions, but for the key that secrets get."""

from __future__ import annotations

import base64
import json
import math
import shlex
from typing import Any

from joblet.manifest import JobManifest, SlurmRequest
from joblet.manifest.canonical import plain
from jobletd.executor import AttemptRequest
from jobletd.executor.slurm.client import NAME_PREFIX, SlurmRefused, Submission
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm_node.sealed_secrets import new_key

VERSION = 1
MIB = 1 << 20
NICE_A_STEP = 100  # of spec.priority
MIDDLE_PRIORITY = 50
# What the node's start and the kill after the grace may take beyond a job's own time: Slurm's limit is only the backstop.
MARGIN_SECONDS = 60.0
NOWHERE = "/dev/null"  # where no directory is known to be on each node: the launcher tells the node's system log what went wrong
MOST_SCRIPT_BYTES = (4 << 20) - 4096  # Slurm's own bound, max_script_size, which it names "parameter too long"
END_MARK = "JOBLET_REQUEST_END"


def submission_of(document: dict[str, Any], manifest: JobManifest, settings: SlurmSettings) -> Submission:
    """document: as ``request_document`` made it. Raises SlurmRefused."""
    spec = manifest.spec
    wanted = spec.slurm or SlurmRequest()
    attempt_id = str(document["attempt_id"])
    memory = spec.limits.memory_bytes
    return Submission(
        name=f"{NAME_PREFIX}{attempt_id}",
        comment=str(document["run_id"]),
        script=script_of(document, settings.launcher),
        output=f"{settings.attempt_directory(attempt_id)}/slurm.out" if settings.shared_directory else NOWHERE,
        cpus=math.ceil((spec.limits.cpu_percent or 100) / 100),
        memory_mb=None if memory is None else math.ceil((memory + settings.memory_headroom_bytes) / MIB),
        minutes=minutes_of(manifest, document["deadline_seconds"]),
        nice=(MIDDLE_PRIORITY - spec.priority) * NICE_A_STEP,
        partition=wanted.partition or settings.partition,
        account=wanted.account or settings.account,
        qos=wanted.qos or settings.qos,
        constraint=wanted.constraint or settings.constraint,
        node=wanted.node or "",
        exclude=wanted.exclude,
    )


def request_document(request: AttemptRequest, settings: SlurmSettings, now_ns: int) -> dict[str, Any]:
    """What ``joblet sandbox-exec`` reads. deadline_unix: when the run's time is up, the time in Slurm's queue included.

    secrets_key: opens what ``sealed_secrets`` leaves for the node, and nothing else."""
    left = request.deadline_seconds
    return {
        "version": VERSION,
        "attempt_id": request.attempt_id,
        "run_id": request.run_id,
        "number": request.number,
        "manifest": plain(request.manifest),
        "deadline_seconds": left,
        "deadline_unix": None if left is None else now_ns / 10**9 + left,
        "tick_seconds": request.tick_seconds,
        **({"secrets_key": new_key()} if request.secrets else {}),
        "executor": {"shared_directory": settings.shared_directory, "cluster": ""},
    }


def script_of(document: dict[str, Any], launcher: tuple[str, ...]) -> str:
    """The batch script: nothing but the launcher, which gets its request on its standard input."""
    text = json.dumps(document, separators=(",", ":"))
    encoded = base64.b64encode(text.encode()).decode()
    lines = "\n".join(encoded[start : start + 1000] for start in range(0, len(encoded), 1000))
    if len(lines) > MOST_SCRIPT_BYTES:
        what = f"its manifest makes a batch script of {len(lines)} bytes, and Slurm takes 4 MiB"
        raise SlurmRefused(what, where=str(document["attempt_id"]), todo="make its files smaller")
    return f"#!/bin/sh\nexec {shlex.join(launcher)} sandbox-exec <<'{END_MARK}'\n{lines}\n{END_MARK}\n"


def minutes_of(manifest: JobManifest, deadline_seconds: float | None) -> int | None:
    """Slurm's limits are minutes: the node enforces the seconds, this ends what the node cannot end."""
    limits = [limit for limit in (manifest.spec.attempt_timeout_seconds, deadline_seconds) if limit is not None]
    if not limits:
        return None
    return math.ceil((min(limits) + manifest.spec.stop.grace_seconds + MARGIN_SECONDS) / 60)

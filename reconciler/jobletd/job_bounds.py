"""The limits of jobs that name none, and the longest that a run may take, as the configuration has them.

They are put into an attempt's manifest when it starts, never into what is on record: a job stays as it was written, and a changed
configuration counts from its next attempt on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from joblet.config.job_sections import JobletSection
from joblet.manifest import JobManifest, Restart
from joblet.manifest.models import IoLimits
from jobletd.model import Run


@dataclass(frozen=True, slots=True)
class JobBounds:
    """0: none."""

    cpu_percent: int = 0
    memory_bytes: int = 0
    io_bytes: int = 0
    run_seconds: float = 0.0

    @classmethod
    def of(cls, config: JobletSection) -> JobBounds:
        return cls(
            config.default_cpu_percent,
            config.default_memory_mb << 20,
            config.default_io_bytes,
            config.job_timeout_seconds,
        )

    def bounded(self, run: Run) -> Run:
        """The run with the manifest that its attempts are started with."""
        return run if self == NO_BOUNDS else replace(run, manifest=bounded(run.manifest, self))


NO_BOUNDS = JobBounds()


def bounded(manifest: JobManifest, bounds: JobBounds) -> JobManifest:
    """The manifest with what it leaves out. A run's time is bounded whatever it says, unless it is a service."""
    spec = manifest.spec
    limits: dict[str, Any] = {}
    if bounds.cpu_percent and spec.limits.cpu_percent is None:
        limits["cpu_percent"] = float(bounds.cpu_percent)
    if bounds.memory_bytes and spec.limits.memory_bytes is None:
        limits["memory_bytes"] = bounds.memory_bytes
    if bounds.io_bytes and spec.limits.io is None:
        limits["io"] = IoLimits(read=bounds.io_bytes, write=bounds.io_bytes)
    update: dict[str, Any] = {"limits": spec.limits.model_copy(update=limits)} if limits else {}
    if bounds.run_seconds and spec.restart is not Restart.ALWAYS:
        asked = spec.timeout_seconds
        update["timeout_seconds"] = bounds.run_seconds if asked is None else min(asked, bounds.run_seconds)
    return manifest.model_copy(update={"spec": spec.model_copy(update=update)}) if update else manifest

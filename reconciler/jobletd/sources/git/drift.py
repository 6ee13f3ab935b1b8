"""What differs from a repository though nobody has declared it otherwise: jobs that somebody has stopped by hand."""

from __future__ import annotations

import structlog

from joblet.errors import JobletError
from joblet.manifest import Drift
from jobletd.model import JobName
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.git.scope import GitScope

log = structlog.get_logger("git")


async def mend_drift(desired: DesiredJobs, name: str, wish: Drift) -> frozenset[JobName]:
    """What was stopped by hand runs again, or is shown, as ``wish`` says. Returns what is shown."""
    scope, key = GitScope(name, ""), f"gitsource/{name}"
    owners = await desired.owners()
    stopped = await desired.stopped_by_hand() if wish is not Drift.IGNORE else frozenset()
    ours = frozenset(job for job in stopped if job in owners and scope.file_of(owners[job]) is not None)
    if wish is Drift.CORRECT:
        for job in sorted(ours):
            try:
                await desired.trigger(job, trigger="drift", why=f"it was stopped by hand, and {key} corrects drift")
            except JobletError as error:
                log.info("drift not corrected", job=job, error=str(error))  # it has changed meanwhile
        ours = frozenset()
    for job in ours:
        await desired.set_condition(job, "Drifted", "True", "StoppedByHand", f"{key} wants it to run")
    shown = await desired.holding("Drifted", "True")
    for job in (job for job in shown.keys() - ours if job in owners and scope.file_of(owners[job]) is not None):
        await desired.set_condition(job, "Drifted", "False", "InLine", "")
    return ours

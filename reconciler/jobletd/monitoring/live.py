"""The attempts that run, with what each uses: one way to find them, for metrics and for people who watch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from jobletd.arrays.index_runs import job_part
from jobletd.executor import Executor
from jobletd.model import Attempt, AttemptId, JobName, Phase, Run, Usage
from jobletd.registry import Registry

AT_A_TIME = 20  # attempts that are looked at before the event loop's others have their turn


@dataclass(frozen=True, slots=True)
class Live:
    """One attempt whose command runs. job: also of what runs for an index of its array. usage_ns: when that was read, on its
    node's clock; None: just now."""

    job: JobName
    run: Run
    usage: Usage
    usage_ns: int | None = None

    @property
    def attempt(self) -> Attempt:
        return self.run.attempts[-1]

    @property
    def memory_limit_bytes(self) -> int | None:
        return self.run.manifest.spec.limits.memory_bytes


def live_runs(registry: Registry) -> list[Run]:
    """Those with an attempt that has not ended, the oldest attempts first."""
    found = [
        run
        for view in registry.everything()
        for run in view.runs[:2]  # a newer one waits until the older has ended
        if run.attempts and run.attempts[-1].end is None
    ]
    return sorted(found, key=lambda run: (run.attempts[-1].created_ns, run.id))


async def usage_of(runs: list[Run], executor: Executor) -> list[Live]:
    """What their commands use; those that do not run (yet, any more) are left out."""
    found: list[Live] = []
    for first in range(0, len(runs), AT_A_TIME):
        part = {
            run.attempts[-1].id: run
            for run in runs[first : first + AT_A_TIME]
            if run.attempts[-1].phase is Phase.RUNNING
        }
        found += await _look(part, executor)
        await asyncio.sleep(0)
    return found


async def _look(part: dict[AttemptId, Run], executor: Executor) -> list[Live]:
    used = await executor.usage(dict.fromkeys(part))
    return [
        Live(job_part(run.job), run, now.usage, now.at_ns)
        for attempt_id, run in part.items()
        if (now := used.get(attempt_id)) is not None
    ]

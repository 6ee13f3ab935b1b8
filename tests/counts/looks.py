"""How often the profiler looks at 500 jobs that do nothing: in a minute after they have run for ten, on the test's own clock."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.unit.monitoring.crowd import crowd

JOBS = 500
BEFORE_SECONDS = 600.0
COUNTED_SECONDS = 60.0


def looks_a_minute(*, busy: int = 0) -> Mapping[str, int]:
    """busy: so many of them use CPU all the time."""
    with tempfile.TemporaryDirectory(prefix="joblet-test-looks-") as directory:
        return asyncio.run(_count(Path(directory), busy))


async def _count(directory: Path, busy: int) -> Mapping[str, int]:
    names = [f"job-{number}" for number in range(JOBS)]
    async with crowd(directory) as there:
        await there.start(*names)
        await there.pass_time(BEFORE_SECONDS)
        there.counts()
        for second in range(int(COUNTED_SECONDS)):
            for name in names[:busy]:
                there.use(name, second + 1)
            await there.pass_time(1)
        return there.counts()

"""stress-ng in a limited job for some seconds, class by class: jobs launch and the daemon answers meanwhile.

How much slower launches get is measured by hand, over minutes: ``make stress``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.stress import CLASSES, Probe, beside, stressed_host
from tests.integration.host import Host
from tests.timing import PATIENCE

SECONDS = 4
LAUNCH_WITHIN_SECONDS = 15.0  # some fifty milliseconds at rest: wide, as machines of tests are


@pytest.fixture(scope="module")
def stressed() -> Iterator[tuple[Host, Probe]]:
    with stressed_host() as made:
        yield made


@pytest.mark.parametrize("kind", CLASSES)
def test_jobs_launch_while_another_job_stresses_the_kernel(stressed: tuple[Host, Probe], kind: str) -> None:
    host, probe = stressed
    figures = beside(host, probe, kind, SECONDS, rounds_before=3, at_least=3)
    print(figures)
    assert len(figures.during) >= 3
    assert max(figures.during) < LAUNCH_WITHIN_SECONDS * PATIENCE
    assert all(run.reason in ("Completed", "OOMKilled", "ExitCode", "TimedOut") for run in figures.runs)
    assert sum(run.attempts[-1].usage.cpu_seconds for run in figures.runs) > 0.5

"""Nothing that has a budget costs more than that; and each guard sees it when something does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.counts import budget
from tests.counts.budget import OverBudget, check
from tests.counts.job import TracedHost, traced_host
from tests.counts.launch import calls_per_launch
from tests.counts.looks import looks_a_minute
from tests.counts.start import HEAVY, blocks_of_launcher, modules_of_help


@pytest.fixture(scope="module")
def host() -> Iterator[TracedHost]:
    with traced_host() as host:
        yield host


def test_the_daemon_when_it_is_ready(host: TracedHost) -> None:
    blocks = host.blocks()  # before there is a job
    check(budget.DAEMON_BLOCKS, {"blocks": blocks})
    with pytest.raises(OverBudget, match=r"more than recorded.*\n.*blocks: \d+ -> \d+"):
        check(budget.DAEMON_BLOCKS, {"blocks": int(blocks * 1.25)})


def test_statements_and_waits_for_the_disk_of_a_job(host: TracedHost) -> None:
    counts = host.counts()
    check(budget.STATEMENTS, counts.statements)
    check(budget.SYNCS, counts.syncs)
    with_a_retry = host.counts(jobs=2, retries=1, code=1)
    with pytest.raises(OverBudget, match=r"INSERT attempts: 3 -> 6 \(\+3\)"):
        check(budget.STATEMENTS, with_a_retry.statements)
    with pytest.raises(OverBudget, match=r"joblet\.db-wal: \d+ -> \d+ \(\+\d+\)"):
        check(budget.SYNCS, with_a_retry.syncs)


def test_system_calls_of_a_launch() -> None:
    kind, calls = calls_per_launch()
    check(budget.LAUNCH, calls, kind=kind)
    files = [{"path": f"file-{number}", "mode": 0o644, "content": ""} for number in range(5)]
    kind, more = calls_per_launch(files=files)
    with pytest.raises(OverBudget, match=r"set-up openat: \d+ -> \d+ \(\+\d+\)(.|\n)*look at joblet/sandbox"):
        check(budget.LAUNCH, more, kind=kind)


def test_modules_of_the_clients_help() -> None:
    modules = modules_of_help()
    assert not HEAVY & modules.keys()
    check(budget.HELP, modules)
    heavier = modules_of_help("import asyncio, yaml")
    assert HEAVY & heavier.keys() >= {"asyncio", "yaml"}
    with pytest.raises(OverBudget, match=r"asyncio: 0 -> \d+"):
        check(budget.HELP, heavier)


def test_allocations_of_the_launcher() -> None:
    check(budget.LAUNCHER_BLOCKS, {"blocks": blocks_of_launcher()})
    with pytest.raises(OverBudget):
        check(budget.LAUNCHER_BLOCKS, {"blocks": blocks_of_launcher("import typing, re")})


def test_looks_at_jobs_that_do_nothing() -> None:
    check(budget.LOOKS, looks_a_minute())
    with pytest.raises(OverBudget, match=r"whole: \d+ -> \d+(.|\n)*look at jobletd/monitoring"):
        check(budget.LOOKS, looks_a_minute(busy=500))

"""What holds for every test: no skips, bounds that fit the machine, root where it is needed, nothing left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.leaks import LeakCheck
from tests.strictness import (
    deselect_native_only,
    pytest_make_collect_report,
    pytest_runtest_makereport,
    pytest_terminal_summary,
    scale_timeouts,
)
from tests.timing import PATIENCE

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport", "pytest_terminal_summary"]

# gRPC's core writes to standard error whenever a connection ends badly, whoever looks at it just then; rnx sets this too, and
# it counts only before the first import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# How long an example takes is the machine's affair: a worker that waits for a processor is not a failure.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

HERE = Path(__file__).parent
NEED_ROOT = tuple(
    HERE / name for name in ("integration", "hostile", "faults", "guest", "systemd", "slurm", "executors", "counts")
)
_leak_check = pytest.StashKey[LeakCheck]()
_leaks = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deselect_native_only(config, items)
    scale_timeouts(items)
    if any(item.path.is_relative_to(directory) for item in items for directory in NEED_ROOT):
        if os.geteuid() != 0:
            raise pytest.UsageError(
                "tests/integration, hostile, faults, guest and slurm make namespaces and cgroups: run them as root"
            )
        config.stash[_leak_check] = LeakCheck()


def pytest_configure() -> None:
    # A shell that starts the tests in the background has them ignore Ctrl-C, and so would all that they start.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    leaks = session.config.stash.setdefault(_leaks, [])
    if check := session.config.stash.get(_leak_check, None):
        leaks += check.leaks(patience=PATIENCE)
    worker_output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if worker_output is not None:
        worker_output["leaks"] = leaks  # for pytest_testnodedown
    elif leaks:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.section("left behind by the tests", red=True, bold=True)
            for leak in sorted(set(leaks)):  # what has no name is seen by each worker
                reporter.line(leak)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Of pytest-xdist, where the results are collected: a worker has ended. To LeakCheck each is a session of its own."""
    node.config.stash.setdefault(_leaks, []).extend(getattr(node, "workeroutput", {}).get("leaks", []))

"""A skipped test is a failed test: what cannot run says nothing, and nobody reads the count of skips.

The hooks turn every skip, and every expected failure that is not strict, into a failure that says so. What cannot hold in
the guest is deselected there instead, in plain sight: ``@pytest.mark.native_only(reason="...")``.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.timing import PATIENCE

IN_GUEST = os.environ.get("JOBLET_TEST_GUEST") == "1"
_deselected = pytest.StashKey[list[tuple[str, str]]]()


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped":
        return
    reason = getattr(report, "wasxfail", None)
    if reason is None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    else:
        del report.wasxfail
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: skipped ({reason}), and here a skipped test is a failed one"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # An expected failure that is strict is a known fault on record; pytest itself fails it once it passes.
    if not (hasattr(report, "wasxfail") and expects_failure_strictly(item)):
        _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


def expects_failure_strictly(item: pytest.Item) -> bool:
    """Whether its expected failure is one that is run and must fail, which is the default here (pyproject.toml)."""
    marks = list(item.iter_markers("xfail"))
    return bool(marks) and all(mark.kwargs.get("strict", True) and mark.kwargs.get("run", True) for mark in marks)


def deselect_native_only(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the guest, take out what is marked native_only. Raises UsageError for a mark without a reason."""
    native: list[tuple[pytest.Item, str]] = []
    for item in items:
        if mark := item.get_closest_marker("native_only"):
            reason = mark.kwargs.get("reason")
            if not reason:
                raise pytest.UsageError(f'{item.nodeid}: native_only needs a reason="..."')
            native.append((item, reason))
    if not (IN_GUEST and native):
        return
    config.stash[_deselected] = [(item.nodeid, reason) for item, reason in native]
    config.hook.pytest_deselected(items=[item for item, _ in native])
    excluded = {id(item) for item, _ in native}
    items[:] = [item for item in items if id(item) not in excluded]


def scale_timeouts(items: list[pytest.Item]) -> None:
    """Stretch the timeouts that tests set for themselves; the general one is an option of the command line."""
    for item in items:
        if (mark := item.get_closest_marker("timeout")) and mark.args and PATIENCE != 1:
            item.add_marker(pytest.mark.timeout(mark.args[0] * PATIENCE, **mark.kwargs), append=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    deselected = config.stash.get(_deselected, [])
    if deselected:
        terminalreporter.section("not in the guest")
        for nodeid, reason in deselected:
            terminalreporter.line(f"{nodeid}: {reason}")

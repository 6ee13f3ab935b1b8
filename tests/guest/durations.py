"""What each file took, at the end of a guest's run: the table in parts.py comes from it. A plugin of pytest."""

from __future__ import annotations

from collections import defaultdict

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.location[0]] += report.duration
    terminalreporter.section("seconds a file")
    for path, duration in sorted(seconds.items(), key=lambda one: one[1], reverse=True):
        terminalreporter.line(f"{duration:6.1f} {path}")

"""What a test measured (a line that begins with "measured: ") is shown at the end, although the test passed."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # as in jobs, and before torch: on more threads it splits sums otherwise

MEASURED = "measured: "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    lines = [
        line for report in reports for line in report.capstdout.splitlines() if line.startswith(MEASURED)
    ]
    if lines:
        terminalreporter.section("measured")
        for line in sorted(lines):
            terminalreporter.write_line(line.removeprefix(MEASURED))

"""Figures of test runs: recovery times belong into notes, not into assertions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_PROPERTY = "measured"
_IS_SHOWN = pytest.StashKey[bool]()


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes lines with figures that the end of the test run shows."""
    return lambda line: record_property(_PROPERTY, line)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Shows what was measured, once, whichever process the tests ran in."""
    lines = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if lines and not config.stash.get(_IS_SHOWN, False):
        config.stash[_IS_SHOWN] = True
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(str(line))

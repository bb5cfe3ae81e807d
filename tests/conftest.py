"""For tests that cross services: the table of guards that were taken away, and what noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

# What these assert is told as what tests assert is.
pytest.register_assert_rewrite("tests.e2e.checks")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Prints it, whichever process the tests ran in."""
    mutants = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "mutant"
    ]
    if not mutants:
        return
    rows = [("guard taken away", "layer", "probe", "killed")]
    rows += [
        (guard, layer, probe, "yes" if killed else "NO") for guard, layer, probe, killed in sorted(mutants)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section("mutants of isolation")
    for row in rows:
        terminalreporter.line(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )

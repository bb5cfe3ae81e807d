"""For every test of the repository: a skip under CI is a failure, and a run says how many minutes it took."""

from __future__ import annotations

import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.terminal import TerminalReporter

_BEGIN: Final = pytest.StashKey[float]()

if find_spec("hypothesis"):  # a service alone may have no use for it
    from hypothesis import HealthCheck, settings

    # A busy machine is no fault. That the same examples are tried each time under CI, hypothesis sees to.
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Remembers when the run began, and forgets which repository Git runs it for.

    Below a hook or `git rebase --exec` the repositories that tests make would otherwise be this one.
    """
    config.stash[_BEGIN] = time.monotonic()
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[variable]
    # Who runs the tests in the background lets them ignore Ctrl-C, and what they start inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Hands each file to one process, and all files of a folder that is a package to the same one in a row.

    They share a suite of services, made once. It lives in an event loop that stands still while a test
    elsewhere runs, so such a suite must be over before anything else begins.
    """
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415  where xdist is not installed nobody asks

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist is untyped
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::", 1)[0])
            return str(file.parent if (config.rootpath / file.parent / "__init__.py").exists() else file)

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI what cannot run has failed: a tier that is skipped there proves nothing and nobody looks."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} cannot be skipped under CI. {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself as a whole."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} cannot be skipped under CI. {reason}"
    return report


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Says the minutes of the run, for the table in CONTRIBUTING.md."""
    minutes = (time.monotonic() - config.stash[_BEGIN]) / 60
    tiers = {"real": "test-real", "cluster": "test-cluster", "docker": "test-images"}
    tier = tiers.get(config.option.markexpr, "test")
    terminalreporter.line(f"{tier}: {minutes:.1f} min")

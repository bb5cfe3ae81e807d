"""Runs the whole suite on this machine: `python -m tlsy.embedded --data-dir DIR`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tlsy.embedded.adapters.data_directory import DataDirectory, DataDirectoryInUseError
from tlsy.embedded.settings import load_own, load_services
from tlsy.runtime.crash_reports import open_crash_reports
from tlsy.runtime.host import EXIT_SETTINGS, rest_collector, run
from tlsy.runtime.logging import LogFormat, configure_logging, wants_text
from tlsy.runtime.settings import SettingsInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlsy.embedded.settings import EmbeddedSettings, SettingsOfServices


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code is that of services."""
    parser = argparse.ArgumentParser(prog="python -m tlsy.embedded", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="default: TLSY_EMBEDDED_DATA_DIR, else the user's data")
    parser.add_argument("--log-format", choices=get_args(LogFormat), help="default: TLSY_EMBEDDED_LOG_FORMAT")
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    problems: list[str] = []
    settings = load_own(problems, **given)
    directory = DataDirectory(settings.data_dir.absolute())
    reports = None
    try:
        reports = open_crash_reports("suite", settings.sentry_dsn, variable="TLSY_EMBEDDED_SENTRY_DSN")
    except SettingsInvalid as error:
        problems.extend(error.problems)
    services = load_services(problems, settings, directory)
    if problems or services is None:
        return _settings_are_wrong(problems)
    text = wants_text(settings.log_format)
    configure_logging(
        level=settings.log_level or ("warning" if text else "info"),
        text=text,
        report=reports.report if reports else None,
    )
    try:
        directory.open()
    except DataDirectoryInUseError as error:
        sys.stderr.write(f"embedded: {error}\n")
        return EXIT_SETTINGS
    except OSError as error:
        what = f"the data directory {directory.root} cannot be used: {error.strerror}: {error.filename}"
        sys.stderr.write(f"embedded: {what}; choose another with --data-dir\n")
        return EXIT_SETTINGS
    rest_collector()
    try:
        return asyncio.run(_run(settings, services, directory, _tell if text else _keep_to_logs))
    finally:
        directory.close()
        if reports is not None:
            reports.close()


async def _run(
    settings: EmbeddedSettings,
    services: SettingsOfServices,
    directory: DataDirectory,
    tell: Callable[[str], None],
) -> int:
    # All services: not for its help, nor for settings that are wrong.
    from tlsy.embedded.app import Suite  # noqa: PLC0415 - see above

    try:
        # Built inside the loop: channels belong to the loop that they are made in.
        suite = Suite(settings, services, directory, tell)
    except SettingsInvalid as error:
        return _settings_are_wrong(error.problems)
    tell(f"Starting on {directory.root}")
    code = await run(suite, grace_s=settings.stop_grace_s)
    if code == 0:
        tell(f"Stopped. Nothing runs any more; the data stay in {directory.root}")
    return code


def _settings_are_wrong(problems: Sequence[str]) -> int:
    sys.stderr.write("\n".join(["embedded: the settings are wrong:", *problems, ""]))
    return EXIT_SETTINGS


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _keep_to_logs(text: str) -> None:
    """Who reads JSON reads the same in the log."""


if __name__ == "__main__":
    sys.exit(main())

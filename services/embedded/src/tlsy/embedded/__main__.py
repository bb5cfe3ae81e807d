"""Runs the whole suite on this machine: `python -m tlsy.embedded --data-dir DIR`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tlsy.embedded.adapters.data_directory import DataDirectory, DataDirectoryInUseError
from tlsy.embedded.app import Suite
from tlsy.embedded.settings import EmbeddedSettings
from tlsy.runtime.crash_reports import open_crash_reports
from tlsy.runtime.host import EXIT_SETTINGS, run
from tlsy.runtime.logging import configure_logging
from tlsy.runtime.settings import SettingsInvalid, load

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code is that of services."""
    parser = argparse.ArgumentParser(prog="python -m tlsy.embedded", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="default: TLSY_EMBEDDED_DATA_DIR, else the user's data")
    arguments = parser.parse_args(argv)
    try:
        settings = load(EmbeddedSettings)
        reports = open_crash_reports("suite", settings.sentry_dsn, variable="TLSY_EMBEDDED_SENTRY_DSN")
    except SettingsInvalid as problems:
        sys.stderr.write(f"embedded: the settings are wrong:\n{problems}\n")
        return EXIT_SETTINGS
    if arguments.data_dir is not None:
        settings = settings.model_copy(update={"data_dir": arguments.data_dir})
    configure_logging(level=settings.log_level, report=reports.report if reports else None)
    directory = DataDirectory(settings.data_dir.absolute())
    try:
        directory.open()
    except (DataDirectoryInUseError, OSError) as error:
        sys.stderr.write(f"embedded: {error}\n")
        return EXIT_SETTINGS
    try:
        return asyncio.run(_run(settings, directory))
    finally:
        directory.close()
        if reports is not None:
            reports.close()


async def _run(settings: EmbeddedSettings, directory: DataDirectory) -> int:
    try:
        # Built inside the loop: channels belong to the loop that they are made in.
        suite = Suite(settings, directory)
    except OSError as error:
        sys.stderr.write(f"embedded: port {settings.metrics_port} for metrics: {error}\n")
        return EXIT_SETTINGS
    return await run(suite, grace_s=settings.stop_grace_s)


if __name__ == "__main__":
    sys.exit(main())

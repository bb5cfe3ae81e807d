"""Runs the agent: python -m tlsy.agent --config agent.yaml [--check]."""

from __future__ import annotations

import argparse
import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import structlog

from tlsy.agent.adapters.buffer import BufferInUseError
from tlsy.agent.app import build, readings
from tlsy.agent.settings import SettingsError, load
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.host import EXIT_SETTINGS, run
from tlsy.runtime.logging import LogFormat, configure_logging, wants_text

if TYPE_CHECKING:
    from tlsy.agent.settings import Settings


def _key_problem(path: Path) -> str:
    """What is wrong with the key's file; "" if nothing is."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): put the API key there"
    if not os.access(path, os.R_OK):
        return f"{path} cannot be read: give it to the agent's user"
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"{path} can be read by others than its owner: chmod 600 {path}"
    return ""


async def _run(settings: Settings) -> int:
    problem = _key_problem(settings.api_key_file)
    if problem:
        # It may be put right while the agent runs: the file is read again whenever a token is needed.
        structlog.get_logger(__name__).warning("look at the API key", problem=problem)
    return await run(build(settings, SystemClock(), os.urandom), grace_s=settings.stop_grace_s)


async def _check(settings: Settings) -> int:
    """Reads everything once and sends nothing."""
    for reading in await readings(settings, SystemClock()).read():
        value = "-" if reading.value is None else f"{reading.value:.15g}"
        error = reading.labels.get("error", "")
        sys.stdout.write(f"{reading.type}\t{reading.subject}\t{value}\t{error}\n")
    problem = _key_problem(settings.api_key_file)
    if problem:
        sys.stderr.write(f"{problem}\n")
    return 0 if os.access(settings.api_key_file, os.R_OK) else EXIT_SETTINGS


def main() -> int:
    """Returns the exit code: 0 stopped, 1 failed, 78 the configuration is wrong (all problems on stderr)."""
    parser = argparse.ArgumentParser(prog="tlsy-agent", description="Collects this host's telemetry.")
    parser.add_argument("--config", type=Path, required=True, help="the YAML file")
    parser.add_argument("--check", action="store_true", help="read everything once, print it, send nothing")
    text = "auto: text where stdout is a terminal"
    parser.add_argument("--log-format", choices=get_args(LogFormat), default="auto", help=text)
    arguments = parser.parse_args()
    try:
        settings = load(arguments.config)
        if arguments.check:
            return asyncio.run(_check(settings))
        configure_logging(level=settings.log_level, text=wants_text(arguments.log_format))
        return asyncio.run(_run(settings))
    except (SettingsError, BufferInUseError, OSError) as error:
        sys.stderr.write(f"tlsy-agent: {error}\n")
        return EXIT_SETTINGS


if __name__ == "__main__":
    sys.exit(main())

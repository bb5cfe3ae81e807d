"""What is logged while a test runs."""

from __future__ import annotations

import io
import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from tlsy.runtime.logging import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.runtime.logging import Report


class LogLines:
    """The lines logged so far, parsed."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([json.loads(line) for line in self.text.splitlines()])

    @property
    def text(self) -> str:
        """As written."""
        return self.stream.getvalue()

    def of(self, event: str) -> list[dict[str, Any]]:
        """Those of one event."""
        return [line for line in self if line["event"] == event]


@contextmanager
def recorded_logs(
    *, level: str = "info", text: bool = False, report: Report | None = None
) -> Iterator[LogLines]:
    """Logs go here and not to stdout; afterwards to where they went before.

    Logging is the process's: left configured it would take the lines from whichever test comes next.
    """
    before = structlog.get_config() if structlog.is_configured() else None
    handlers, threshold = logging.root.handlers[:], logging.root.level
    lines = LogLines()
    configure_logging(level=level, text=text, stream=lines.stream, report=report)
    try:
        yield lines
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(threshold)

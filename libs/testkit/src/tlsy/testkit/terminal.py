"""A terminal for a program under test to write to."""

from __future__ import annotations

import asyncio
import os
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def screen(columns: int = 80) -> Iterator[tuple[int, bytearray]]:
    """One end of a terminal, and what it shows; that is read all the time, or who writes to it waits."""
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (24, columns))
    os.set_blocking(ours, False)
    shown = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: shown.extend(os.read(ours, 4096)))
    try:
        yield its, shown
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(its)

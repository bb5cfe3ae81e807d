"""Standard input: whole, its first line, or line by line while other work goes on."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

from tlsy.cli.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

MAX_BYTES: Final = 16 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
#: Read ahead while a batch is on its way.
_MAX_CHUNKS: Final = 4


class StandardInput:
    """Bytes that are text in UTF-8, whatever the terminal's locale is."""

    def __init__(self, stdin: TextIO) -> None:
        self._stdin = stdin

    def whole(self) -> bytes:
        """All of it.

        Raises:
            UsageError: it is too much, or cannot be read.
        """
        try:
            content = self._stdin.buffer.read(MAX_BYTES + 1)
        except OSError as error:
            raise _unreadable(error) from error
        if len(content) > MAX_BYTES:
            raise UsageError(f"Standard input is larger than {MAX_BYTES} bytes.", "Split it.")
        return content

    def first_line(self) -> str:
        """Without its end."""
        try:
            return _text(self._stdin.buffer.readline(), 1).rstrip("\r\n")
        except OSError as error:
            raise _unreadable(error) from error

    def is_terminal(self) -> bool:
        """Whether somebody types it."""
        return self._stdin.isatty()

    async def batches(self, most: int, within_s: float) -> AsyncIterator[Sequence[tuple[int, str]]]:
        """Its lines with their numbers: those that come within that time of the first, no more than `most`.

        Raises:
            UsageError: a line is not UTF-8 or too long, or nothing can be read.
        """
        loop = asyncio.get_running_loop()
        lines = _Lines(self._stdin)
        lines.start(loop)
        number = 0
        while True:
            batch: list[tuple[int, str]] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as limit:
                    while len(batch) < most and (line := await lines.next()) is not None:
                        number += 1
                        batch.append((number, _text(line, number)))
                        if limit.when() is None:
                            limit.reschedule(loop.time() + within_s)
            if batch:
                yield batch
            elif lines.ended:
                return


class _Lines:
    """Reads in a thread, which may wait for a pipe as long as it likes: it ends with the process.

    It reads without Python's buffer, whose lock would be held by the waiting thread when the process ends.
    """

    def __init__(self, stdin: TextIO) -> None:
        self._raw: Any = getattr(stdin.buffer, "raw", stdin.buffer)
        self._chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(_MAX_CHUNKS)
        self._whole: deque[bytes] = deque()
        self._rest = b""
        self.ended = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        threading.Thread(target=self._read, args=(loop,), name="stdin", daemon=True).start()

    async def next(self) -> bytes | None:
        """The next line; None after the last one. Who stops waiting loses nothing."""
        while not self._whole and not self.ended:
            chunk = await self._chunks.get()
            self._room.release()
            if isinstance(chunk, OSError):
                raise _unreadable(chunk)
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            if not chunk:
                self.ended = True
                whole = [self._rest] if self._rest else []
            if len(self._rest) > MAX_BYTES:
                raise UsageError(f"A line is longer than {MAX_BYTES} bytes.", "End each line with a newline.")
            self._whole.extend(whole)
        return self._whole.popleft() if self._whole else None

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        chunk: bytes | OSError = b"."
        # The loop may be closed: nobody reads any more.
        with suppress(RuntimeError):
            while isinstance(chunk, bytes) and chunk:
                self._room.acquire()
                try:
                    chunk = self._raw.read(_CHUNK_BYTES) or b""
                except OSError as error:
                    chunk = error
                loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)


def _text(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Line {number} of standard input is not UTF-8: {error.reason}.",
            "Convert it, e.g. by iconv -t UTF-8.",
        ) from error


def _unreadable(error: OSError) -> UsageError:
    return UsageError(f"Standard input cannot be read: {error.strerror}.", "Give it a file or a pipe.")

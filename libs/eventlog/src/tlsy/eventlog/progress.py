"""How far a partition is applied, told behind the work: to PostgreSQL, and to the broker."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg

from tlsy.eventlog.errors import LogUnavailable
from tlsy.tenancy.errors import Retryable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlsy.eventlog.group_books import GroupBooks
    from tlsy.eventlog.ports import GroupReader, TopicPartition
    from tlsy.runtime.clock import Clock


class Progress:
    """Tells the newest that was noted, once in a while and not at every batch.

    None of it is needed to go on: what is not told is delivered again, and dropped by the inbox. Whoever goes
    back in the log tells first (`tell`), or an old offset would follow the new one.
    """

    __slots__ = (
        "_books",
        "_clock",
        "_ended",
        "_every_s",
        "_expected",
        "_marks",
        "_noted",
        "_partition",
        "_reader",
        "_turn",
    )

    def __init__(
        self,
        partition: TopicPartition,
        *,
        books: GroupBooks,
        reader: GroupReader,
        clock: Clock,
        every_s: float,
    ) -> None:
        self._partition = partition
        self._books = books
        self._reader = reader
        self._clock = clock
        self._every_s = every_s
        self._expected: int | None = None
        self._marks: dict[int, int] = {}
        self._ended = False
        self._noted = asyncio.Event()
        self._turn = asyncio.Lock()

    def note(self, next_offsets: Mapping[int, int], expected: int) -> None:
        """Everything below is applied: by incarnation, and in the log as it is read."""
        self._marks.update(next_offsets)
        self._expected = expected
        self._noted.set()

    async def begin_again(self, log: int, oldest: int) -> None:
        """It is read again from `oldest` on, because of incarnation `log`. Raises LogUnavailable."""
        async with self._turn:
            # Before anybody finds that the incarnation is begun: who went on where this member was before
            # would miss what is below.
            await self._reader.commit({self._partition: oldest})
            self.note({log: 0}, oldest)
        await self.tell()

    def end(self) -> None:
        """Nothing more is told by `run`: a client may swallow the cancellation of a commit."""
        self._ended = True

    async def run(self) -> None:
        """Tell what is noted, until cancelled after `end`."""
        while not self._ended:
            await self._noted.wait()
            await self._clock.sleep(self._every_s)
            await self.tell()

    async def tell(self) -> None:
        """Tell what is noted and not told; what cannot be told is left to the next time."""
        async with self._turn:
            self._noted.clear()
            # A copy: more may be noted while this is told.
            marks, expected = dict(self._marks), self._expected
            if marks:
                with contextlib.suppress(Retryable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await self._books.raise_watermarks(self._partition, marks)
                    self._marks = {log: at for log, at in self._marks.items() if marks.get(log) != at}
            if expected is not None:
                with contextlib.suppress(LogUnavailable):
                    await self._reader.commit({self._partition: expected})
                    if self._expected == expected:
                        self._expected = None
            if self._marks or self._expected is not None:
                self._noted.set()

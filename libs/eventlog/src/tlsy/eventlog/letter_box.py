"""A group's dead letters of one topic, as an operator works through them: the oldest first.

Letters stay in their topic as long as the broker keeps them. What is done with is below the offset that the
group `<topic of the letters>.operators` has committed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import aiokafka
from aiokafka.errors import KafkaConnectionError, KafkaError

from tlsy.eventlog import kafka_doors
from tlsy.eventlog.cloudevents import LOG_HEADER
from tlsy.eventlog.errors import EventLogError, LogUnavailable
from tlsy.eventlog.kafka_codecs import limit_batches
from tlsy.eventlog.ports import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tlsy.eventlog.ports import Headers, Producer
    from tlsy.runtime.brokers import Brokers

_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 2.0
#: What aiokafka raises when a broker goes away, beside its own errors.
_FAILURES: Final = (KafkaError, OSError, AssertionError, AttributeError, IndexError)
_PREFIX: Final = "dlq-"


class LetterCut(EventLogError):  # noqa: N818 - read as a fact
    """The letter does not hold the whole record, so the record cannot be put back."""

    def __init__(self, offset: int) -> None:
        super().__init__("LETTER_CUT", f"letter {offset} holds only a part of its record")


class ReplayStopped(EventLogError):  # noqa: N818 - read as a fact
    """Not all letters were put back. The record of the one it stopped at may be there all the same.

    Attributes:
        done: how many were put back, which nobody has to look at any more.
        left: how many wait as before.
        at: the first of those.
        why: what was in the way.
    """

    def __init__(self, done: int, left: int, at: int, why: Exception) -> None:
        super().__init__("REPLAY_STOPPED", f"{done} records were put back, {left} letters wait from {at} on")
        self.done = done
        self.left = left
        self.at = at
        self.why = why


def letters_topic(topic: str, group: str) -> str:
    """Where a group's refused records of `topic` go."""
    return f"{topic}.{group}.dlq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A refused record, and why it was.

    Attributes:
        offset: in the letters' topic.
        time: when it was refused.
        why: the `dlq-*` headers without that prefix: reason, error, error-class, attempt, topic, partition,
            offset; truncated if a part of the record is missing.
        headers: of the record itself.
    """

    offset: int
    time: datetime
    key: bytes
    value: bytes
    why: dict[str, str]
    headers: Headers


class LetterBox:
    """See the module's text. Made by `opened`; for one task at a time. Methods raise LogUnavailable."""

    def __init__(self, client: Any, partition: Any, topic: str) -> None:
        self._client = client
        self._partition = partition
        self._topic = topic

    @classmethod
    @asynccontextmanager
    async def opened(cls, brokers: Brokers, topic: str, group: str) -> AsyncIterator[LetterBox]:
        """The letters that `group` wrote about records of `topic`."""
        name = letters_topic(topic, group)
        limit_batches()
        client = aiokafka.AIOKafkaConsumer(
            **kafka_doors.arguments(brokers),
            group_id=f"{name}.operators",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        partition = aiokafka.TopicPartition(name, 0)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await kafka_doors.start(client, brokers)
                if name not in await client.topics():
                    raise LogUnavailable(f"there is no topic {name}")
            client.assign([partition])
            yield cls(client, partition, topic)
        except TimeoutError as error:
            raise LogUnavailable("the broker took too long to answer") from error
        except (KafkaConnectionError, OSError) as error:
            raise LogUnavailable(f"no broker answers at {brokers.servers}") from error
        except _FAILURES as error:
            raise LogUnavailable(f"the broker did not answer: {kafka_doors.told(error)}") from error
        finally:
            with suppress(*_FAILURES):
                await asyncio.wait_for(client.stop(), _CLOSE_TIMEOUT_S)

    async def pending(self, limit: int) -> list[Letter]:
        """The oldest letters that nobody is done with."""
        first, end = await self._range()
        letters: list[Letter] = []
        self._client.seek(self._partition, first)
        async with asyncio.timeout(_TIMEOUT_S):
            while first < end and len(letters) < limit:
                try:
                    found = await self._client.getmany(self._partition, timeout_ms=500)
                except Exception as error:
                    # Whoever wrote a letter that is none has chosen what it raises.
                    raise LogUnavailable(f"a letter cannot be read: {kafka_doors.told(error)}") from error
                letters += [_letter(record) for record in found.get(self._partition, ())]
                first = await self._client.position(self._partition)
        return letters[:limit]

    async def backlog(self) -> tuple[int, datetime | None]:
        """How many letters nobody is done with, and when the oldest was written."""
        first, end = await self._range()
        oldest = await self.pending(1)
        return end - first, oldest[0].time if oldest else None

    async def replay(self, through: int, producer: Producer, now: datetime) -> int:
        """Put back the records of the letters up to that offset, oldest first; answers how many.

        Inboxes drop those that were applied meanwhile. Raises LetterCut before anything is put back, and
        ReplayStopped where it does not get to the last.
        """
        first, _ = await self._range()
        letters = [letter for letter in await self.pending(through - first + 1) if letter.offset <= through]
        for letter in letters:
            if "truncated" in letter.why:
                raise LetterCut(letter.offset)
        for done, letter in enumerate(letters):
            try:
                await self._put_back(letter, producer, now)
            except (EventLogError, *_FAILURES) as error:
                raise ReplayStopped(done, len(letters) - done, letter.offset, error) from error
        return len(letters)

    async def _put_back(self, letter: Letter, producer: Producer, now: datetime) -> None:
        (position,) = await producer.publish([self._record(letter, now)], timeout_s=_TIMEOUT_S)
        if position is None:
            raise LogUnavailable(f"the record of letter {letter.offset} was not acknowledged")
        await self._done(letter.offset)

    async def discard(self, through: int) -> int:
        """Be done with the letters up to that offset; answers how many they were."""
        first, end = await self._range()
        count = max(0, min(through + 1, end) - first)
        if count:
            await self._done(first + count - 1)
        return count

    async def _range(self) -> tuple[int, int]:
        async with asyncio.timeout(_TIMEOUT_S):
            starts = await self._client.beginning_offsets([self._partition])
            ends = await self._client.end_offsets([self._partition])
            committed = await self._client.committed(self._partition)
        return max(starts[self._partition], committed or 0), ends[self._partition]

    async def _done(self, offset: int) -> None:
        async with asyncio.timeout(_TIMEOUT_S):
            await self._client.commit({self._partition: offset + 1})

    def _record(self, letter: Letter, now: datetime) -> Record:
        # Where a relay wrote it says nothing about where it is now.
        headers = tuple((name, value) for name, value in letter.headers if name != LOG_HEADER)
        return Record(topic=self._topic, key=letter.key, value=letter.value, headers=headers, time=now)


def _letter(record: Any) -> Letter:
    headers: Sequence[tuple[str, bytes | None]] = record.headers
    return Letter(
        offset=record.offset,
        time=datetime.fromtimestamp(record.timestamp / 1000, UTC),
        key=record.key or b"",
        value=record.value or b"",
        why={
            name.removeprefix(_PREFIX): (value or b"").decode(errors="replace")
            for name, value in headers
            if name.startswith(_PREFIX)
        },
        headers=tuple((name, value or b"") for name, value in headers if not name.startswith(_PREFIX)),
    )

"""Records that are refused for good: where they go, and when refusing must end.

A record goes to `<topic>.<group>.dlq` as it is, with headers that say why; one that the broker would not take
is cut, and says so (`dlq-truncated`, the bytes it had). The limits are per partition: a consumer that refuses
everything is itself what is wrong, and stops instead of draining the topic.

That does not hold for a topic that outsiders write to: whoever may write there could stop it for everybody.
What they cause is kept at a bounded rate and beyond it only counted; nothing of it stops the partition.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlsy.eventlog.errors import DeadLetterLimitReached, LogUnavailable, RecordTooLarge
from tlsy.eventlog.letter_box import letters_topic
from tlsy.eventlog.ports import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from tlsy.eventlog.ports import LogInspector, Producer, Received
    from tlsy.runtime.clock import Clock

_PUBLISH_TIMEOUT_S: Final = 5.0
_MAX_MESSAGE_CHARS: Final = 500
#: A little below what brokers take by default, because a letter is longer than its record.
_MAX_LETTER_BYTES: Final = 900_000
_MIN_LETTER_BYTES: Final = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterLimits:
    """How much may be refused.

    Attributes:
        consecutive: records in a row.
        ratio: of the last `window` records, once there are half as many.
        window: how many records are looked back on.
    """

    consecutive: int = 20
    ratio: float = 0.2
    window: int = 500


class DeadLetterGauge:
    """Counts one partition's records against the limits; knows nothing of brokers."""

    __slots__ = ("_consecutive", "_limits", "_refused", "_window")

    def __init__(self, limits: DeadLetterLimits) -> None:
        self._limits = limits
        self._window: deque[bool] = deque()
        self._refused = 0
        self._consecutive = 0

    def applied(self) -> None:
        """A record was applied, skipped or parked."""
        self._count(refused=False)
        self._consecutive = 0

    def admit(self) -> None:
        """A record is to be refused. Raises DeadLetterLimitReached if that is one too many."""
        if self._consecutive >= self._limits.consecutive:
            raise DeadLetterLimitReached(f"{self._consecutive} records in a row were refused")
        seen, half = len(self._window) + 1, self._limits.window // 2
        if seen > half and (self._refused + 1) / seen > self._limits.ratio:
            raise DeadLetterLimitReached(f"{self._refused + 1} of {seen} records were refused")

    def refused(self) -> None:
        """A record is in the dead letters."""
        self._count(refused=True)
        self._consecutive += 1

    def _count(self, *, refused: bool) -> None:
        self._window.append(refused)
        self._refused += refused
        if len(self._window) > self._limits.window:
            self._refused -= self._window.popleft()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsiderLimits:
    """How much of what outsiders cause is kept, per partition.

    Attributes:
        bytes_per_s: of dead letters, in the long run.
        burst_bytes: at once.
        least_bytes: what a letter counts as at least: its headers, and the work of writing it.
    """

    bytes_per_s: int = 65_536
    burst_bytes: int = 4_194_304
    least_bytes: int = 1_024


class OutsiderGauge:
    """Counts what outsiders caused in one partition. Time is monotonic seconds, given with each call."""

    __slots__ = ("_level", "_limits", "_seen_s")

    def __init__(self, limits: OutsiderLimits, now_s: float) -> None:
        self._limits = limits
        self._level: float = limits.burst_bytes
        self._seen_s = now_s

    def admits(self, size_bytes: int, now_s: float) -> bool:
        """Whether one more may be kept; the last of a burst may pass it, so no size is always refused."""
        passed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = now_s
        self._level = min(self._limits.burst_bytes, self._level + passed_s * self._limits.bytes_per_s)
        if self._level <= 0:
            return False
        self._level -= max(size_bytes, self._limits.least_bytes)
        return True


class DeadLetters:
    """Writes a group's refused records.

    `outsiders` is for topics that others than our services write to: a FinalError is then their doing.
    """

    __slots__ = ("_clock", "_group", "_inspector", "_producer", "outsiders")

    def __init__(
        self,
        group: str,
        producer: Producer,
        inspector: LogInspector,
        clock: Clock,
        *,
        outsiders: OutsiderLimits | None = None,
    ) -> None:
        self._group = group
        self._producer = producer
        self._inspector = inspector
        self._clock = clock
        self.outsiders = outsiders

    def topic_of(self, topic: str) -> str:
        """Where refused records of `topic` go."""
        return letters_topic(topic, self._group)

    async def ensure_topics(self, topics: Sequence[str], others: Mapping[str, int]) -> None:
        """Make the dead letters' topics, of one partition each, and `others`. Raises LogUnavailable."""
        await self._inspector.ensure_topics({**others, **{self.topic_of(topic): 1 for topic in topics}})

    async def backlog(self, topics: Sequence[str]) -> tuple[int, datetime | None]:
        """Letters that nobody is done with, and when the oldest was written. Raises LogUnavailable."""
        found = [await self._inspector.letters(topic, self._group) for topic in topics]
        return sum(items for items, _ in found), min((since for _, since in found if since), default=None)

    async def write(self, record: Received, error: Exception, attempt: int) -> None:
        """Write the record and why it is refused. Raises LogUnavailable unless it is acknowledged."""
        limit = _MAX_LETTER_BYTES
        while True:
            letter = self._letter(record, error, attempt, limit)
            try:
                (position,) = await self._producer.publish([letter], timeout_s=_PUBLISH_TIMEOUT_S)
            except RecordTooLarge as too_large:
                limit //= 2
                if limit < _MIN_LETTER_BYTES:
                    raise LogUnavailable(f"not even a cut letter is taken: {too_large}") from too_large
                continue
            if position is None:
                raise LogUnavailable("the dead letter was not acknowledged")
            return

    def _letter(self, record: Received, error: Exception, attempt: int, limit: int) -> Record:
        why = {
            "dlq-reason": str(getattr(error, "reason", "HANDLER_FAILED")),
            "dlq-error-class": f"{type(error).__module__}.{type(error).__qualname__}",
            "dlq-error": str(error)[:_MAX_MESSAGE_CHARS],
            "dlq-attempt": str(attempt),
            "dlq-topic": record.topic,
            "dlq-partition": str(record.partition),
            "dlq-offset": str(record.offset),
        }
        key, headers, value = record.key or b"", record.headers, record.value
        around = len(key) + sum(len(name.encode()) + len(content) for name, content in headers)
        if around + len(value) > limit:
            why["dlq-truncated"] = str(around + len(value))
            if around > limit // 2:
                key, headers, around = key[: limit // 4], (), limit // 4
            value = value[: limit - around]
        return Record(
            topic=self.topic_of(record.topic),
            key=key,
            value=value,
            headers=(*headers, *((name, text.encode(errors="replace")) for name, text in why.items())),
            time=self._clock.now(),
        )

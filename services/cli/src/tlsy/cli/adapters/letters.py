"""Dead letters, straight from the broker."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from tlsy.cli.domain.errors import CommandError, RefusedError, UnreachableError, UsageError
from tlsy.eventlog.errors import EventLogError, LogUnavailable, RecordTooLarge
from tlsy.eventlog.kafka import KafkaProducer
from tlsy.eventlog.letter_box import LetterBox, LetterCut, ReplayStopped
from tlsy.runtime.brokers import Brokers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tlsy.cli.ports import LetterPlace
    from tlsy.eventlog.letter_box import Letter
    from tlsy.runtime.clock import Clock

_CREDENTIAL: Final = "authorization"
_MOST: Final = 100_000


class BrokerLetters:
    """The `Letters` port."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def pending(self, place: LetterPlace, limit: int) -> list[dict[str, Any]]:
        """See `Letters.pending`."""
        async with _opened(place) as box:
            return [_summary(letter) for letter in await box.pending(limit)]

    async def letter(self, place: LetterPlace, number: int) -> dict[str, Any]:
        """See `Letters.letter`."""
        async with _opened(place) as box:
            for letter in await box.pending(_MOST):
                if letter.offset == number:
                    return _whole(letter)
        raise RefusedError(f"No letter {number} waits.", "See `tlsy dead-letters list`.")

    async def replay(self, place: LetterPlace, through: int) -> int:
        """See `Letters.replay`."""
        producer = KafkaProducer(_brokers(place), "tlsy-cli")
        try:
            async with _opened(place) as box:
                return await box.replay(through, producer, self._clock.now())
        finally:
            await producer.stop()

    async def discard(self, place: LetterPlace, through: int) -> int:
        """See `Letters.discard`."""
        async with _opened(place) as box:
            return await box.discard(through)


def _brokers(place: LetterPlace) -> Brokers:
    try:
        return Brokers.parse(place.brokers)
    except ValueError as error:
        raise UsageError(
            f"--brokers is wrong: {error}", "Write host:port, or host:port?ca_file=…&user=…&password_file=…"
        ) from error


@asynccontextmanager
async def _opened(place: LetterPlace) -> AsyncIterator[LetterBox]:
    try:
        async with LetterBox.opened(_brokers(place), place.topic, place.group) as box:
            yield box
    except LogUnavailable as error:
        raise UnreachableError(
            f"No dead letters of group {place.group} about {place.topic} can be read: {_words(error)}.",
            "Check --brokers, --topic and --group.",
        ) from error
    except ReplayStopped as error:
        raise _stopped(error) from error
    except LetterCut as error:
        raise RefusedError(
            str(error), "Put back those before it, discard it, and have its source send it again."
        ) from error
    except EventLogError as error:
        raise RefusedError(str(error), "See what the broker says about the topic.") from error


def _stopped(error: ReplayStopped) -> CommandError:
    why = "the broker went away" if isinstance(error.why, OSError) else _words(error.why)
    if isinstance(error.why, TimeoutError):
        why = "the broker took too long to answer"
    what = (
        f"{error.done} record(s) put back; {error.left} letter(s) from {error.at} on wait as before: {why}."
    )
    if isinstance(error.why, RecordTooLarge):
        return RefusedError(what, "Have the topic take it, or discard that letter; then replay the others.")
    return UnreachableError(
        what, "Repeat it when the broker answers; what was applied meanwhile is not applied again."
    )


def _words(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.removeprefix(f"{error.reason}: ") if isinstance(error, EventLogError) else text


def _summary(letter: Letter) -> dict[str, Any]:
    headers = dict(letter.headers)
    return {
        "letter": letter.offset,
        "refusedTime": letter.time.isoformat(),
        "reason": letter.why.get("reason", ""),
        "tenant": headers.get("tenantid", b"").decode(errors="replace"),
        "type": headers.get("ce_type", b"").decode(errors="replace"),
        "error": letter.why.get("error", ""),
    }


def _whole(letter: Letter) -> dict[str, Any]:
    return {
        **_summary(letter),
        **letter.why,
        "key": letter.key.decode(errors="replace"),
        "headers": {
            name: "(not shown)" if name.lower() == _CREDENTIAL else value.decode(errors="replace")
            for name, value in letter.headers
        },
        "data": base64.b64encode(letter.value).decode(),
    }

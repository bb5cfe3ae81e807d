"""What can go wrong between an outbox and an effect: retryable, final, and reasons to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from tlsy.eventlog.ports import Position


class EventLogError(Exception):
    """Any failure of this library; `reason` is stable and UPPER_SNAKE.

    Attributes:
        reason: for machines.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class RetryableError(EventLogError):
    """The same delivery may succeed a little later; a handler raises it to ask for that."""


class LogUnavailable(RetryableError):  # noqa: N818 - read as a fact
    """The broker did not answer, or refused for now. Nothing is known to be written."""

    def __init__(self, message: str) -> None:
        super().__init__("LOG_UNAVAILABLE", message)


class LogChanged(RetryableError):  # noqa: N818 - read as a fact
    """The broker is not the one that acknowledged: what was sent meanwhile must be sent again."""

    def __init__(self, message: str) -> None:
        super().__init__("LOG_CHANGED", message)


class TenantPaused(RetryableError):  # noqa: N818 - read as a fact
    """The tenant's records cannot be applied for now, whoever's fault that is: they are parked, in order."""


class TenantOverRate(TenantPaused):
    """The tenant sends more than it may: of its records only so many are parked, and the rest is refused."""


class InboxNotReady(RetryableError):  # noqa: N818 - read as a fact
    """The inbox has no partition for the event's day yet; upkeep of the database makes it."""

    def __init__(self, day: date) -> None:
        super().__init__("INBOX_NOT_READY", f"the inbox has no partition for {day}")


class FinalError(EventLogError):
    """No retry can help; the record goes to the dead letters. A handler may raise it."""


class Poison(FinalError):  # noqa: N818 - read as a fact
    """A record that no consumer can read.

    Attributes:
        problems: everything that is wrong with it.
    """

    def __init__(self, reason: str, problems: Sequence[str]) -> None:
        super().__init__(reason, "; ".join(problems))
        self.problems = tuple(problems)


class RecordTooLarge(EventLogError):  # noqa: N818 - read as a fact
    """The broker refuses a record for its size: it will again, however often it is sent.

    Attributes:
        positions: where the records are that it took all the same; as `Producer.publish` answers.
    """

    def __init__(self, message: str, positions: Sequence[Position | None]) -> None:
        super().__init__("RECORD_TOO_LARGE", message)
        self.positions = positions


class TooOld(FinalError):  # noqa: N818 - read as a fact
    """Older than the inbox remembers: it cannot be told whether it was applied."""

    def __init__(self, message: str) -> None:
        super().__init__("TOO_OLD", message)


class WaitedTooLong(TooOld):
    """Became so while it was parked: its tenant could not be served for as long."""


class Fenced(EventLogError):  # noqa: N818 - read as a fact
    """Another process owns the partition by now; this one's transaction must not commit."""

    def __init__(self, group: str, epoch: int) -> None:
        super().__init__("FENCED", f"assignment {epoch} of group {group} ended, a later one has begun")


class DeadLetterLimitReached(EventLogError):  # noqa: N818 - read as a fact
    """Too many records in a row, or in a window, are refused: the code is wrong, not the records."""

    def __init__(self, message: str) -> None:
        super().__init__("DEAD_LETTER_LIMIT", message)


class ParkingFull(EventLogError):  # noqa: N818 - read as a fact
    """The parking of records for unreachable databases is at its limit."""

    def __init__(self, message: str) -> None:
        super().__init__("PARKING_FULL", message)

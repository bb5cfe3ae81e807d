"""What reaches a handler, and the three ways to be called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from google.protobuf.message import DecodeError, Message

from tlsy.contracts.events import EVENTS, TOPICS
from tlsy.eventlog.cloudevents import from_record
from tlsy.eventlog.errors import Poison

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.eventlog.ports import Received
    from tlsy.tenancy.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to a handler.

    Attributes:
        event: the envelope; its `tenant_id` is the only truth about whose it is.
        message: its data, parsed.
        record: where it was read.
        attempt: 1 at first.
        assignment_epoch: of the partition's assignment to this process; grows with every assignment.
        overflow: its tenant is over its rate (a handler raised TenantOverRate) and has as many records parked
            as it may. Nothing is to be applied; the handler may record that, or raise TenantOverRate again,
            and the record goes to the dead letters.
    """

    event: CloudEvent
    message: Message
    record: Received
    attempt: int
    assignment_epoch: int
    overflow: bool = False


@dataclass(frozen=True, slots=True)
class Each:
    """One delivery, one transaction of its tenant; the inbox row is written first, duplicates are dropped."""

    handle: Callable[[Delivery, UnitOfWork], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive deliveries of one tenant and type, in order, in one transaction; else like `Each`.

    A batch that fails for good is tried again one by one, so that only what is wrong is refused.
    """

    handle: Callable[[Sequence[Delivery], UnitOfWork], Awaitable[None]]
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Direct:
    """No transaction and no inbox row: the handler itself makes a repeated delivery harmless."""

    handle: Callable[[Delivery], Awaitable[None]]


Route: TypeAlias = Each | Batch | Direct
#: Raises Poison; or RetryableError, and the partition stands still meanwhile. May wait, e.g. for a key.
Decode: TypeAlias = Callable[["Received"], Awaitable["CloudEvent"]]
#: The same for a record that was decoded before and then parked for this tenant; does not raise or wait.
DecodeParked: TypeAlias = Callable[["Received", "UUID"], "CloudEvent"]


def decode_event(record: Received) -> CloudEvent:
    """The CloudEvent in a record, of the service that owns the topic. Raises Poison."""
    event = from_record(record.headers, record.key, record.value)
    if TOPICS.get(event.source) != record.topic:
        raise Poison("FOREIGN_SOURCE", [f"{event.source} does not publish to {record.topic}"])
    return event


async def decode_record(record: Received) -> CloudEvent:
    """`decode_event` as a consumer takes it."""
    return decode_event(record)


def decode_parked_record(record: Received, tenant_id: UUID) -> CloudEvent:  # noqa: ARG001 - in the event
    """`decode_event` again: what it says does not change with time."""
    return decode_event(record)


def parse(event: CloudEvent, payloads: Mapping[str, type[Message]] = EVENTS) -> Message:
    """The event's data. Raises Poison UNREADABLE_DATA, or UNKNOWN_TYPE."""
    kind = payloads.get(event.type)
    if kind is None:
        raise Poison("UNKNOWN_TYPE", [f"{event.type} is not registered"])
    try:
        return kind.FromString(event.data)
    except DecodeError as error:
        raise Poison("UNREADABLE_DATA", [f"data is no {kind.DESCRIPTOR.full_name}: {error}"]) from error

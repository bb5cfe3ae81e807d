"""The envelope of every event between services: CloudEvents 1.0, as a value.

How it is written to Kafka (binary mode) and to an outbox is the business of the libs that do so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """One event of one tenant.

    Attributes:
        id: UUIDv7; its time prefix decides the day partition of outbox and inbox.
        type: a key of `tlsy.contracts.events.EVENTS`.
        source: the producing service, e.g. "ingestion".
        tenant_id: whose event it is; the platform tenant's id for what concerns no single tenant.
        epoch: of the tenant's placement when it was written.
        time: when it happened, UTC.
        key: order is kept between events of one key; the tenant_id's hex or an aggregate under it.
        data: the serialised message, at most 512 KiB.
        traceparent: W3C, or "" where the call was not traced.
        principal: who caused it, as calls name principals; "" in events of before it was written down.
        correlation_id: of the request that caused it; "" where there was none.
    """

    id: UUID
    type: str
    source: str
    tenant_id: UUID
    epoch: int
    time: datetime
    key: str
    data: bytes
    traceparent: str = ""
    principal: str = ""
    correlation_id: str = ""

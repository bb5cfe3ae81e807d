"""What ingestion reads from the log: the producers' topic, whose records are no CloudEvents."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from uuid import UUID

from google.protobuf import empty_pb2

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.eventlog.delivery import Direct
from tlsy.eventlog.errors import Poison, RetryableError
from tlsy.ingestion.handlers.on_produced_events import MODULE, PRODUCED_EVENTS
from tlsy.rpc.errors import Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from tlsy.eventlog.delivery import Route
    from tlsy.eventlog.ports import Received
    from tlsy.ingestion.handlers.on_produced_events import OnProducedEvents
    from tlsy.rpc.tokens import TokenVerifier

AUTHORIZATION: Final = "authorization"
PERMISSION: Final = "events.write"
#: Not the record's value: the handler reads that, so that a tenant is told of what cannot be read.
PAYLOADS: Final[Mapping[str, type[Message]]] = {PRODUCED_EVENTS: empty_pb2.Empty}


class ProducerCredentials:
    """Reads a producer's record as an event of the tenant whose token it carries.

    What the interceptor checks for a call is checked here for a record: the token, the permission. The
    handler checks what may change until a parked record comes to it, as the module, and what another may have
    to be asked for, as the tenant: only its own records wait there. Nothing in the record but the token says
    whose it is.
    """

    def __init__(self, *, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def decode(self, record: Received) -> CloudEvent:
        """The record as an event; its source is the principal.

        Raises:
            Poison: the record may not be ingested; every reason is the verifier's or one of TOKEN_MISSING,
                PERMISSION_MISSING.
            RetryableError: identity's keys are not known yet.
        """
        try:
            # A producer is not to blame for how late its record is read: the broker's time of it counts.
            sent_at = record.time if record.time_of_broker else None
            verified = await self._verifier.verify(_token(record), sent_at=sent_at)
        except Unauthenticated as refused:
            raise Poison(refused.reason, [refused.message]) from refused
        except Unavailable as away:
            raise RetryableError(away.reason, away.message) from away
        if PERMISSION not in verified.grants.permissions(MODULE):
            raise Poison("PERMISSION_MISSING", [f"the token does not permit {PERMISSION}"])
        return self._event(record, verified.claims.tenant_id, str(verified.claims.principal))

    def decode_parked(self, record: Received, tenant_id: UUID) -> CloudEvent:
        """The record again, after it was parked for the tenant that its token was verified to be of.

        The token may have expired meanwhile, so it is read and not verified; it only names the principal.
        """
        _, payload, _ = _token(record).split(".")
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return self._event(record, tenant_id, str(claims["sub"]))

    def _event(self, record: Received, tenant_id: UUID, principal: str) -> CloudEvent:
        return CloudEvent(
            id=event_id(record),
            type=PRODUCED_EVENTS,
            source=principal,
            tenant_id=tenant_id,
            epoch=0,
            time=record.time,
            key=tenant_id.hex,
            data=b"",
            # What the record's headers say of who and what caused it is not looked at.
            principal=principal,
            correlation_id=f"{record.topic}:{record.partition}:{record.offset}",
        )


def routes(on_produced_events: OnProducedEvents) -> Mapping[str, Route]:
    """Event type to handler."""
    return {PRODUCED_EVENTS: Direct(on_produced_events.run)}


def event_id(record: Received) -> UUID:
    """A UUIDv7 that is the same however often the record is read, and no other record's.

    Not even of one that has its offset after the broker lost its log, whatever time its producer gave it.
    """
    place = f"{record.topic}:{record.partition}:{record.offset}:".encode()
    bits = int.from_bytes(sha256(place + record.value).digest()[:10], "big")
    written_ms = int(record.time.timestamp() * 1000)
    return UUID(
        int=(written_ms << 80) | (0x7 << 76) | ((bits >> 68) << 64) | (0b10 << 62) | (bits & ((1 << 62) - 1))
    )


def _token(record: Received) -> str:
    for name, value in record.headers:
        if name.lower() == AUTHORIZATION and value.startswith(b"Bearer "):
            return value[7:].decode("ascii", errors="replace")
    text = 'a record needs a header "authorization" with "Bearer " and a token of its tenant'
    raise Poison("TOKEN_MISSING", [text])

"""The services that take the agent's events: an API key for a short-lived token, and batches for that."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from tlsy.agent.ports import Delivered, DeliveryError
from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tlsy.rpc.channel import CallPolicy, dial_bearer
from tlsy.rpc.errors import PermissionDenied, ServiceError, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from google.protobuf.descriptor import FileDescriptor

    from tlsy.agent.settings import Endpoints
    from tlsy.runtime.clock import Clock

_AUDIENCE: Final = "ingestion"
#: A token is renewed when this part of its life is over, so that none ends while a batch is on its way.
_RENEW_AT: Final = 0.8
#: What has none of these, be it one that this agent does not know yet, may not be stored.
_SETTLED: Final = frozenset(
    {ingestion_pb2.OUTCOME_ACCEPTED, ingestion_pb2.OUTCOME_DUPLICATE, ingestion_pb2.OUTCOME_REJECTED}
)
#: Each pause is the deliverer's, which obeys RetryInfo: gRPC, which does not, sends nothing again.
_POLICY: Final = CallPolicy(timeout_s=30.0, attempts=1)


@dataclass(frozen=True, slots=True)
class _Access:
    """What the key was exchanged for.

    Attributes:
        token: goes with every batch.
        tenant: "tenants/{slug}" that the key belongs to.
        renew_at_s: on the monotonic clock.
    """

    token: str
    tenant: str
    renew_at_s: float


class IngestionServer:
    """The `Server` port over gRPC.

    The key is read from its file at every exchange, so that a new key in the file is taken without a restart.
    A token that the server refuses is exchanged once more at once: keys of the suite rotate; one that may not
    send, at the next try, since the key in the file may be another by then. Whatever fails but an event
    itself is a DeliveryError: a key that is revoked today may be replaced tomorrow, and until then the events
    wait on disk.
    """

    def __init__(
        self, endpoints: Endpoints, api_key_file: Path, clock: Clock, random: Callable[[int], bytes]
    ) -> None:
        self._endpoints = endpoints
        self._api_key_file = api_key_file
        self._clock = clock
        self._random = random
        self._access: _Access | None = None
        self._channels = contextlib.AsyncExitStack()

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return "server"

    async def start(self) -> None:
        """Makes the channels; connects to nothing yet."""
        identity = self._dial(self._endpoints.identity, identity_pb2.DESCRIPTOR, "IdentityService")
        ingestion = self._dial(self._endpoints.ingestion, ingestion_pb2.DESCRIPTOR, "IngestionService")
        self._identity = identity_pb2_grpc.IdentityServiceStub(
            await self._channels.enter_async_context(identity)
        )
        self._ingestion = ingestion_pb2_grpc.IngestionServiceStub(
            await self._channels.enter_async_context(ingestion)
        )

    async def stop(self, grace_s: float) -> None:  # noqa: ARG002 - nothing is under way any more
        """Closes the channels."""
        await self._channels.aclose()

    async def wait(self) -> None:
        """It has no life of its own that could break."""

    async def deliver(self, events: Sequence[ingestion_pb2.Event]) -> Delivered:
        """See `Server.deliver`."""
        try:
            access = await self._current()
            try:
                answer = await self._ingest(access, events)
            except Unauthenticated:
                answer = await self._ingest(await self._exchange(), events)
        except ServiceError as error:
            if isinstance(error, PermissionDenied):
                self._access = None
            raise DeliveryError(f"{error.reason}: {error.message}", error.retry_after_s) from error
        return _delivered(answer, len(events))

    async def _ingest(
        self, access: _Access, events: Sequence[ingestion_pb2.Event]
    ) -> ingestion_pb2.IngestEventsResponse:
        request = ingestion_pb2.IngestEventsRequest(parent=access.tenant, events=events)
        try:
            return await self._ingestion.IngestEvents(
                request, metadata=(("authorization", f"Bearer {access.token}"),)
            )
        except grpc.aio.AioRpcError as error:
            raise ServiceError.from_rpc_error(error) from error

    async def _current(self) -> _Access:
        if self._access is None or self._clock.monotonic() >= self._access.renew_at_s:
            return await self._exchange()
        return self._access

    async def _exchange(self) -> _Access:
        self._access = None
        try:
            key = self._api_key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DeliveryError(f"cannot read the API key: {error}") from error
        asked_at_s = self._clock.monotonic()
        try:
            answer = await self._identity.ExchangeApiKey(
                identity_pb2.ExchangeApiKeyRequest(api_key=key, audience=[_AUDIENCE])
            )
        except grpc.aio.AioRpcError as error:
            raise ServiceError.from_rpc_error(error) from error
        lifetime_s = answer.token.expires_in.ToMilliseconds() / 1000
        self._access = _Access(answer.token.access_token, answer.tenant, asked_at_s + lifetime_s * _RENEW_AT)
        return self._access

    def _dial(self, target: str, file: FileDescriptor, service: str) -> grpc.aio.Channel:
        tls = self._endpoints.tls
        credentials = None
        if tls is not None:
            roots = tls.ca_file.read_bytes() if tls.ca_file is not None else None
            credentials = grpc.ssl_channel_credentials(root_certificates=roots)
        return dial_bearer(
            target,
            file.services_by_name[service],
            None,
            clock=self._clock,
            random=self._random,
            credentials=credentials,
            policy=_POLICY,
        )


def _delivered(answer: ingestion_pb2.IngestEventsResponse, sent: int) -> Delivered:
    if len(answer.outcomes) != sent:
        raise DeliveryError(f"the server tells {len(answer.outcomes)} outcomes of {sent} events")
    deferred = tuple(index for index, outcome in enumerate(answer.outcomes) if outcome not in _SETTLED)
    rejected = tuple((problem.index, problem.reason, problem.message) for problem in answer.rejections)
    retry_after_s = answer.retry_after.ToMilliseconds() / 1000 if answer.HasField("retry_after") else None
    return Delivered(deferred, rejected, retry_after_s)

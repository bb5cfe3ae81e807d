"""Channels to services: deadlines, retries, keep-alive, and the metadata that every hop carries on.

Sent again is only what may be: calls that change nothing, and calls with a request_id (which gets one here if
the caller set none). gRPC itself retries UNAVAILABLE with back-off and jitter, for as long as the server says
where it says so; RESOURCE_EXHAUSTED is sent again only when the server named the time (RetryInfo).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc

from tlsy.contracts.options.v1 import options_pb2
from tlsy.rpc.call import CURRENT_CALL
from tlsy.rpc.errors import MAX_METADATA_BYTES, METADATA_OPTIONS, ResourceExhausted, ServiceError
from tlsy.rpc.keep_alive import KeepAlive
from tlsy.rpc.observer import AUTHORIZATION_HEADER, CORRELATION_HEADER, TRACE_HEADER
from tlsy.rpc.renewed_channel import RenewedChannel
from tlsy.rpc.server import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES
from tlsy.runtime.ids import Uuid7
from tlsy.runtime.tracing import ORIGIN, current_traceparent, failed, span_below

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message
    from opentelemetry.trace import Span

    from tlsy.rpc.tokens import ServiceTokens
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.host import Host, TlsFiles

    Bearer = Callable[[], Awaitable[str]]
    Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]

_REQUEST_ID: Final = "request_id"
_FIRST_RECONNECT_MS: Final = 100
_MAX_RECONNECT_MS: Final = 2_000
#: Two lost packets, or a server that is short of time, are waited for.
_CONNECT_MS: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """How a client calls.

    Attributes:
        timeout_s: where the caller gives none; within an answered call, never past that one's deadline.
        attempts: how often a call is sent at most, the first time included; 1 to 5.
        max_wait_s: a server that asks for a longer pause is not waited for.
        keep_alive: when a server that says nothing is gone.
    """

    timeout_s: float = 10.0
    attempts: int = 4
    max_wait_s: float = 5.0
    keep_alive: KeepAlive = field(default_factory=KeepAlive)


def dial(
    host: Host, descriptor: ServiceDescriptor, tokens: ServiceTokens, policy: CallPolicy | None = None
) -> grpc.aio.Channel:
    """A channel from a service to a peer, with the service's own token.

    Args:
        host: knows the peer's address.
        descriptor: of what is called: `identity_pb2.DESCRIPTOR.services_by_name["IdentityService"]`.
        tokens: of the calling service.
        policy: deadlines and retries.

    Raises:
        KeyError: the process knows no address of this peer.
    """
    callee = service_name(descriptor)

    async def bearer() -> str:
        return tokens.token_for(callee)

    target, known_as = host.peers.get(callee), None
    if callee == host.service:
        # Itself a service calls directly: who balances its calls may wait for it to be ready.
        target, known_as = host.listen, target.rpartition(":")[0] if target else None
    if target is None:
        raise KeyError(f"no address of {callee} is known")
    return dial_bearer(
        target,
        descriptor,
        bearer,
        clock=host.clock,
        random=host.random,
        tls=host.tls,
        policy=policy,
        known_as=known_as,
    )


def dial_bearer(
    target: str,
    descriptor: ServiceDescriptor,
    bearer: Bearer | None,
    *,
    clock: Clock,
    random: Callable[[int], bytes],
    tls: TlsFiles | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    policy: CallPolicy | None = None,
    known_as: str | None = None,
) -> grpc.aio.Channel:
    """A channel for callers outside the suite.

    Args:
        target: "host:port" or "unix:/path".
        descriptor: of the service that is called.
        bearer: gives a token for each call; None: no token.
        clock: for deadlines and pauses.
        random: for request ids and jitter.
        tls: of a caller that shows a certificate of its own; a renewed one from the next call on.
        credentials: of a caller that only checks the server's; with neither the channel is in clear text.
        policy: deadlines and retries.
        known_as: the name in the server's certificate, where it is not the target's.

    Raises:
        OSError: a file of `tls` cannot be read.
        ValueError: they are no certificates and key, or do not fit each other.
    """
    bounds = policy or CallPolicy()
    calls = _OutgoingCalls(descriptor, bearer, clock, random, bounds)
    interceptors = [_UnaryCalls(calls), _StreamCalls(calls)]
    config = json.dumps(service_config(descriptor, bounds))
    options = [*_OPTIONS, *bounds.keep_alive.of_client(), ("grpc.service_config", config)]
    if known_as is not None:
        options.append(("grpc.ssl_target_name_override", known_as))

    def connect(credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
        return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)

    return connect(credentials) if tls is None else RenewedChannel(tls, connect)


def service_name(descriptor: ServiceDescriptor) -> str:
    """The service that answers it: "tenant-registry" for "tlsy.tenant_registry.v1.TenantRegistryService"."""
    return descriptor.full_name.split(".")[1].replace("_", "-")


def may_repeat(method: MethodDescriptor) -> bool:
    """Whether sending a call twice does no more than sending it once."""
    audit = method.GetOptions().Extensions[options_pb2.rules].audit
    return audit != options_pb2.AUDIT_FULL or _REQUEST_ID in method.input_type.fields_by_name


def service_config(descriptor: ServiceDescriptor, policy: CallPolicy) -> dict[str, Any]:
    """GRPC's own configuration: which methods it retries, and how."""
    repeatable = [
        {"service": descriptor.full_name, "method": method.name}
        for method in descriptor.methods
        if may_repeat(method)
    ]
    retry = {
        "maxAttempts": policy.attempts,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        # The second is said of calls that a stopping server had received and not begun to read.
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": repeatable, "retryPolicy": retry}]
        if repeatable and policy.attempts > 1
        else [],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }


class _OutgoingCalls:
    """What both kinds of calls share."""

    def __init__(
        self,
        descriptor: ServiceDescriptor,
        bearer: Bearer | None,
        clock: Clock,
        random: Callable[[int], bytes],
        policy: CallPolicy,
    ) -> None:
        self._bearer = bearer
        self._clock = clock
        self._random = random
        self._new_id = Uuid7(clock, random)
        self.policy = policy
        self._takes_request_id = {
            f"/{descriptor.full_name}/{method.name}"
            for method in descriptor.methods
            if _REQUEST_ID in method.input_type.fields_by_name
        }
        self._repeatable = {
            f"/{descriptor.full_name}/{method.name}" for method in descriptor.methods if may_repeat(method)
        }

    async def details(
        self, given: grpc.aio.ClientCallDetails, *, timeout_s: float | None
    ) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(given.metadata or ()))
        origin = ORIGIN.get(None)
        if origin is not None and origin.correlation_id:
            metadata.add(CORRELATION_HEADER, origin.correlation_id)
        if traceparent := current_traceparent():
            metadata.add(TRACE_HEADER, traceparent)
        if self._bearer is not None:
            metadata.add(AUTHORIZATION_HEADER, f"Bearer {await self._bearer()}")
        return grpc.aio.ClientCallDetails(
            given.method, timeout_s, metadata, given.credentials, given.wait_for_ready
        )

    def timeout_s(self, given: grpc.aio.ClientCallDetails) -> float:
        """The caller's, else the policy's; within an answered call never past that one's deadline."""
        timeout_s = given.timeout if given.timeout is not None else self.policy.timeout_s
        call = CURRENT_CALL.get(None)
        if call is None:
            return timeout_s
        return max(0.0, min(timeout_s, call.deadline - self._clock.monotonic()))

    def with_request_id(self, given: grpc.aio.ClientCallDetails, request: Message) -> Message:
        """The request, with a request_id if its method takes one and it has none."""
        if _path(given) not in self._takes_request_id or getattr(request, _REQUEST_ID):
            return request
        copy = type(request)()
        copy.CopyFrom(request)
        setattr(copy, _REQUEST_ID, str(self._new_id()))
        return copy

    async def pause(self, given: grpc.aio.ClientCallDetails, error: ServiceError, deadline: float) -> bool:
        """Wait as long as the server asked; False if the call must not be sent again."""
        asked_s = error.retry_after_s
        if not isinstance(error, ResourceExhausted) or asked_s is None or asked_s > self.policy.max_wait_s:
            return False
        if _path(given) not in self._repeatable:
            return False
        wait_s = asked_s * (1.0 + self._random(1)[0] / 1024)
        if self._clock.monotonic() + wait_s >= deadline:
            return False
        await self._clock.sleep(wait_s)
        return True

    def now(self) -> float:
        return self._clock.monotonic()


class _UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, calls: _OutgoingCalls) -> None:
        self._calls = calls

    async def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        with span_below("call") as span:
            call = await self._answered(continuation, client_call_details, request)
            if span is not None:
                span.update_name(_path(client_call_details).removeprefix("/"))
                if (code := await call.code()) is not grpc.StatusCode.OK:
                    failed(span, code.name)
            return call

    async def _answered(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        request = self._calls.with_request_id(client_call_details, request)
        deadline = self._calls.now() + self._calls.timeout_s(client_call_details)
        for attempt in range(1, self._calls.policy.attempts + 1):
            timeout_s = max(0.0, deadline - self._calls.now())
            call = await continuation(
                await self._calls.details(client_call_details, timeout_s=timeout_s), request
            )
            try:
                code = await call.code()
            except asyncio.CancelledError:
                call.cancel()
                raise
            if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                return call
            if attempt == self._calls.policy.attempts:
                return call
            error = ServiceError.from_rpc_error(await _error_of(call))
            if not await self._calls.pause(client_call_details, error, deadline):
                return call
        raise AssertionError("the last attempt returns")


class _StreamCalls(grpc.aio.UnaryStreamClientInterceptor):
    """Streams have no deadline unless the caller gives one, and are begun again by their readers."""

    def __init__(self, calls: _OutgoingCalls) -> None:
        self._calls = calls
        self._ending: set[asyncio.Task[None]] = set()

    async def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        given = client_call_details
        with span_below(_path(given).removeprefix("/"), stays_open=True) as span:
            call = await continuation(await self._calls.details(given, timeout_s=given.timeout), request)
        if span is not None:
            ending = asyncio.create_task(_end_with(call, span))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        return call


async def _end_with(call: Any, span: Span) -> None:
    """The span of a stream is as long as that: until it is read to its end, fails or is left."""
    try:
        if (code := await call.code()) is not grpc.StatusCode.OK:
            failed(span, code.name)
    finally:
        span.end()


async def _error_of(call: Any) -> grpc.aio.AioRpcError:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the code said that it failed")


def _path(details: grpc.aio.ClientCallDetails) -> str:
    method: str | bytes = details.method
    return method.decode() if isinstance(method, bytes) else method


_OPTIONS: Final = (
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    *METADATA_OPTIONS,
    # By itself gRPC sends nothing of more than 256 KiB again.
    ("grpc.per_rpc_retry_buffer_size", MAX_REQUEST_BYTES + MAX_METADATA_BYTES),
    ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
    # Whatever its name says: how long one attempt may take, from the connection to the server's settings.
    ("grpc.min_reconnect_backoff_ms", _CONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_MS),
    # Channels of one process to one target are kept apart, or they would share their service config.
    ("grpc.use_local_subchannel_pool", 1),
)

"""The one interceptor: everything that happens to a call before and after its handler, in one place.

Deadline, telemetry, authentication, tenant binding, module and permission check, limits, validation,
idempotency, errors. One and not nine, because each costs every call about 10 µs.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import grpc

from tlsy.rpc.call import CURRENT_CALL
from tlsy.rpc.errors import STATUS_KEY, Internal, Unavailable
from tlsy.rpc.failures import as_service_error
from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from tlsy.rpc.admission import Admission
    from tlsy.rpc.call import Call
    from tlsy.rpc.limits import InFlight
    from tlsy.rpc.methods import Method
    from tlsy.rpc.observer import CallObserver, Observed
    from tlsy.runtime.clock import Clock

    Context = grpc.aio.ServicerContext[Any, Any]
    Unary = Callable[[Message, Context], Awaitable[Message]]
    Stream = Callable[[Message, Context], AsyncGenerator[Message, None]]
    Handler = grpc.RpcMethodHandler[Any, Any]

#: Methods of the server itself, open to everyone who can reach it.
_INFRASTRUCTURE: Final = ("/grpc.health.v1.", "/grpc.reflection.")
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a call may take, in seconds: without a deadline of its own, and at most."""

    default_s: float
    max_s: float
    max_stream_s: float


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server; see the module's text for the steps."""

    def __init__(
        self,
        domain: str,
        methods: Mapping[str, Method],
        *,
        admission: Admission,
        observer: CallObserver,
        in_flight: InFlight,
        deadlines: Deadlines,
        clock: Clock,
    ) -> None:
        """Wire it.

        Args:
            domain: of this service's errors, "tlsy.<service>".
            methods: by gRPC path; what is not there is not served.
            admission: decides who may call.
            observer: measures.
            in_flight: bounds what runs at once.
            deadlines: bounds how long it runs.
            clock: what the time is.
        """
        self._domain = domain
        self._methods = methods
        self._admission = admission
        self._observer = observer
        self._in_flight = in_flight
        self._deadlines = deadlines
        self._clock = clock
        self._wrapped: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._logger = get_logger("rpc.server")

    def end_streams(self) -> None:
        """Tell the readers of all streams to go elsewhere; calls are left to finish."""
        self._draining = True
        for task in self._streams:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The wrapped handler; wrapped once per method."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is not None:
            return wrapped
        if path.startswith(_INFRASTRUCTURE):
            return await continuation(handler_call_details)
        method = self._methods.get(path)
        handler = await continuation(handler_call_details) if method is not None else None
        if handler is None or method is None:
            return None
        if method.streams:
            wrapped = grpc.unary_stream_rpc_method_handler(
                self._stream(method, cast("Stream", handler.unary_stream)),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        else:
            wrapped = grpc.unary_unary_rpc_method_handler(
                self._unary(method, cast("Unary", handler.unary_unary)),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        self._wrapped[path] = wrapped
        return wrapped

    def _unary(self, method: Method, handle: Unary) -> Unary:
        async def answer(request: Message, context: Context) -> Message:
            seen = self._observer.begin(method, context.invocation_metadata() or ())
            limit_s = _limit_s(context, self._deadlines.default_s, self._deadlines.max_s)
            try:
                self._in_flight.enter_call()
                try:
                    async with asyncio.timeout(limit_s):
                        await self._admit(method, request, context, seen, limit_s)
                        response = await handle(request, context)
                finally:
                    self._in_flight.leave_call()
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await self._refuse(error, seen, context)
            except asyncio.CancelledError as error:
                self._observer.end(seen, grpc.StatusCode.CANCELLED, error)
                raise
            self._observer.end(seen, grpc.StatusCode.OK, None)
            return response

        return answer

    def _stream(self, method: Method, handle: Stream) -> Callable[[Message, Context], Awaitable[None]]:
        async def answer(request: Message, context: Context) -> None:
            seen = self._observer.begin(method, context.invocation_metadata() or ())
            limit_s = _limit_s(context, self._deadlines.max_stream_s, self._deadlines.max_stream_s)
            try:
                async with asyncio.timeout(limit_s):
                    tenant_id = (await self._admit(method, request, context, seen, limit_s)).tenant_id
                    self._in_flight.enter_stream(tenant_id)
                    try:
                        await self._write_all(handle, request, context)
                    finally:
                        self._in_flight.leave_stream(tenant_id)
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await self._refuse(error, seen, context)
            except asyncio.CancelledError as error:
                self._observer.end(seen, grpc.StatusCode.CANCELLED, error)
                raise
            self._observer.end(seen, grpc.StatusCode.OK, None)

        return answer

    async def _write_all(self, handle: Stream, request: Message, context: Context) -> None:
        task = asyncio.current_task()
        if task is None or self._draining:
            raise _stopping()
        self._streams.add(task)
        try:
            async with aclosing(handle(request, context)) as responses:
                async for response in responses:
                    await context.write(response)
        except asyncio.CancelledError:
            if not self._draining:
                raise
            task.uncancel()
            raise _stopping() from None
        finally:
            self._streams.discard(task)

    async def _admit(
        self, method: Method, request: Message, context: Context, seen: Observed, limit_s: float
    ) -> Call:
        call = await self._admission.admit(
            method, request, seen, deadline=seen.started + limit_s, peer=context.peer()
        )
        CURRENT_CALL.set(call)
        if call.claims is not None:
            self._observer.identify(seen, str(call.claims.slug), call.claims.principal)
        return call

    async def _refuse(self, error: Exception, seen: Observed, context: Context) -> NoReturn:
        """End the call with the status that tells `error`; what is not ours to tell becomes INTERNAL."""
        told = as_service_error(error)
        if isinstance(told, Internal) and told is not error:
            self._logger.error("call failed", method=seen.method.name, exc_info=error)
        self._observer.end(seen, told.code, told)
        status = told.to_status(self._domain)
        trailing: list[tuple[str, str | bytes]] = [(STATUS_KEY, status.SerializeToString())]
        if told.retry_after_s is not None:
            trailing.append((PUSHBACK_KEY, str(round(told.retry_after_s * 1000))))
        await context.abort(told.code, status.message, tuple(trailing))
        raise AssertionError("abort raises")


def _limit_s(context: Context, default_s: float, max_s: float) -> float:
    """How long a call may take: what its caller allows, up to `max_s`."""
    remaining_s = context.time_remaining()
    return default_s if remaining_s is None else min(remaining_s, max_s)


def _stopping() -> Unavailable:
    return Unavailable("SERVER_STOPPING", "This server is going away; begin again.", retry_after_s=0.2)

"""The one interceptor: everything that happens to a call before and after its handler, in one place.

Deadline, telemetry, size, authentication, parsing, tenant binding, module and permission check, limits,
validation, idempotency, errors. One and not nine, because each costs every call about 10 µs.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import grpc

from tlsy.rpc.call import CURRENT_CALL
from tlsy.rpc.crossings import crosses
from tlsy.rpc.errors import (
    STATUS_KEY,
    Internal,
    PermissionDenied,
    RecordedDenial,
    ServiceError,
    Unavailable,
)
from tlsy.rpc.failures import as_service_error
from tlsy.rpc.tokens import TokenRevoked
from tlsy.runtime.tracing import ORIGIN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from tlsy.rpc.admission import Admission, Parse
    from tlsy.rpc.call import Call
    from tlsy.rpc.crossings import Crossings
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


class _Stream:
    """A stream that is being answered.

    Attributes:
        task: answers it.
        stands: raises why it must not go on, if it must not.
        ending: why it was cancelled by us; None: it was not.
    """

    __slots__ = ("ending", "stands", "task")

    def __init__(self, task: asyncio.Task[Any], stands: Callable[[], None]) -> None:
        self.task = task
        self.stands = stands
        self.ending: Exception | None = None

    def end(self, reason: Exception) -> None:
        if self.ending is None:
            self.ending = reason
            self.task.cancel()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server; see the module's text for the steps."""

    def __init__(
        self,
        domain: str,
        methods: Mapping[str, Method],
        *,
        admission: Admission,
        crossings: Crossings,
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
            crossings: is told of reads by those of other tenants.
            observer: measures.
            in_flight: bounds what runs at once.
            deadlines: bounds how long it runs.
            clock: what the time is.
        """
        self._domain = domain
        self._methods = methods
        self._admission = admission
        self._crossings = crossings
        self._observer = observer
        self._in_flight = in_flight
        self._deadlines = deadlines
        self._clock = clock
        self._wrapped: dict[str, Handler] = {}
        self._streams: set[_Stream] = set()
        self._draining = False

    def end_streams(self) -> None:
        """Tell the readers of all streams to go elsewhere; calls are left to finish."""
        self._draining = True
        for stream in self._streams:
            stream.end(_stopping())

    def check_streams(self) -> None:
        """End the streams whose token, tenant or module is not what it was when they were let in.

        Asked several times a second: whoever was locked out reads on for no longer than that.
        """
        for stream in self._streams:
            try:
                stream.stands()
            except Exception as error:  # noqa: BLE001 - the stream's own answer tells it
                stream.end(error)

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
            handler = await continuation(handler_call_details)
            return None if handler is None else self._infrastructure(handler)
        method = self._methods.get(path)
        handler = await continuation(handler_call_details) if method is not None else None
        if handler is None or method is None:
            return None
        parse = cast("Parse", handler.request_deserializer)
        # Without a deserialiser of gRPC's: a request that cannot be read is answered and measured as others.
        if method.streams:
            wrapped = grpc.unary_stream_rpc_method_handler(
                self._stream(method, parse, cast("Stream", handler.unary_stream)),
                response_serializer=handler.response_serializer,
            )
        else:
            wrapped = grpc.unary_unary_rpc_method_handler(
                self._unary(method, parse, cast("Unary", handler.unary_unary)),
                response_serializer=handler.response_serializer,
            )
        self._wrapped[path] = wrapped
        return wrapped

    def _unary(self, method: Method, parse: Parse, handle: Unary) -> Callable[..., Awaitable[Message]]:
        async def answer(raw: bytes, context: Context) -> Message:
            seen = self._observer.begin(method, context.invocation_metadata() or ())
            limit_s = _limit_s(context, self._deadlines.default_s, self._deadlines.max_s)
            request = call = held = None
            try:
                self._in_flight.enter_call()
                try:
                    async with asyncio.timeout(limit_s):
                        request, call = await self._admit(parse, raw, context, seen, limit_s)
                        held = self._in_flight.hold_share(call.claims)
                        response = await handle(request, context)
                        await self._tell_crossing(method, request, call)
                finally:
                    self._in_flight.leave_call(held)
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await self._refuse(error, seen, context, request, call)
            except asyncio.CancelledError as error:
                self._observer.end(seen, grpc.StatusCode.CANCELLED, error)
                raise
            self._observer.end(seen, grpc.StatusCode.OK, None)
            return response

        return answer

    def _stream(self, method: Method, parse: Parse, handle: Stream) -> Callable[..., Awaitable[None]]:
        async def write(request: Message, call: Call, context: Context, stands: Callable[[], None]) -> None:
            await self._tell_crossing(method, request, call)
            await _write_all(handle(request, context), context, stands)

        async def answer(raw: bytes, context: Context) -> None:
            seen = self._observer.begin(method, context.invocation_metadata() or ())
            limit_s = _limit_s(context, self._deadlines.max_stream_s, self._deadlines.max_stream_s)
            request = call = None
            try:
                async with asyncio.timeout(limit_s):
                    request, call = await self._admit(parse, raw, context, seen, limit_s)
                    stands = partial(self._admission.stands, method, call)
                    held = self._in_flight.enter_stream(call.claims)
                    try:
                        await self._last(partial(write, request, call, context, stands), context, stands)
                    finally:
                        self._in_flight.leave_stream(held)
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await self._refuse(error, seen, context, request, call)
            except asyncio.CancelledError as error:
                self._observer.end(seen, grpc.StatusCode.CANCELLED, error)
                raise
            self._observer.end(seen, grpc.StatusCode.OK, None)

        return answer

    async def _last(
        self, run: Callable[[], Awaitable[None]], context: Context, stands: Callable[[], None]
    ) -> None:
        """Answer a stream until it is done or ended."""
        if self._draining:
            raise _stopping()
        await _finished(context.send_initial_metadata(()))
        task = asyncio.current_task()
        if task is None or self._draining:
            raise _stopping()
        stream = _Stream(task, stands)
        self._streams.add(stream)
        try:
            await run()
        except asyncio.CancelledError:
            if stream.ending is None:
                raise
            task.uncancel()
            raise stream.ending from None
        finally:
            self._streams.discard(stream)

    def _infrastructure(self, handler: Handler) -> Handler:
        """The same; its streams end when the server begins to stop, which would wait for them otherwise.

        They are bounded as others are, though nobody is asked for a token: in number and in time.
        """
        streams: Any = handler.stream_stream or handler.unary_stream
        if streams is None:
            return handler

        async def answer(request: Any, context: Context) -> None:
            async def run() -> None:
                answered = streams(request, context)
                if inspect.isawaitable(answered):
                    await answered
                else:
                    await _write_all(answered, context, _always)

            try:
                with self._in_flight.open_stream():
                    async with asyncio.timeout(self._deadlines.max_stream_s):
                        await self._last(run, context, _always)
            except (ServiceError, TimeoutError) as error:
                await self._abort(context, as_service_error(error))

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return make(answer, handler.request_deserializer, handler.response_serializer)

    async def _admit(
        self, parse: Parse, raw: bytes, context: Context, seen: Observed, limit_s: float
    ) -> tuple[Message, Call]:
        request, call = await self._admission.admit(
            seen.method, parse, raw, seen, deadline=seen.started + limit_s, peer=context.peer()
        )
        if call.claims is not None and call.claims.of_service and seen.recorded_by:
            self._observer.follow(seen)
            call = replace(call, traceparent=seen.traceparent)
        CURRENT_CALL.set(call)
        ORIGIN.set(call)
        if call.claims is not None:
            self._observer.identify(seen, str(call.claims.slug), call.claims.principal)
        return request, call

    async def _tell_crossing(self, method: Method, request: Message, call: Call) -> None:
        if crosses(method, call):
            await self._crossings.crossed(call, method.names.first(request))

    async def _refuse(
        self, error: Exception, seen: Observed, context: Context, request: Message | None, call: Call | None
    ) -> NoReturn:
        """End the call with the status that tells `error`; what is not ours to tell becomes INTERNAL.

        Admission tells the audit log of what it refuses; of what is refused after it, this does, unless the
        handler has.
        """
        told = as_service_error(error)
        claims = call.claims if call is not None else None
        denied = isinstance(told, PermissionDenied | TokenRevoked) and not isinstance(told, RecordedDenial)
        if denied and claims is not None and request is not None:
            self._admission.tell(seen.method, seen.method.names.first(request), claims, told)
        defect = error if isinstance(told, Internal) and told is not error else None
        if call is None and seen.claims is not None:
            self._observer.identify(seen, str(seen.claims.slug), seen.claims.principal)
        self._observer.end(seen, told.code, told, defect)
        await self._abort(context, told)
        raise AssertionError("abort raises")

    async def _abort(self, context: Context, told: ServiceError) -> None:
        status = told.to_status(self._domain)
        trailing: list[tuple[str, str | bytes]] = [(STATUS_KEY, status.SerializeToString())]
        if told.retry_after_s is not None:
            trailing.append((PUSHBACK_KEY, str(round(told.retry_after_s * 1000))))
        await context.abort(told.code, status.message, tuple(trailing))


async def _write_all(
    responses: AsyncGenerator[Message, None], context: Context, stands: Callable[[], None]
) -> None:
    async with aclosing(responses):
        async for response in responses:
            stands()
            await context.write(response)


async def _finished(sending: Awaitable[None]) -> None:
    """Sends it whole: who is cancelled while sending can send no status, and the reader waits for ever."""
    task = asyncio.ensure_future(sending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _always() -> None:
    """Nothing ends it but the server's own end."""


def _limit_s(context: Context, default_s: float, max_s: float) -> float:
    """How long a call may take: what its caller allows, up to `max_s`."""
    remaining_s = context.time_remaining()
    return default_s if remaining_s is None else min(remaining_s, max_s)


def _stopping() -> Unavailable:
    return Unavailable("SERVER_STOPPING", "This server is going away; begin again.", retry_after_s=0.2)

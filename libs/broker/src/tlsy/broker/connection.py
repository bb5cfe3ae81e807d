from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tlsy.broker.api import Caller, DisconnectError, MalformedRequestError
from tlsy.broker.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from kio.static.protocol import ResponsePayload

    from tlsy.broker.codec import Codec, Request
    from tlsy.broker.read_budget import ReadBudget
    from tlsy.broker.settings import BrokerSettings

_log: Final = logging.getLogger(__name__)
_READ_AHEAD_BYTES: Final = 1024 * 1024


class Connection(asyncio.Protocol):
    """One client: answers its requests one after the other, in order.

    A request that cannot be decoded, a frame that does not arrive in time, a client that does not read,
    and a failing handler all end this connection and nothing else. When the client goes away, a handler
    that still waits (long poll, rebalance) is cancelled at once.
    While a request is being handled, at most about a megabyte is read ahead; beyond the budget of all
    connections a large request waits for others to arrive.
    """

    def __init__(
        self,
        *,
        codec: Codec,
        unsupported_version: ResponsePayload,
        settings: BrokerSettings,
        budget: ReadBudget,
        on_open: Callable[[Connection], bool],
        on_close: Callable[[Connection], None],
    ) -> None:
        self._codec = codec
        self._unsupported_version = unsupported_version
        self._settings = settings
        self._budget = budget
        self._on_open = on_open
        self._on_close = on_close
        self._frames = Frames(
            max_produce_bytes=settings.max_request_bytes, max_other_bytes=settings.max_control_request_bytes
        )
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport
        self._serving: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, or close at once if the broker is full."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"not a stream transport: {type(transport).__name__}")
        self._transport = transport
        if self._on_open(self):
            self._serving = asyncio.get_running_loop().create_task(self._serve())
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Keep what has come; stop reading if the client is far ahead of its answers."""
        self._frames.feed(data)
        self._budget.add(len(data))
        buffered_bytes = self._frames.buffered_bytes
        is_ahead = self._arrived.is_set() and buffered_bytes > _READ_AHEAD_BYTES
        if is_ahead or not self._budget.may_read(self, buffered_bytes):
            self._transport.pause_reading()
        self._arrived.set()

    def read_on(self) -> None:
        """Read, unless the budget of all connections says to wait."""
        if self._budget.may_read(self, self._frames.buffered_bytes):
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what still runs for the client."""
        del exc
        self._writable.set()
        self._budget.forget(self, self._frames.clear())
        if self._serving is not None:
            self._serving.cancel()
        self._on_close(self)

    def pause_writing(self) -> None:
        """The client does not read as fast as it asks."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()

    def abort(self) -> None:
        """Close without waiting for anything to be sent."""
        self._transport.abort()

    async def closed(self) -> None:
        """Wait until nothing runs for the client any more."""
        if self._serving is not None:
            await asyncio.wait({self._serving})

    async def _serve(self) -> None:
        try:
            while True:
                frame = await self._next_frame()
                await self._respond(self._codec.decode(frame))
        except MalformedRequestError as error:
            _log.warning("malformed request from %s: %s", self._peer(), error)
        except (DisconnectError, TimeoutError) as error:
            _log.info("connection of %s closed: %s", self._peer(), error or "timed out")
        except Exception:  # noqa: BLE001 - whatever fails for one client must not reach the others
            _log.exception("a request of %s failed", self._peer())
        finally:
            self._transport.abort()

    async def _next_frame(self) -> bytes:
        now_s = asyncio.get_running_loop().time
        deadline_s = now_s() + self._settings.idle_timeout_s
        has_begun = False
        while True:
            buffered_bytes = self._frames.buffered_bytes
            frame = self._frames.take()
            if frame is not None:
                self._budget.release(self, buffered_bytes - self._frames.buffered_bytes)
                return frame
            if not has_begun and buffered_bytes:
                has_begun = True
                deadline_s = now_s() + self._settings.frame_timeout_s
            self._arrived.clear()
            self.read_on()
            async with asyncio.timeout_at(deadline_s):
                await self._arrived.wait()

    async def _respond(self, request: Request) -> None:
        if request.api is None:
            response: ResponsePayload | None = self._unsupported_version
        else:
            response = await request.api.handle(request.body, self._caller(request))
        if response is None:
            return
        self._transport.write(self._codec.encode(response, request.version, request.correlation_id))
        if not self._writable.is_set():
            async with asyncio.timeout(self._settings.write_timeout_s):
                await self._writable.wait()

    def _caller(self, request: Request) -> Caller:
        broker_host, broker_port = self._transport.get_extra_info("sockname")[:2]
        return Caller(
            client_id=request.client_id,
            client_host=self._peer(),
            broker_host=broker_host,
            broker_port=broker_port,
            api_version=request.version,
        )

    def _peer(self) -> str:
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if peer else "a closed connection"

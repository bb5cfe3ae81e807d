"""A channel that shows a renewed certificate: gRPC itself reads a client's once for all its connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc

from tlsy.rpc.certificates import CertificateFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.certificates import Shown
    from tlsy.runtime.host import TlsFiles

    Connect = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]
    MultiCallable = Callable[..., grpc.aio.Call]


class _Opened:
    """A channel with the certificate that it was opened with, and how many calls it has."""

    __slots__ = ("calls", "channel")

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0


class RenewedChannel(grpc.aio.Channel):
    """Looks at the files before each call, and opens another channel once they are others.

    Calls that were begun, retries too, end where they began; with the last of them that connection is closed.
    """

    def __init__(self, tls: TlsFiles, connect: Connect) -> None:
        """Open the first one.

        Raises:
            OSError, ValueError: see `CertificateFiles.read`.
        """
        self._files = CertificateFiles(tls, "rpc.channel")
        self._connect = connect
        self._opened = _Opened(connect(_credentials(self._files.read())))
        self._before: set[_Opened] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def opened(self) -> _Opened:
        """The channel for the next call."""
        shown = self._files.renewed()
        if shown is not None:
            before, self._opened = self._opened, _Opened(self._connect(_credentials(shown)))
            self._before.add(before)
            self._close_unused(before)
        return self._opened

    def follow(self, opened: _Opened, call: grpc.aio.Call) -> grpc.aio.Call:
        """Count the call until it has ended."""

        def ended(_: object) -> None:
            opened.calls -= 1
            self._close_unused(opened)

        opened.calls += 1
        call.add_done_callback(ended)
        return call

    def _close_unused(self, opened: _Opened) -> None:
        if opened.calls or opened not in self._before:
            return
        self._before.discard(opened)
        closing = asyncio.get_running_loop().create_task(opened.channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel.close`."""
        left, self._before = {self._opened, *self._before}, set()
        await asyncio.gather(*(each.channel.close(grace) for each in left), *self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - gRPC's
        """See `grpc.aio.Channel.get_state`."""
        return self._opened.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel.wait_for_state_change`."""
        await self._opened.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel.channel_ready`."""
        await self._opened.channel.channel_ready()

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        """See `grpc.aio.Channel.unary_unary`."""
        return _Calls(self, lambda channel: channel.unary_unary(*args, **options))

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        """See `grpc.aio.Channel.unary_stream`."""
        return _Calls(self, lambda channel: channel.unary_stream(*args, **options))

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        """See `grpc.aio.Channel.stream_unary`."""
        return _Calls(self, lambda channel: channel.stream_unary(*args, **options))

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        """See `grpc.aio.Channel.stream_stream`."""
        return _Calls(self, lambda channel: channel.stream_stream(*args, **options))


class _Calls:
    """What calls one method, over whichever channel is the one to use."""

    __slots__ = ("_channel", "_made", "_make")

    def __init__(self, channel: RenewedChannel, make: Callable[[grpc.aio.Channel], MultiCallable]) -> None:
        self._channel = channel
        self._make = make
        self._made: tuple[_Opened, MultiCallable] | None = None

    def __call__(self, *args: Any, **options: Any) -> grpc.aio.Call:
        opened = self._channel.opened()
        if self._made is None or self._made[0] is not opened:
            self._made = opened, self._make(opened.channel)
        return self._channel.follow(opened, self._made[1](*args, **options))


def _credentials(shown: Shown) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(shown.roots, shown.key, shown.chain)

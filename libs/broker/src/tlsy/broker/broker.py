from __future__ import annotations

import asyncio
import base64
import itertools
import time
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID, uuid4

from tlsy.broker.apis import all_apis
from tlsy.broker.codec import Codec
from tlsy.broker.connection import Connection
from tlsy.broker.coordinator import GroupCoordinator
from tlsy.broker.handlers.api_versions import unsupported_version
from tlsy.broker.read_budget import ReadBudget
from tlsy.broker.settings import Address, BrokerSettings
from tlsy.broker.topics import TopicStore

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType

_STOP_TIMEOUT_S: Final = 5.0
_TURNS_TO_BE_KNOWN: Final = 3
"""Of the loop, until who was accepted is one of the connections; a server closed before leaves it open."""
_PRODUCER_ID_SHIFT: Final = 66
"""Leaves 62 of a UUID's bits: positive, and far from the end of the ids."""


class Broker:
    """A Kafka-protocol broker in this process and event loop, keeping everything in memory.

    Each start begins empty, with a new random cluster id and producer ids that no earlier start gave
    out: by the first a relay notices that its records are gone, by the second a producer that survived
    the restart is not mistaken for another.
    No transactions, no replication, no disk, no authentication.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        new_uuid: Callable[[], UUID] = uuid4,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._new_uuid = new_uuid
        self._time_ns = time_ns
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._coordinator: GroupCoordinator | None = None

    async def start(self, listener: socket.socket | None = None) -> Address:
        """Listen, and tell where.

        Args:
            listener: has an address already, and is closed by `stop`; None has one made as the settings say.

        Raises:
            OSError: the address is not free or not local.
            RuntimeError: it runs already.
        """
        if self._server is not None:
            raise RuntimeError("the broker runs already")
        topics = TopicStore(self._settings)
        self._coordinator = GroupCoordinator(self._settings, self._new_uuid)
        apis = all_apis(
            topics=topics,
            coordinator=self._coordinator,
            settings=self._settings,
            cluster_id=base64.urlsafe_b64encode(self._new_uuid().bytes).decode().rstrip("="),
            now_ms=lambda: self._time_ns() // 1_000_000,
            producer_ids=itertools.count(self._new_uuid().int >> _PRODUCER_ID_SHIFT),
        )
        codec = Codec(apis, max_produce_parts=self._settings.max_topics + self._settings.max_partitions)
        refusal = unsupported_version(apis.values())
        budget = ReadBudget(self._settings.max_buffered_bytes)

        def connection() -> Connection:
            return Connection(
                codec=codec,
                unsupported_version=refusal,
                settings=self._settings,
                budget=budget,
                on_open=self._admit,
                on_close=self._connections.discard,
            )

        loop = asyncio.get_running_loop()
        if listener is None:
            self._server = await loop.create_server(connection, self._settings.host, self._settings.port)
        else:
            self._server = await loop.create_server(connection, sock=listener)
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    async def stop(self) -> None:
        """Close every connection and forget everything; harmless if it does not run."""
        if self._server is None or self._coordinator is None:
            return
        server, self._server = self._server, None
        loop = asyncio.get_running_loop()
        for listener in server.sockets:
            loop.remove_reader(listener.fileno())
        try:
            for _ in range(_TURNS_TO_BE_KNOWN):
                await asyncio.sleep(0)
        finally:
            server.close()
            open_connections = tuple(self._connections)
            for connection in open_connections:
                connection.abort()
            self._coordinator.close()
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            for connection in open_connections:
                await connection.closed()
            await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def address(self) -> Address:
        """Where it listens.

        Raises:
            RuntimeError: it does not run.
        """
        if self._server is None:
            raise RuntimeError("the broker does not run")
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    def _admit(self, connection: Connection) -> bool:
        if len(self._connections) >= self._settings.max_connections:
            return False
        self._connections.add(connection)
        return True

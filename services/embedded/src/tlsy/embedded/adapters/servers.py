"""The database server and the broker, as components of the suite."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.broker import Broker
from tlsy.embedded.settings import CLUSTER, COMMON_DATABASE
from tlsy.tenancy.cluster import MIGRATOR, RELAY, create_roles, install_database
from tlsy.tenancy.context import SHARED_SCHEMA, Placement
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.migrations import Schemas, installed, renderer

if TYPE_CHECKING:
    import socket

    from tlsy.broker import BrokerSettings
    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.local_postgres import LocalPostgres

_PATIENT: Final = PoolLimits(statement_timeout_s=60.0, lock_timeout_s=30.0)
_CONNECT_TIMEOUT_S: Final = 10.0


class PostgresPart:
    """Starts the server, and brings roles and both databases to what this version of the suite needs."""

    name = "postgres"

    def __init__(self, server: LocalPostgres, control_database: str, clock: Clock) -> None:
        self._server = server
        self._control_database = control_database
        self._clock = clock

    async def start(self) -> None:
        """Returns once services may connect; one that does not get that far leaves no server behind."""
        starting = asyncio.ensure_future(asyncio.to_thread(self._server.start))
        try:
            # Loaded meanwhile: it is what makes the tables.
            await asyncio.to_thread(renderer)
            await asyncio.shield(starting)
            await self._install()
        except BaseException:
            # A thread cannot be cancelled: what it starts is there only when it has ended.
            await asyncio.wait({starting})
            if starting.exception() is None:
                await asyncio.to_thread(self._server.stop)
            raise

    async def _install(self) -> None:
        services = installed()
        roles = [MIGRATOR, "tlsy_mover", RELAY, *(service.role for service in services)]
        address = self._server.address()
        administrator = await asyncpg.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database="postgres",
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=_CONNECT_TIMEOUT_S,
        )
        try:
            await create_roles(administrator, services, dict.fromkeys(roles, address.password))
        finally:
            await administrator.close()
        schemas = Schemas(services)
        databases = Databases({CLUSTER: self._server.address(MIGRATOR)}, _PATIENT, self._clock)
        try:
            for name, components in (
                (self._control_database, schemas.control()),
                (COMMON_DATABASE, schemas.common()),
            ):
                placement = Placement(CLUSTER, name, SHARED_SCHEMA)
                today = self._clock.now().date()
                await install_database(databases, placement, components, services, today)
        finally:
            await databases.close()

    async def stop(self, grace_s: float) -> None:  # noqa: ARG002 - a fast stop rolls back what is open
        """Stops the server; everything that was committed is on disk."""
        await asyncio.to_thread(self._server.stop)

    async def wait(self) -> None:
        """Returns at once: services notice by themselves when the database is away, and when it is back."""


class BrokerPart:
    """The broker, in this process and loop."""

    name = "broker"

    def __init__(self, settings: BrokerSettings, listener: socket.socket) -> None:
        self._broker = Broker(settings)
        self._listener = listener

    async def start(self) -> None:
        """Returns once it listens."""
        await self._broker.start(self._listener)

    async def stop(self, grace_s: float) -> None:  # noqa: ARG002 - it has deadlines of its own
        """Forgets everything; what matters is in the database."""
        await self._broker.stop()

    async def wait(self) -> None:
        """Returns at once: it has nothing that could break by itself."""

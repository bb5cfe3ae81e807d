"""Fenced leases of workers, in the control database.

Who takes a lease gets a token that is higher than every one before. Work is done while a lock on the lease's
row is held under that token, so a taker waits for the work of the former holder, and the former holder, once
the lease was taken, is refused. The token is part of a key of the row: raising it conflicts with that lock,
renewing does not, so that work may last longer than the lease.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlsy.tenancy.database import transaction
from tlsy.tenancy.errors import LeaseLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tlsy.tenancy.database import Connection

_TAKE: Final = """
insert into tlsy.lease as l (name, holder, token, expires_at)
select $1, $2, 1, now() + make_interval(secs => $3)
-- Who would not get it leaves the row alone, rather than wait for the holder's work to be told so.
where not exists (select from tlsy.lease where name = $1 and holder <> $2 and expires_at > now())
on conflict (name) do update
    set holder = excluded.holder, token = l.token + 1, expires_at = excluded.expires_at
    where l.expires_at <= clock_timestamp() or l.holder = excluded.holder
returning token
"""
_RENEW: Final = """
update tlsy.lease set expires_at = now() + make_interval(secs => $3) where name = $1 and token = $2
"""
_HOLD: Final = "select true from tlsy.lease where name = $1 and token = $2 for key share"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was taken; it is only worth as much as `hold` says at the moment of use."""

    name: str
    token: int


async def take_lease(connection: Connection, name: str, holder: str, ttl_s: float) -> Lease | None:
    """Take the lease if it is free, expired or the holder's own; else None.

    `connection` is to the control database.
    """
    token = await connection.fetchval(_TAKE, name, holder, ttl_s)
    return None if token is None else Lease(name, token)


async def renew_lease(connection: Connection, lease: Lease, ttl_s: float) -> None:
    """Keep it for `ttl_s` from now. Raises LeaseLost."""
    if await connection.execute(_RENEW, lease.name, lease.token, ttl_s) != "UPDATE 1":
        raise LeaseLost(lease.name)


@asynccontextmanager
async def hold(connection: Connection, lease: Lease) -> AsyncIterator[None]:
    """Do something that only the holder may do; nobody takes the lease meanwhile. Raises LeaseLost."""
    async with transaction(connection):
        if not await connection.fetchval(_HOLD, lease.name, lease.token):
            raise LeaseLost(lease.name)
        yield

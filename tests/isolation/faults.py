"""Calls that are cut off, connections that the server ends and a replica that is killed, all at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import grpc

from tlsy.testkit.installation import connect

from .calls import BY_NAME, Client
from .names import REQUESTS, SHOW

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from .world import World

_AT_ONCE: Final = 16
_FOR_S: Final = 5.0
_KILL_AFTER_S: Final = 2.0
_LONGEST_CALL_S: Final = 0.03
_SERVICES: Final = "usename ~ '^tlsy_(tenant_registry|identity|ingestion|rules_engine)$'"
_END_ONE: Final = f"""
    select pg_terminate_backend(pid) from pg_stat_activity
    where {_SERVICES} and state <> 'idle' or {_SERVICES} and random() < 0.3 order by random() limit 1
"""
_IN_TRANSACTION: Final = f"select count(*) from pg_stat_activity where {_SERVICES} and state like 'idle in%'"
_MOST_CONNECTIONS: Final = f"""
    select max(count) from (
        select count(*) from pg_stat_activity
        where {_SERVICES} and query not like 'LISTEN%' group by usename, datname) each
"""


@dataclass(slots=True)
class Trouble:
    """What happened: `ended` counts cancelled calls, ended connections and codes of answers."""

    leaks: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)


async def endure(world: World, replica: Process, seed: int) -> Trouble:
    """Every tenant reads its own for some seconds, on all replicas, while things break."""
    trouble, until_s = Trouble(), time.monotonic() + _FOR_S
    client = Client(world.suite.addresses)

    async def kill() -> None:
        await asyncio.sleep(_KILL_AFTER_S)
        replica.kill()
        await replica.wait()

    async def end_connections() -> None:
        owner = await connect(world.suite.installation.server.address(), "postgres")
        try:
            while time.monotonic() < until_s:
                trouble.ended["connection"] += len(await owner.fetch(_END_ONE))
                await asyncio.sleep(0.05)
        finally:
            await owner.close()

    readers = (_read(world, client, trouble, until_s, random.Random(seed + n)) for n in range(_AT_ONCE))
    try:
        await asyncio.gather(kill(), end_connections(), *readers)
    finally:
        await client.close()
    return trouble


async def _read(world: World, client: Client, trouble: Trouble, until_s: float, dice: random.Random) -> None:
    rpcs, tenants = sorted(SHOW), list(world.tenants.values())
    while time.monotonic() < until_s:
        rpc, tenant = BY_NAME[dice.choice(rpcs)], dice.choice(tenants)
        request = REQUESTS[rpc.name](replace(tenant.names, page_tokens={}))
        token, number = tenant.tokens["client-admin"], dice.randrange(6)
        if dice.random() < 0.25:
            call = client.begin(rpc, request, token, number)
            await asyncio.sleep(dice.random() * _LONGEST_CALL_S)
            trouble.ended["cancelled"] += call.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await call
            continue
        answer = await client.ask(rpc, request, token, number)
        trouble.ended[answer.code.name] += 1
        trouble.leaks += world.leaked(answer.text, world.may_see(tenant, rpc.service))


async def connections(world: World) -> tuple[int, int]:
    """Of services: how many are idle in a transaction, and the most that one role has to one database."""
    owner = await connect(world.suite.installation.server.address(), "postgres")
    try:
        return await owner.fetchval(_IN_TRANSACTION), await owner.fetchval(_MOST_CONNECTIONS)
    finally:
        await owner.close()

"""Calls that are cut off, statements and connections that the server ends, a killed replica: all at once."""

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
    from collections.abc import Callable

    from .world import World

_AT_ONCE: Final = 16
_FOR_S: Final = 5.0
_KILL_AFTER_ANSWERS: Final = 50
_LONGEST_CALL_S: Final = 0.03
_HELD_UP_S: Final = 0.1
_SERVICES: Final = "usename ~ '^tlsy_(tenant_registry|identity|ingestion|rules_engine)$'"
_END_ONE: Final = f"""
    select pg_terminate_backend(pid) from pg_stat_activity
    where {_SERVICES} and state <> 'idle' or {_SERVICES} and random() < 0.3 order by random() limit 1
"""
#: Tables that hold up whoever reads them, so that there are statements to cancel.
_HOLD_UP: Final = "lock table shared.users, shared.events, shared.rules in access exclusive mode"
_CANCEL: Final = f"""
    select pg_cancel_backend(pid) from pg_stat_activity
    where {_SERVICES} and state = 'active' and wait_event_type = 'Lock' and query !~ '^begin'
"""
#: Two replicas have one connection each to a database, and the registry's another one each to listen on.
_HELD: Final = f"""
    select usename, datname, state, query
    from (
        select *, row_number() over (partition by usename, datname order by backend_start) as nth
        from pg_stat_activity where {_SERVICES}) each
    where state like 'idle in%' or nth > case usename when 'tlsy_tenant_registry' then 4 else 2 end
"""


@dataclass(slots=True)
class Trouble:
    """What happened: `ended` counts cancelled calls, statements, ended connections and codes of answers."""

    leaks: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)


async def endure(world: World, replica: Process, seed: int) -> Trouble:
    """Every tenant reads its own for some seconds, on all replicas, while things break."""
    trouble, until_s = Trouble(), time.monotonic() + _FOR_S
    client = Client(world.suite.addresses)

    def over() -> bool:
        return time.monotonic() > until_s

    async def kill() -> None:
        while trouble.ended["OK"] < _KILL_AFTER_ANSWERS and not over():
            await asyncio.sleep(0.01)
        replica.kill()
        await replica.wait()

    async def end_connections() -> None:
        owner = await connect(world.suite.installation.server.address(), "postgres")
        try:
            while not over():
                trouble.ended["connection"] += len(await owner.fetch(_END_ONE))
                await asyncio.sleep(0.05)
        finally:
            await owner.close()

    async def cancel_statements() -> None:
        common = world.suite.installation.common.database
        owner = await connect(world.suite.installation.server.address(), common)
        try:
            while not over():
                async with owner.transaction():
                    await owner.execute(_HOLD_UP)
                    await asyncio.sleep(_HELD_UP_S)
                    cancelled = [row[0] for row in await owner.fetch(_CANCEL)]
                    trouble.ended["statement"] += sum(cancelled)
                await asyncio.sleep(5 * _HELD_UP_S)
        finally:
            await owner.close()

    readers = (_read(world, client, trouble, over, random.Random(seed + n)) for n in range(_AT_ONCE))
    try:
        await asyncio.gather(kill(), end_connections(), cancel_statements(), *readers)
    finally:
        await client.close()
    return trouble


async def _read(
    world: World, client: Client, trouble: Trouble, over: Callable[[], bool], dice: random.Random
) -> None:
    rpcs, tenants = sorted(SHOW), list(world.tenants.values())
    while not over():
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


async def held(world: World) -> list[str]:
    """What services hold on the server and should not: transactions, and connections beyond their bounds."""
    owner = await connect(world.suite.installation.server.address(), "postgres")
    try:
        return [str(dict(row)) for row in await owner.fetch(_HELD)]
    finally:
        await owner.close()

"""A replica of each service dies under load."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import cycle
from typing import TYPE_CHECKING, Final, Protocol

from tests.e2e.books import ONBOARDED, WITHIN_S, books_once
from tests.e2e.load import Sender, counted, marks
from tests.e2e.world import until
from tlsy.tenancy.context import IsolationMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.demo.processes import Running
    from tests.e2e.world import Tenant, World

_NUMBERS: Final = 300
_PAUSE_S: Final = 0.02
_SOURCES: Final = ("gate-a", "gate-b")
_COUNTED: Final = len(_SOURCES) * counted(_NUMBERS)


class Replicas(Protocol):
    """A replica of each service, beside those that a world calls."""

    @property
    def running(self) -> Running:
        """Where they are called."""

    async def kill(self) -> None:
        """They end at once."""


async def a_replica_of_each_service_dies(world: World, dying: Replicas) -> None:
    tenants = [await world.tenant(f"firm-{mode.lower()}", mode) for mode in IsolationMode]
    await asyncio.gather(*(world.publish_rules(tenant, _COUNTED) for tenant in tenants))
    async with aclosing(world.elsewhere(dying.running)) as there:
        senders = [_sender((world, there), tenant, source) for tenant in tenants for source in _SOURCES]
        gone = asyncio.Event()
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
            for sender in senders:
                group.create_task(sender.send(range(_NUMBERS), pause_s=_PAUSE_S, gone=gone))
            await until(lambda: _half_way(senders))
            await dying.kill()
            gone.set()
    assert all(sender.acknowledged == set(range(_NUMBERS)) for sender in senders)
    assert any(sender.refused for sender in senders)
    await world.tenant("late", IsolationMode.SHARED)
    await asyncio.gather(*(_reconcile(world, tenant) for tenant in tenants))


def _sender(worlds: Sequence[World], tenant: Tenant, source: str) -> Sender:
    """Each call goes to the other replica."""
    turns = cycle(worlds)
    return Sender(tenant.slug, source, worlds[0].began_us, lambda: next(turns).agent(tenant.slug))


async def _half_way(senders: Sequence[Sender]) -> bool:
    return all(len(sender.acknowledged) >= _NUMBERS // 2 for sender in senders)


async def _reconcile(world: World, tenant: Tenant) -> None:
    accepted = len(_SOURCES) * _NUMBERS
    await books_once(world.place(tenant), accepted)
    await world.counted_exactly(tenant, _COUNTED, range(_NUMBERS + 1, _NUMBERS + 2))
    books = await books_once(world.place(tenant), accepted + 1)
    books.reconcile(accepted + 1)
    assert books.audited == ONBOARDED
    assert books.incidents["marked", "RESOLVED"] == len(_SOURCES) * marks(_NUMBERS)
